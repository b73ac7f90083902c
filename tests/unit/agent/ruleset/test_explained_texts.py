"""One chain as nft prints it, taken apart; and which chains are asked of iptables by name."""

import pytest

from agent.kernel import iptables_tools
from agent.kernel.iptables_tools import chain_rules
from agent.plan import IPFamily
from agent.ruleset.nft_listing import rules_of_chain

LISTING = """table inet t {
	chain c {
		type filter hook output priority filter; policy accept;
		ip daddr { 192.0.2.1, 192.0.2.2 } counter packets 1 bytes 2 accept comment "x"
		drop
	}
}
"""


def test_rules_without_counter_and_comment() -> None:
    assert rules_of_chain(LISTING, 2) == [
        "ip daddr { 192.0.2.1, 192.0.2.2 } accept",
        "drop",
    ]


@pytest.mark.parametrize(
    "forged",
    [
        'drop comment "a\n\t\taccept comment "b"',  # another rule
        'drop comment "a\n\t}\n\tchain d {\n\t\taccept comment "b"',  # the end, and another chain
        'drop comment "a\n}\ntable inet u {\n\tchain c {\n\t\taccept comment "b"',
    ],
)
def test_a_line_break_in_a_comment_makes_no_rule(forged: str) -> None:
    text = LISTING.replace("\t\tdrop", f"\t\t{forged}")
    assert rules_of_chain(text, 2) is None


def test_another_number_of_rules_is_another_chain() -> None:
    assert rules_of_chain(LISTING, 3) is None and rules_of_chain("", 0) is None


@pytest.mark.parametrize("name", ["-F", "--flush", "a b", "a\nb", "", "x'y", 'x"y', "a" * 200, "!a", "x\x1b[2J"])
def test_a_name_that_could_be_an_option_is_never_given_to_the_tool(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iptables_tools, "_run", lambda *_: pytest.fail("the tool was run"))
    assert chain_rules(IPFamily.IPV4, "nat", name) is None


def test_a_plain_name_is() -> None:
    asked: list[tuple[str, ...]] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(iptables_tools, "_run", lambda *a: asked.append(a[3]) or "said")
        assert chain_rules(IPFamily.IPV6, "nat", "KUBE-SVC-X.y:z") == "said"
    assert asked == [("-t", "nat", "-S", "KUBE-SVC-X.y:z")]
