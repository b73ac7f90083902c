"""What a rule means, in one line: of everything that nft can say, and of rules as Istio and kube-proxy write them."""

import re

import pytest

from agent.explain.iptables_text import tables as iptables_tables
from agent.explain.statements import (
    ACCEPT,
    AnyOf,
    Bits,
    Constant,
    Decision,
    Elements,
    Field,
    Looked,
    Match,
    Nat,
    NatKind,
    NoEffect,
    Op,
    Opaque,
    Perhaps,
    Read,
    Reject,
    Set,
    Span,
    Statement,
    Tproxy,
    Unread,
    Verdict,
    VerdictMap,
    Xored,
)
from agent.explain.tables import Rule, Tool
from agent.explain.words import LINE_LIMIT, in_words, statement_in_words
from tests.unit.agent.explain.nft_listing import Listed, listing, read_rule
from tests.unit.agent.explain.nft_said import DPORT80, TCP, equal, ip, within

HOSTILE = 'x -> accept\x1b[2J\n\u202e"'


@pytest.mark.parametrize("listed", listing()[1].values(), ids=lambda listed: listed.rule)
def test_what_nft_lists_is_said_in_words(listed: Listed) -> None:
    assert in_words(read_rule(listed)) == listed.words


ISTIO = {
    "-p tcp -j ISTIO_INBOUND": "TCP -> on in ISTIO_INBOUND",
    "-p tcp -m tcp --dport 15008 -j RETURN": "TCP to port 15008 -> back to the calling chain",
    "-p tcp -j REDIRECT --to-ports 15006": "TCP -> redirect to port 15006",
    "-s 127.0.0.6/32 -o lo -j RETURN": "from 127.0.0.6, leaving by lo -> back to the calling chain",
    "! -d 127.0.0.1/32 -o lo -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT": (
        "not to 127.0.0.1, leaving by lo, TCP not to port 53 or 15008, sent by user 1337 -> on in ISTIO_IN_REDIRECT"
    ),
    "-o lo -m owner ! --uid-owner 1337 -j RETURN": "leaving by lo, not sent by user 1337 -> back to the calling chain",
    "-m owner --gid-owner 1337 -j RETURN": "sent by group 1337 -> back to the calling chain",
    "-p udp -m udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1": (
        "UDP to port 53, sent by user 1337 -> conntrack zone becomes 1"
    ),
    "-p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT": (
        "TCP, of a connection that is established or related -> on in ISTIO_DIVERT"
    ),
    "-j MARK --set-xmark 0x539/0xffffffff": "every packet -> mark becomes 0x539",
    "! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff": (
        "not to 127.0.0.1, TCP -> mark becomes 0x539, to the transparent socket at port 15006"
    ),
    "-m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff": (
        "with mark 0x539/0xfff -> connection's mark becomes 0x111/0xfff"
    ),
    "-m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xfff --ctmask 0xfff": (
        "with connection mark 0x111/0xfff -> bits 0xfff of the mark become those of the connection's mark"
    ),
}
KUBE_PROXY = {
    '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES': "every packet -> on in KUBE-SERVICES",
    '-d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-WEB': (
        "to 10.96.0.10, TCP to port 80 -> on in KUBE-SVC-WEB"
    ),
    "! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ": (
        "not from 10.244.0.0/16, to 10.96.0.10, TCP to port 80 -> on in KUBE-MARK-MASQ"
    ),
    "-j MARK --set-xmark 0x4000/0x4000": "every packet -> mark becomes 0x4000/0x4000",
    "-m mark ! --mark 0x4000/0x4000 -j RETURN": "without mark 0x4000/0x4000 -> back to the calling chain",
    "-j MARK --set-xmark 0x4000/0x0": "every packet -> mark becomes itself with the bits 0x4000 inverted",
    "-p tcp -m tcp -j DNAT --to-destination 10.244.1.5:8080": "TCP -> destination becomes 10.244.1.5:8080",
    "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS": "to a local address -> on in KUBE-NODEPORTS",
    "-d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable": (
        "to 10.96.0.11, TCP to port 80 -> reject (icmp-port-unreachable)"
    ),
    "-j MASQUERADE --random-fully": "every packet -> source becomes the address of the interface it leaves by",
    "-m statistic --mode random --probability 0.5 -j KUBE-SEP-A": (
        "perhaps (-m statistic --mode random --probability 0.5: chance or a count of packets decides)"
        " -> on in KUBE-SEP-A"
    ),
}


@pytest.mark.parametrize("rule", [*ISTIO, *KUBE_PROXY])
def test_what_iptables_saves_is_said_in_words(rule: str) -> None:
    named = "".join(f":{chain} - [0:0]\n" for chain in re.findall(r"-j ((?:ISTIO|KUBE)\S+)", rule))
    text = f"*nat\n:OUTPUT ACCEPT [0:0]\n{named}-A OUTPUT {rule}\nCOMMIT\n"
    (table,) = iptables_tables(text, Tool.IPTABLES_NFT, "ip")
    assert in_words(table.chains["OUTPUT"].rules[0]) == (ISTIO | KUBE_PROXY)[rule]


SAID: list[tuple[Statement, str]] = [
    (TCP, "TCP"),
    (DPORT80, "TCP to port 80"),
    (Match(Read(Field.UID), Op.GREATER_OR_EQUAL, Constant(0)), "sent by a socket"),
    (Match(Read(Field.MARK), Op.UNEQUAL, Constant(0)), "with a mark"),
    (within(Field.IP_SOURCE, ip("10.0.0.0"), ip("10.0.0.255")), "from 10.0.0.0/24"),
    (within(Field.IP_SOURCE, ip("10.0.0.1"), ip("10.0.0.255")), "from 10.0.0.1-10.0.0.255"),
    (
        AnyOf((DPORT80, Match(Read(Field.TCP_SPORT), Op.EQUAL, Constant(80)))),
        "TCP to port 80 or TCP from port 80",
    ),
    (AnyOf((DPORT80, equal(Field.TCP_SPORT, 80)), negated=True), "neither TCP to port 80 nor TCP from port 80"),
    (
        Match(Read(Field.IP_DESTINATION), Op.EQUAL, Elements("probes", {(n,): None for n in range(12)})),
        "to one of 12 addresses of @probes",
    ),
    (Match(Read(Field.IP_DESTINATION), Op.UNEQUAL, Elements("empty")), "not to one of @empty, which is empty"),
    (
        Match(Read(Field.TCP_DPORT), Op.EQUAL, Elements(exact={(n,): None for n in range(5)})),
        "TCP to port one of 5 ports",
    ),
    (Nat(NatKind.DNAT, Constant(ip("::1")), Constant(80)), "destination becomes [::1]:80"),
    (Nat(NatKind.DNAT, Constant(ip("127.0.0.1"))), "destination becomes 127.0.0.1"),
    (Nat(NatKind.REDIRECT), "redirect to this host"),
    (
        Nat(NatKind.REDIRECT, port=Looked(Read(Field.TCP_DPORT), Elements("m", {(80,): Constant(8080)}))),
        "redirect to one of 1 ports of @m by the destination port",
    ),
    (Tproxy(), "to the transparent socket at its own destination"),
    (Verdict(Decision.GOTO, "end"), "on in end for good"),
    (
        VerdictMap(
            Read(Field.TCP_DPORT), Elements(exact={(80,): ACCEPT}, spans=(((Span(0, 65535),), Verdict(Decision.DROP)),))
        ),
        "by the destination port: 80 accept, else drop",
    ),
    (Set(Field.MARK, Bits(Read(Field.MARK), 0xFFFFF000, 0, 0x111)), "mark becomes 0x111/0xfff"),
    (
        Set(Field.MARK, Bits(Read(Field.MARK), 0xFFFF0000, 0xF0001)),
        "mark becomes itself with the bits 0xf0000 inverted, and 0x1/0xffff",
    ),
    (
        Set(Field.CT_MARK, Xored(Bits(Read(Field.CT_MARK), 0xFFFFF000), Bits(Read(Field.MARK), 0xFFF))),
        "bits 0xfff of the connection's mark become those of the mark",
    ),
    (NoEffect("counter"), "counted"),
    (Reject(), "reject"),
    (Unread(Opaque("xt target WARP", "nobody knows it")), "perhaps something else (xt target WARP: nobody knows it)"),
]


@pytest.mark.parametrize(("statement", "words"), SAID, ids=[words for _, words in SAID])
def test_one_statement_is_said_in_words(statement: Statement, words: str) -> None:
    assert statement_in_words(statement) == words


def test_a_rule_that_asks_nothing_and_does_nothing_says_so() -> None:
    assert in_words(Rule(1, ())) == "every packet -> nothing"
    assert in_words(Rule(1, (NoEffect("counter"),))) == "every packet -> counted"


def test_counters_beside_a_verdict_are_not_worth_a_word() -> None:
    assert in_words(Rule(1, (NoEffect("counter"), ACCEPT))) == "every packet -> accept"


WITH_NAMES: list[Statement] = [
    Verdict(Decision.JUMP, HOSTILE),
    Match(Read(Field.IIFNAME), Op.EQUAL, Constant(HOSTILE)),
    Match(Read(Field.MARK), Op.EQUAL, Elements(HOSTILE, {(1,): None})),
    VerdictMap(Read(Field.MARK), Elements(HOSTILE, {(1,): Verdict(Decision.JUMP, HOSTILE)})),
    VerdictMap(Read(Field.IIFNAME), Elements(exact={(HOSTILE,): Verdict(Decision.JUMP, HOSTILE)})),
    Perhaps(Opaque(HOSTILE, "why")),
    Unread(Opaque(HOSTILE, "why")),
    NoEffect(HOSTILE),
    Reject(HOSTILE),
    Nat(NatKind.DNAT, Constant(HOSTILE)),
    Set(Field.MARK, Opaque(HOSTILE)),
]


@pytest.mark.parametrize("statement", WITH_NAMES, ids=lambda statement: type(statement).__name__)
def test_a_hostile_name_reaches_no_terminal(statement: Statement) -> None:
    assert statement_in_words(statement).isprintable()
    assert "\x1b" not in in_words(Rule(1, (statement,)))


def test_a_chain_called_as_a_verdict_stands_in_quotes() -> None:
    assert statement_in_words(Verdict(Decision.JUMP, "x -> accept")) == 'on in "x -> accept"'


def test_a_line_is_never_longer_than_it_may_be() -> None:
    long = tuple(Match(Read(Field.IIFNAME), Op.UNEQUAL, Constant(f"interface{number}")) for number in range(40))
    assert len(in_words(Rule(1, long))) == LINE_LIMIT


def test_every_field_has_words_of_its_own() -> None:
    said = {statement_in_words(Match(Read(field), Op.EQUAL, Constant(7))) for field in Field}
    assert all(words and "{" not in words for words in said)
    assert not any(words.startswith("with meta") for words in said)
