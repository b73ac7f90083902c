"""What a rule that nft lists as JSON does: as nft(8) writes it, and the values it is read into."""

import pytest

from agent.explain.statements import (
    ACCEPT,
    DROP,
    Constant,
    Decision,
    Elements,
    Field,
    Joined,
    Looked,
    Nat,
    NatKind,
    NoEffect,
    Notrack,
    Opaque,
    Read,
    Reject,
    Set,
    Span,
    Statement,
    Tproxy,
    Verdict,
    VerdictMap,
)
from tests.unit.agent.explain.nft_listing import listing, read_rule
from tests.unit.agent.explain.nft_said import (
    DPORT80,
    IPV4,
    IPV6,
    TCP,
    equal,
    ip,
    mark_becomes,
    within,
)

NEW, ESTABLISHED, RELATED = 8, 2, 4
JUMP, GOTO = Verdict(Decision.JUMP, "x"), Verdict(Decision.GOTO, "x")

VERDICTS: dict[str, tuple[Statement, ...]] = {
    "tcp dport 5 goto x": (equal(Field.TCP_DPORT, 5), GOTO),
    "tcp dport vmap { 80 : accept, 443 : drop, 1000-2000 : jump x, 5 : goto x , 6 : return, 7 : continue }": (
        VerdictMap(
            Read(Field.TCP_DPORT),
            Elements(
                exact={
                    (5,): GOTO,
                    (6,): Verdict(Decision.RETURN),
                    (7,): Verdict(Decision.CONTINUE),
                    (80,): ACCEPT,
                    (443,): DROP,
                },
                spans=(((Span(1000, 2000),), JUMP),),
            ),
        ),
    ),
    "ip daddr vmap { 1.2.3.4 : accept, * : drop }": (
        VerdictMap(
            Read(Field.IP_DESTINATION),
            Elements(exact={(ip("1.2.3.4"),): ACCEPT}, spans=(((Span(0, 0xFFFFFFFF),), DROP),)),
        ),
    ),
    "ct state vmap { new : accept, established|related : drop }": (
        VerdictMap(Read(Field.CT_STATE), Elements(exact={(ESTABLISHED | RELATED,): DROP, (NEW,): ACCEPT})),
    ),
    "numgen random mod 2 vmap { 0 : jump x, 1 : drop }": (
        VerdictMap(Opaque("numgen random mod 2", "chance decides"), Elements(exact={(0,): JUMP, (1,): DROP})),
    ),
    # Of these, nft lists only the reject: what it implies is there all the same.
    "meta l4proto tcp reject with tcp reset": (TCP, Reject("tcp reset")),
    "reject with icmp type host-unreachable": (Reject("icmp host-unreachable"),),
}
TRANSLATIONS: dict[str, tuple[Statement, ...]] = {
    "tcp dport 80 redirect to :15001": (DPORT80, Nat(NatKind.REDIRECT, port=Constant(15001))),
    "tcp dport 80-90 redirect to :15001-15005": (
        within(Field.TCP_DPORT, 80, 90),
        Nat(NatKind.REDIRECT, port=Constant(15001), ranged=True),
    ),
    "meta l4proto tcp redirect to :tcp dport map { 80 : 8080, 90 : 9090 }": (
        TCP,
        Nat(
            NatKind.REDIRECT,
            port=Looked(Read(Field.TCP_DPORT), Elements(exact={(80,): Constant(8080), (90,): Constant(9090)})),
        ),
    ),
    "meta l4proto tcp redirect to :tcp dport map @m": (
        TCP,
        Nat(
            NatKind.REDIRECT,
            port=Looked(Read(Field.TCP_DPORT), Elements("m", {(80,): Constant(8080), (443,): Constant(8443)})),
        ),
    ),
    "tcp dport 80 dnat ip to 1.2.3.4:80": (
        DPORT80,
        IPV4,
        Nat(NatKind.DNAT, Constant(ip("1.2.3.4")), Constant(80)),
    ),
    "tcp dport 80 dnat ip6 to [fe80::1]:80": (
        DPORT80,
        IPV6,
        Nat(NatKind.DNAT, Constant(ip("fe80::1")), Constant(80)),
    ),
    "tcp dport 80 dnat ip to 1.2.3.4-1.2.3.9:80-90": (
        DPORT80,
        IPV4,
        Nat(NatKind.DNAT, Constant(ip("1.2.3.4")), Constant(80), ranged=True),
    ),
    "tcp dport 5 dnat to :80": (equal(Field.TCP_DPORT, 5), Nat(NatKind.DNAT, port=Constant(80))),
    "dnat to tcp dport map @iv": (
        Nat(
            NatKind.DNAT,
            Looked(
                Read(Field.TCP_DPORT), Elements("iv", {(80,): Constant(ip("1.1.1.1")), (90,): Constant(ip("2.2.2.0"))})
            ),
            ranged=True,
        ),
    ),
    # A map that leads to address and port is two: what leads to the one and what leads to the other.
    "dnat to ip daddr . tcp dport map { 1.2.3.4 . 80 : 9.9.9.9 . 8080 }": (
        Nat(
            NatKind.DNAT,
            Looked(
                Joined((Read(Field.IP_DESTINATION), Read(Field.TCP_DPORT))),
                Elements(exact={(ip("1.2.3.4"), 80): Constant(ip("9.9.9.9"))}),
            ),
            Looked(
                Joined((Read(Field.IP_DESTINATION), Read(Field.TCP_DPORT))),
                Elements(exact={(ip("1.2.3.4"), 80): Constant(8080)}),
            ),
        ),
    ),
    "tcp dport 80 dnat ip to numgen inc mod 2 map { 0 : 1.2.3.4, 1 : 1.2.3.5 }": (
        DPORT80,
        IPV4,
        Nat(
            NatKind.DNAT,
            Looked(
                Opaque("numgen inc mod 2", "the packets before it decide"),
                Elements(exact={(0,): Constant(ip("1.2.3.4")), (1,): Constant(ip("1.2.3.5"))}),
            ),
        ),
    ),
    "dnat ip prefix to ip daddr map { 10.0.0.0/24 : 192.168.0.0/24 }": (
        Nat(
            NatKind.DNAT,
            Opaque("ip daddr map { 10.0.0.0/24 : 192.168.0.0/24 }", "a part of the address stays as it was"),
            ranged=True,
        ),
    ),
    "meta l4proto tcp masquerade to :1024-2048 random": (
        TCP,
        Nat(NatKind.MASQUERADE, port=Constant(1024), ranged=True),
    ),
    "snat to 1.2.3.4": (Nat(NatKind.SNAT, Constant(ip("1.2.3.4"))),),
    "meta l4proto tcp tproxy to :15001 meta mark set 5 accept": (
        TCP,
        Tproxy(port=Constant(15001)),
        mark_becomes(Constant(5)),
        ACCEPT,
    ),
    "meta l4proto tcp tproxy to 127.0.0.1:15001": (TCP, Tproxy(Constant(ip("127.0.0.1")), Constant(15001))),
}
CHANGES: dict[str, tuple[Statement, ...]] = {
    "notrack": (Notrack(),),
    "ct original zone set 1": (Set(Field.CT_ZONE, Constant(1)),),
    "ct reply zone set 1": (NoEffect("ct reply zone set 1"),),
    "ip dscp set cs1": (IPV4, Set(Field.IP_DSCP, Constant(8))),
    "ip daddr set 1.2.3.4": (Set(Field.IP_DESTINATION, Constant(ip("1.2.3.4"))),),
    "@nh,128,32 set 0x01020304": (Set(Field.IP_DESTINATION, Constant(ip("1.2.3.4"))),),
    "meta priority set 1:2": (NoEffect("meta priority set 1:2"),),
    "tcp option maxseg size set rt mtu": (NoEffect("tcp option maxseg size set rt mtu"),),
    "add @dyn { ip saddr }": (NoEffect("add @dyn { ip saddr }"),),
    "update @dm { ip saddr : tcp dport }": (NoEffect("update @dm { ip saddr : tcp dport }"),),
    "counter name named": (NoEffect("counter"),),
    'log prefix "hi" level info': (NoEffect("log"),),
}
ALL = {**VERDICTS, **TRANSLATIONS, **CHANGES}


@pytest.mark.parametrize("text", ALL)
def test_the_rule_is_read_as_what_it_does(text: str) -> None:
    assert read_rule(listing()[1][text]).statements == ALL[text]
