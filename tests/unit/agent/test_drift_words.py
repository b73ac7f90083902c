"""What a difference between two listings is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan import IPFamily, ReturnPath
from agent.plan.drift import MOST_CHANGES, Part, describe, describe_return_path, limited

TABLE = "inet headgate"
EXPECTED = """\
table inet headgate {
	set grandfathered4 {
		type ipv4_addr . inet_service
	}

	chain in-forgotten {
		iifname "lo" counter accept comment "headgate:a"
		counter drop comment "headgate:b"
	}

	chain nat-output {
		type nat hook output priority -100; policy accept;
		oifname "lo" counter accept comment "headgate:skip-lo"
		ip6 daddr ::1 counter accept comment "headgate:skip-loopback6"
		meta mark & 0x00000fff == 0x00000539 counter accept comment "headgate:skip-proxy"
		tcp flags syn / fin,syn,rst,ack counter redirect to :15001 comment "headgate:out-capture"
	}
}
"""
PROXY = '\t\tmeta mark & 0x00000fff == 0x00000539 counter accept comment "headgate:skip-proxy"\n'
LO = '\t\toifname "lo" counter accept comment "headgate:skip-lo"\n'
LOOPBACK6 = '\t\tip6 daddr ::1 counter accept comment "headgate:skip-loopback6"\n'
CAPTURE = '\t\ttcp flags syn / fin,syn,rst,ack counter redirect to :15001 comment "headgate:out-capture"\n'
HOOK = "\t\ttype nat hook output priority -100; policy accept;\n"


def without(*texts: str) -> str:
    listing = EXPECTED
    for text in texts:
        assert text in listing
        listing = listing.replace(text, "")
    return listing


def with_(old: str, new: str) -> str:
    assert old in EXPECTED
    return EXPECTED.replace(old, new, 1)


NAT_OUTPUT = EXPECTED[EXPECTED.index("\tchain nat-output") : EXPECTED.rindex("}")]

CASES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "equal": (EXPECTED, ()),
    "gone": (None, ("table inet headgate is gone",)),
    "rule-missing": (without(PROXY), ("rule skip-proxy is missing",)),
    "two-missing": (without(LO, CAPTURE), ("rule skip-lo is missing", "rule out-capture is missing")),
    "rule-changed": (
        with_(":15001", ":1"),
        ("rule out-capture is changed: tcp flags syn / fin,syn,rst,ack counter redirect to :1",),
    ),
    "swapped": (with_(LO + LOOPBACK6, LOOPBACK6 + LO), ("rules skip-lo and skip-loopback6 are swapped",)),
    "swapped-apart": (
        with_(LO + LOOPBACK6 + PROXY, PROXY + LOOPBACK6 + LO),
        ("rules skip-lo and skip-proxy are swapped",),
    ),
    "moved-back": (with_(LO + LOOPBACK6 + PROXY, LOOPBACK6 + PROXY + LO), ("rule skip-lo is moved behind skip-proxy",)),
    "moved-to-front": (
        with_(LO + LOOPBACK6 + PROXY + CAPTURE, CAPTURE + LO + LOOPBACK6 + PROXY),
        ("rule out-capture is moved to the beginning",),
    ),
    "shuffled": (
        with_(LO + LOOPBACK6 + PROXY + CAPTURE, CAPTURE + PROXY + LO + LOOPBACK6),
        ("the order of chain nat-output is changed: out-capture, skip-proxy, skip-lo, skip-loopback6",),
    ),
    "twice": (with_(LO, LO + LO), ('rule skip-lo is there again: oifname "lo" counter accept',)),
    "foreign-first": (
        with_(LO, "\t\ttcp dport 443 accept\n" + LO),
        ("a foreign rule in chain nat-output, before skip-lo: tcp dport 443 accept",),
    ),
    "foreign-last": (
        with_(CAPTURE, CAPTURE + "\t\tdrop\n"),
        ("a foreign rule in chain nat-output, at the end: drop",),
    ),
    "foreign-with-our-prefix": (
        with_(LO, '\t\tdrop comment "headgate:made-up"\n' + LO),
        ('a foreign rule in chain nat-output, before skip-lo: drop comment "headgate:made-up"',),
    ),
    "chain-emptied": (
        without(LO, LOOPBACK6, PROXY, CAPTURE),
        ("chain nat-output is empty: its 4 rules are missing",),
    ),
    "chain-missing": (without(NAT_OUTPUT), ("chain nat-output is missing",)),
    "chain-unhooked": (without(HOOK), ("chain nat-output is changed: it has no hook",)),
    "other-priority": (
        with_("priority -100", "priority 0"),
        ("chain nat-output is changed: type nat hook output priority 0; policy accept;",),
    ),
    "policy": (
        with_("policy accept", "policy drop"),
        ("chain nat-output is changed: type nat hook output priority -100; policy drop;",),
    ),
    "foreign-chain": (with_("\tchain in-f", "\tchain mine {\n\t}\n\n\tchain in-f"), ("a foreign chain mine",)),
    "foreign-object": (
        with_("\tchain in-f", '\tct helper ftp {\n\t\ttype "ftp"\n\t}\n\n\tchain in-f'),
        ("a foreign ct helper ftp",),
    ),
    "set-changed": (
        with_("ipv4_addr . inet", "ipv6_addr . inet"),
        ("set grandfathered4 is changed: type ipv6_addr . inet_service",),
    ),
    "dormant": (
        with_("table inet headgate {\n", "table inet headgate {\n\tflags dormant\n\n"),
        ("table inet headgate has `flags dormant`",),
    ),
    "terminal-codes": (
        with_(LO, '\t\taccept comment "\x1b[2J"\n' + LO),
        ('a foreign rule in chain nat-output, before skip-lo: accept comment "\\x1b[2J"',),
    ),
    "blank-line": (EXPECTED + "\n", ("table inet headgate lists otherwise, from line 20: ",)),
}


@pytest.mark.parametrize("case", CASES)
def test_change_is_named(case: str) -> None:
    actual, wanted = CASES[case]
    assert describe(EXPECTED, actual, TABLE) == wanted


LONG = tuple(str(port) for port in range(20000, 20100, 2))


def excluding(ports: tuple[str, ...], action: str = "accept") -> str:
    listed = f'\t\tth dport {{ {", ".join(ports)} }} counter {action} comment "headgate:skip-ports"\n'
    return EXPECTED.replace(LO, LO + listed)


@pytest.mark.parametrize(
    ("ports", "wanted"),
    [
        (LONG[:-1], "rule skip-ports is changed: its set lacks 20098"),
        ((*LONG, "\x1b[2J"), "rule skip-ports is changed: its set has \\x1b[2J"),
        (
            ("9999", *LONG[10:]),
            "rule skip-ports is changed: its set lacks 20000, 20002, 20004, 20006, 20008 and 5 more and has 9999",
        ),
    ],
)
def test_of_a_long_list_only_what_differs_is_told(ports: tuple[str, ...], wanted: str) -> None:
    assert describe(excluding(LONG), excluding(ports), TABLE) == (wanted,)


def test_of_a_long_list_that_means_something_else_now_the_rule_is_told() -> None:
    (change,) = describe(excluding(LONG), excluding(LONG, "drop"), TABLE)
    assert change.startswith("rule skip-ports is changed: th dport { 20000, 20002")
    (change,) = describe(excluding(LONG), excluding(tuple(reversed(LONG))), TABLE)
    assert change.startswith("rule skip-ports is changed: th dport { 20098, 20096")


@given(st.text(max_size=400) | st.lists(st.sampled_from(EXPECTED.splitlines()), max_size=30).map("\n".join))
def test_whatever_is_listed_some_change_is_named_in_printable_words(listing: str) -> None:
    """The pod writes comments and names, so it may write anything."""
    changes = describe(EXPECTED, listing, TABLE)
    assert (changes == ()) is (listing == EXPECTED)
    assert all(change.isprintable() and len(change) < 1000 for change in changes)


PATH = ReturnPath(mark=0x111, mask=0xFFF, table=100, preference=32764)
V4, V6 = IPFamily.IPV4, IPFamily.IPV6
RULE = "ip rule 32764 (fwmark 0x111/0xfff lookup 100)"
ROUTE = "ip route local default dev lo table 100"


@pytest.mark.parametrize(
    ("missing", "wanted"),
    [
        ((), ()),
        (((Part.RULE, V4),), (f"{RULE} (IPv4) is missing",)),
        (((Part.ROUTE, V6),), (f"{ROUTE} (IPv6) is missing",)),
        (((Part.ROUTE, V6), (Part.RULE, V6)), (f"the IPv6 half of the return path is missing: {RULE}, {ROUTE}",)),
        (
            ((Part.RULE, V4), (Part.RULE, V6)),
            (f"{RULE} (IPv4) is missing", f"{RULE} (IPv6) is missing"),
        ),
        (
            tuple((part, family) for part in Part for family in IPFamily),
            tuple(f"{what} ({family}) is missing" for family in ("IPv4", "IPv6") for what in (RULE, ROUTE)),
        ),
    ],
)
def test_return_path(missing: tuple[tuple[Part, IPFamily], ...], wanted: tuple[str, ...]) -> None:
    assert describe_return_path(PATH, missing) == wanted


def test_more_changes_than_anybody_reads_are_counted() -> None:
    changes = tuple(f"change {number}" for number in range(MOST_CHANGES + 3))
    assert limited(changes[:MOST_CHANGES]) == changes[:MOST_CHANGES]
    assert limited(changes) == (*changes[:MOST_CHANGES], "and 3 more changes")
