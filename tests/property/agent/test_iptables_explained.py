"""Text of iptables-save, read into statements: words of a pod's choice never become options; nothing fails."""

import string
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from agent.explain.iptables_text import tables
from agent.explain.tables import Rule, Tool

SAFE: Final = frozenset(string.ascii_letters + string.digits + "_-")
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.lists(
        st.sampled_from(
            ["-j", "ACCEPT", "-m", "comment", "--comment", '"', "\\", "!", "-g", "MINE", "tcp", "\n", "COMMIT"]
        ),
        min_size=1,
        max_size=8,
    ).map(" ".join),
)
SPECS: Final = (
    ("-p tcp", "-m tcp --dport 80 -j DROP"),
    ("-i eth0", "-j MINE"),
    ("", "-m owner --uid-owner 5 -j REDIRECT --to-ports 15001"),
    ("-s 10.0.0.0/8", "-m mark --mark 0x1/0x1"),
)


def printed(text: str) -> str:
    """As libxtables does (xtables_save_string)."""
    if set(text) <= SAFE:
        return text
    return '"' + "".join(f"\\{character}" if character in "\"\\'" else character for character in text) + '"'


def rules(*specs: str) -> list[Rule]:
    lines = "\n".join(f"-A OUTPUT {spec}" for spec in specs)
    (table,) = tables(f"*nat\n:OUTPUT ACCEPT [0:0]\n:MINE - [0:0]\n{lines}\nCOMMIT\n", Tool.IPTABLES_NFT, "ip")
    return list(table.chains["OUTPUT"].rules)


@given(st.sampled_from(SPECS), WORDS)
def test_a_comment_changes_nothing(spec: tuple[str, str], comment: str) -> None:
    head, rest = spec
    commented = f"{head} -m comment --comment {printed(comment)} {rest}".strip()
    plain, said, last = rules(f"{head} {rest}".strip(), commented, "-j RETURN")
    assert said.statements == plain.statements
    assert said.comment == comment
    assert last.text == "-j RETURN"


@given(st.sampled_from(SPECS), WORDS, WORDS)
def test_a_prefix_of_a_log_changes_nothing(spec: tuple[str, str], comment: str, prefix: str) -> None:
    log, last = rules(
        f"-p tcp -m comment --comment {printed(comment)} -j LOG --log-prefix {printed(prefix)} --log-level 4",
        "-j RETURN",
    )
    plain, _ = rules("-p tcp -j LOG --log-level 4", "-j RETURN")
    assert log.statements[:-1] == plain.statements[:-1]
    assert [type(statement) for statement in log.statements] == [type(statement) for statement in plain.statements]
    assert (log.comment, last.text) == (comment, "-j RETURN")


@given(
    st.lists(
        st.one_of(WORDS, st.sampled_from(["*nat", "COMMIT", ":X - [0:0]", "-A X -j", "-A X -s 1 -m"])), max_size=12
    )
)
def test_nothing_fails(lines: list[str]) -> None:
    for table in tables("\n".join(lines), Tool.IPTABLES_LEGACY, "ip6"):
        for chain in table.chains.values():
            assert len(list(chain.rules)) == len(chain.rules)
