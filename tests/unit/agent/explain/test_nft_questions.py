"""What a rule that nft lists as JSON asks: as nft(8) writes it, and the values it is read into."""

import pytest

from agent.explain.statements import (
    ACCEPT,
    Bits,
    Constant,
    Elements,
    Field,
    Joined,
    Looked,
    Match,
    Nat,
    NatKind,
    Op,
    Read,
    Set,
    Span,
    Statement,
)
from tests.unit.agent.explain.nft_listing import listing, read_rule
from tests.unit.agent.explain.nft_said import (
    DPORT80,
    among,
    any_bit,
    equal,
    ip,
    mark_becomes,
    masked,
    within,
)

NEW, ESTABLISHED, RELATED = 8, 2, 4
FIN, SYN, RST, ACK = 1, 2, 4, 16

ADDRESSES_AND_PORTS: dict[str, tuple[Statement, ...]] = {
    "ip saddr 10.0.0.1": (equal(Field.IP_SOURCE, ip("10.0.0.1")),),
    "ip saddr 10.0.0.0/8 ip daddr != 10.0.0.0/8": (
        within(Field.IP_SOURCE, ip("10.0.0.0"), ip("10.255.255.255")),
        within(Field.IP_DESTINATION, ip("10.0.0.0"), ip("10.255.255.255"), Op.UNEQUAL),
    ),
    "ip saddr 10.0.0.5-10.0.0.9 accept": (within(Field.IP_SOURCE, ip("10.0.0.5"), ip("10.0.0.9")), ACCEPT),
    "ip saddr > 10.0.0.1 accept": (Match(Read(Field.IP_SOURCE), Op.GREATER, Constant(ip("10.0.0.1"))), ACCEPT),
    "ip saddr & 255.0.0.255 == 10.0.0.5 accept": (masked(Field.IP_SOURCE, 0xFF0000FF, ip("10.0.0.5")), ACCEPT),
    "ip saddr 0.0.0.0/0 accept": (within(Field.IP_SOURCE, 0, 0xFFFFFFFF), ACCEPT),
    "ip6 saddr fe80::/10 accept": (
        within(Field.IP6_SOURCE, ip("fe80::"), ip("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
        ACCEPT,
    ),
    "ip6 saddr & ffff:: == fe80:: accept": (
        within(Field.IP6_SOURCE, ip("fe80::"), ip("fe80:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
        ACCEPT,
    ),
    "tcp dport http accept": (DPORT80, ACCEPT),
    "tcp dport { ssh, http-alt } accept": (among(Field.TCP_DPORT, 22, 8080), ACCEPT),
    "tcp dport >= 1024 accept": (Match(Read(Field.TCP_DPORT), Op.GREATER_OR_EQUAL, Constant(1024)), ACCEPT),
    "tcp dport != { 80, 90-100 } redirect to :15001": (
        Match(Read(Field.TCP_DPORT), Op.UNEQUAL, Elements(exact={(80,): None}, spans=(((Span(90, 100),), None),))),
        Nat(NatKind.REDIRECT, port=Constant(15001)),
    ),
    "@th,16,16 53 accept": (equal(Field.TH_DPORT, 53), ACCEPT),
    "meta l4proto { tcp, udp, 99 } accept": (among(Field.L4PROTO, 6, 17, 99), ACCEPT),
    "ip protocol { tcp, 132 } accept": (among(Field.IP_PROTOCOL, 6, 132), ACCEPT),
    "icmp type echo-request icmp code 0 accept": (equal(Field.ICMP_TYPE, 8), equal(Field.ICMP_CODE, 0), ACCEPT),
    "icmpv6 type { nd-router-advert, 200 } accept": (among(Field.ICMP6_TYPE, 134, 200), ACCEPT),
    "meta protocol ip accept": (equal(Field.NFPROTO, 2), ACCEPT),
    "meta protocol { ip, ip6 } accept": (among(Field.NFPROTO, 2, 10), ACCEPT),
    "meta length 100-200 accept": (within(Field.LENGTH, 100, 200), ACCEPT),
    "ip dscp cs1 accept": (equal(Field.IP_DSCP, 8), ACCEPT),
    "ip frag-off & 0x1fff != 0 accept": (masked(Field.IP_FRAG_OFF, 0x1FFF, 0, Op.UNEQUAL), ACCEPT),
}
INTERFACES_AND_OWNERS: dict[str, tuple[Statement, ...]] = {
    'iifname "eth*" accept': (within(Field.IIFNAME, "eth*", "eth*"), ACCEPT),
    'oifname != { "lo", "br*" } accept': (
        Match(
            Read(Field.OIFNAME),
            Op.UNEQUAL,
            Elements(exact={("lo",): None}, spans=(((Span("br*", "br*"),), None),)),
            if_absent=True,
        ),
        ACCEPT,
    ),
    'oif "lo" accept': (equal(Field.OIFNAME, "lo"), ACCEPT),
    "oif 1 accept": (equal(Field.OIFNAME, "lo"), ACCEPT),
    "meta skuid root accept": (equal(Field.UID, 0), ACCEPT),
    "meta skuid { 0, 1337-1340 } accept": (
        Match(Read(Field.UID), Op.EQUAL, Elements(exact={(0,): None}, spans=(((Span(1337, 1340),), None),))),
        ACCEPT,
    ),
    "meta skuid != 1337 accept": (Match(Read(Field.UID), Op.UNEQUAL, Constant(1337)), ACCEPT),
    "meta iiftype ether accept": (equal(Field.IIFTYPE, 1), ACCEPT),
}
BIT_FIELDS: dict[str, tuple[Statement, ...]] = {
    # Between commas: any of them. In a set: exactly one of them.
    "ct state new,established accept": (any_bit(Field.CT_STATE, NEW | ESTABLISHED), ACCEPT),
    "ct state { new, established } accept": (among(Field.CT_STATE, ESTABLISHED, NEW), ACCEPT),
    "ct state { new, established|related } accept": (among(Field.CT_STATE, ESTABLISHED | RELATED, NEW), ACCEPT),
    "ct state new accept": (any_bit(Field.CT_STATE, NEW), ACCEPT),
    "ct state != new accept": (Match(Read(Field.CT_STATE), Op.UNEQUAL, Constant(NEW)), ACCEPT),
    "ct state != new,established accept": (
        Match(Read(Field.CT_STATE), Op.UNEQUAL, Constant(NEW | ESTABLISHED)),
        ACCEPT,
    ),
    "ct state ! new,established accept": (masked(Field.CT_STATE, NEW | ESTABLISHED, 0), ACCEPT),
    "ct state & (new|established) == established accept": (
        masked(Field.CT_STATE, NEW | ESTABLISHED, ESTABLISHED),
        ACCEPT,
    ),
    "ct status snat,dnat accept": (any_bit(Field.CT_STATUS, 48), ACCEPT),
    "ct status & dnat == dnat accept": (masked(Field.CT_STATUS, 32, 32), ACCEPT),
    "tcp flags syn accept": (any_bit(Field.TCP_FLAGS, SYN), ACCEPT),
    "tcp flags syn,ack accept": (any_bit(Field.TCP_FLAGS, SYN | ACK), ACCEPT),
    "tcp flags == syn accept": (equal(Field.TCP_FLAGS, SYN), ACCEPT),
    "tcp flags == (syn|ack) accept": (equal(Field.TCP_FLAGS, SYN | ACK), ACCEPT),
    "tcp flags { syn, syn|ack } accept": (among(Field.TCP_FLAGS, SYN | ACK, SYN), ACCEPT),
    "tcp flags syn / syn,ack accept": (masked(Field.TCP_FLAGS, SYN | ACK, SYN), ACCEPT),
    "tcp flags & (fin|syn|rst|ack) == syn accept": (masked(Field.TCP_FLAGS, FIN | SYN | RST | ACK, SYN), ACCEPT),
    "tcp flags & (syn|ack) == (syn|ack) accept": (masked(Field.TCP_FLAGS, SYN | ACK, SYN | ACK), ACCEPT),
    "tcp flags & (syn|ack) != 0 accept": (any_bit(Field.TCP_FLAGS, SYN | ACK), ACCEPT),
    "tcp flags & syn == 0 accept": (masked(Field.TCP_FLAGS, SYN, 0), ACCEPT),
    "tcp flags ! syn,ack accept": (masked(Field.TCP_FLAGS, SYN | ACK, 0), ACCEPT),
}
MARKS: dict[str, tuple[Statement, ...]] = {
    "meta mark & 0xfff == 0x539 accept": (masked(Field.MARK, 0xFFF, 0x539), ACCEPT),
    "meta mark & 0x1 != 0 accept": (masked(Field.MARK, 1, 0, Op.UNEQUAL), ACCEPT),
    # nft takes what stands behind the slash for the length of a prefix, not for a mask as iptables does
    "meta mark 0x1/0xf accept": (within(Field.MARK, 0, (1 << 17) - 1), ACCEPT),
    "meta mark set meta mark & 0xfffff000 | 0x111": (mark_becomes(Bits(Read(Field.MARK), 0xFFFFF111, 0, 0x111)),),
    "meta mark set mark or 0x4": (mark_becomes(Bits(Read(Field.MARK), 0xFFFFFFFF, 0, 4)),),
    "meta mark set mark xor 0x4": (mark_becomes(Bits(Read(Field.MARK), 0xFFFFFFFF, 4)),),
    "meta mark set ct mark & 0xff": (mark_becomes(Bits(Read(Field.CT_MARK), 0xFF)),),
    "ct mark set meta mark": (Set(Field.CT_MARK, Read(Field.MARK)),),
    "meta mark set tcp dport map { 80 : 0x1 }": (
        mark_becomes(Looked(Read(Field.TCP_DPORT), Elements(exact={(80,): Constant(1)}))),
    ),
}
OTHER_QUESTIONS: dict[str, tuple[Statement, ...]] = {
    "ct direction original accept": (equal(Field.CT_DIRECTION, 0), ACCEPT),
    "ct original ip saddr 1.2.3.4 accept": (equal(Field.CT_ORIGINAL_IP_SOURCE, ip("1.2.3.4")), ACCEPT),
    "ct original saddr 1.2.3.4 accept": (equal(Field.CT_ORIGINAL_IP_SOURCE, ip("1.2.3.4")), ACCEPT),
    "ct original protocol 6 accept": (equal(Field.CT_PROTOCOL, 6), ACCEPT),
    "fib daddr type local accept": (equal(Field.DESTINATION_TYPE, 2), ACCEPT),
    "fib daddr type { local, broadcast } accept": (among(Field.DESTINATION_TYPE, 2, 3), ACCEPT),
    "fib daddr . iif type local accept": (equal(Field.DESTINATION_TYPE_IIF, 2), ACCEPT),
    "fib saddr . iif oif 0 accept": (equal(Field.SOURCE_FIB_OIF, 0), ACCEPT),
    "fib saddr . iif oif missing accept": (equal(Field.SOURCE_FIB_OIF, 0), ACCEPT),
    "fib saddr . iif oif exists accept": (Match(Read(Field.SOURCE_FIB_OIF), Op.UNEQUAL, Constant(0)), ACCEPT),
    "socket transparent 1 socket mark 5 accept": (
        equal(Field.SOCKET_TRANSPARENT, 1),
        equal(Field.SOCKET_MARK, 5),
        ACCEPT,
    ),
    "meta l4proto . th dport { tcp . 80, udp . 53 } accept": (
        Match(
            Joined((Read(Field.L4PROTO), Read(Field.TH_DPORT))),
            Op.EQUAL,
            Elements(exact={(17, 53): None, (6, 80): None}),
        ),
        ACCEPT,
    ),
}
ALL = {**ADDRESSES_AND_PORTS, **INTERFACES_AND_OWNERS, **BIT_FIELDS, **MARKS, **OTHER_QUESTIONS}


@pytest.mark.parametrize("text", ALL)
def test_the_rule_is_read_as_what_it_asks(text: str) -> None:
    assert read_rule(listing()[1][text]).statements == ALL[text]
