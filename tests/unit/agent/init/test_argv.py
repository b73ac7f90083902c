"""Command lines are read as pflag reads them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.init import istio, kuma, linkerd
from agent.init.argv import Flag, Takes, Word, parse
from agent.init.kuma_config import ConfigText
from agent.init.request import InitRequest, Refused, Surroundings
from agent.plan import InvalidPlan, plan_of
from agent.plan.render.document import OUTPUTS, plan_text

PORT = Flag("--port", "the port", short="-p")
DRY = Flag("--dry-run", "nothing", short="-n", takes=Takes.SWITCH)
WAIT = Flag("--wait", "waits", short="-w", takes=Takes.SWITCH)
FLAGS = (PORT, DRY, WAIT)


def said(*argv: str) -> list[tuple[str, str, str]]:
    return [(word.flag.name, word.value, word.where) for word in parse(argv, FLAGS, "peer", said=("peer",))]


@pytest.mark.parametrize(
    "argv", [("--port", "80"), ("--port=80",)], ids=["two words", "one word"]
)  # fmt: skip
def test_a_long_flag_takes_its_value_either_way(argv: tuple[str, ...]) -> None:
    assert said(*argv) == [("--port", "80", "--port")]


@pytest.mark.parametrize("argv", [("-p", "80"), ("-p80",), ("-p=80",)])
def test_a_short_flag_takes_its_value_in_three_ways(argv: tuple[str, ...]) -> None:
    assert said(*argv) == [("--port", "80", "-p")]


def test_a_switch_takes_no_word_but_a_value_behind_an_equals_sign() -> None:
    assert said("--dry-run", "--wait=false") == [
        ("--dry-run", "true", "--dry-run"),
        ("--wait", "false", "--wait"),
    ]


def test_switches_stand_in_a_row_and_the_last_letter_may_take_a_value() -> None:
    assert said("-nwp", "80") == [("--dry-run", "true", "-n"), ("--wait", "true", "-w"), ("--port", "80", "-p")]


def test_an_empty_value_and_one_that_looks_like_a_flag_are_values() -> None:
    assert said("--port", "", "-p", "--dry-run") == [("--port", "", "--port"), ("--port", "--dry-run", "-p")]


def test_the_programs_own_name_may_stand_before_its_flags() -> None:
    assert said("peer", "--", "-n") == [("--dry-run", "true", "-n")]


@pytest.mark.parametrize(
    ("argv", "flag", "reason"),
    [
        (("--prot", "80"), "--prot", "is --port meant?"),
        (("-x",), "-x", "no flag of peer"),
        (("-nx",), "-x", "no flag of peer"),
        (("--port",), "--port", "needs a value"),
        (("-np",), "-p", "needs a value"),
        (("install", "-n"), "peer", "nothing of the kind"),
        (("-",), "peer", "nothing of the kind"),
        (("--port\x1b[2J",), "--port\x1b[2J", "no flag"),
    ],
)
def test_what_the_peers_parser_refuses_is_refused_by_name(argv: tuple[str, ...], flag: str, reason: str) -> None:
    with pytest.raises(Refused, match=None) as refused:
        parse(argv, FLAGS, "peer")
    assert refused.value.flag == flag
    assert reason in refused.value.reason
    assert "\x1b" not in str(refused.value)


def test_a_line_of_more_words_than_any_template_writes_is_refused() -> None:
    with pytest.raises(Refused, match="no command line"):
        parse(["-n"] * 5000, FLAGS, "peer")


# ── Whatever stands there ──────────────────────────────────────────────────────────────────────────────────────────
_NAMES = [flag.name for flags in (istio.FLAGS, linkerd.FLAGS, kuma.FLAGS) for flag in flags if flag.name[0] == "-"]
_SHORTS = [flag.short for flag in (*istio.FLAGS, *linkerd.FLAGS) if flag.short]
_VALUES = st.one_of(
    st.sampled_from(["*", "", "80", "1337", "70000", "10-5", "10.0.0.0/8", "::1/64", "br+:10.1.0.0/16", "true", "-1"]),
    st.text(max_size=12),
)
_WORDS = st.lists(
    st.one_of(
        st.sampled_from([*_NAMES, *_SHORTS]),
        st.builds("{}={}".format, st.sampled_from([*_NAMES, *_SHORTS]), _VALUES),
        _VALUES,
    ),
    max_size=12,
)
_TEMPLATES = {
    "istio": ["-u", "1337", "-b", "*", "-i", "*"],
    "linkerd": ["-p", "4143", "-o", "4140", "-u", "2102"],
    "kuma": ["--kuma-dp-user", "5678"],
}


def requested(peer: str, words: list[str], environ: dict[str, str], config: str) -> InitRequest:
    around = Surroundings(resolv_conf="nameserver 10.96.0.10\nnameserver fd00::a\n")
    if peer == "istio":
        return istio.request(words, environ, around)
    if peer == "linkerd":
        return linkerd.request(words, around)
    return kuma.request(words, environ, around, [ConfigText("--config", config)] if config else [])


@settings(max_examples=150, deadline=None)
@given(
    peer=st.sampled_from(["istio", "linkerd", "kuma"]),
    words=_WORDS,
    environ=st.dictionaries(
        st.sampled_from([v for flag in (*istio.FLAGS, *kuma.FLAGS) for v in flag.variables]), _VALUES, max_size=4
    ),
    config=st.text(max_size=60),
)
def test_any_command_line_is_a_plan_or_a_refusal_and_nothing_else(
    peer: str, words: list[str], environ: dict[str, str], config: str
) -> None:
    """What was asked never reaches a rule unread: whatever plan comes of it renders for every backend, and holds no
    character that nft or iptables-restore would read anything into."""
    try:
        request = requested(peer, [*_TEMPLATES[peer], *words], environ, config)
        plan = plan_of(request.steering, request.settings)
    except (Refused, InvalidPlan) as error:
        assert str(error).isprintable()
        return
    texts = {output: plan_text(plan, output) for output in OUTPUTS}
    assert all(text.isascii() for text in texts.values())
    assert not set("`$\\'") & set(texts["nft"] + texts["iptables"])


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.text(alphabet="-=nwp8 ", max_size=5), max_size=6))
def test_any_line_of_the_small_parser_ends_in_words_or_a_refusal(words: list[str]) -> None:
    try:
        found = parse(words, FLAGS, "peer")
    except Refused:
        return
    assert all(isinstance(word, Word) for word in found)
