"""What a match of iptables asks of a packet; of one that lacks it, as the kernel's xt_*.c decide."""

from ipaddress import ip_address

import pytest

from agent.explain.statements import (
    AnyOf,
    Bits,
    Constant,
    Elements,
    Field,
    Match,
    Op,
    Perhaps,
    Read,
    Set,
    Span,
    Statement,
    Value,
)
from tests.unit.agent.explain.iptables_rules import read


def equal(field: Field, value: Value, *, if_absent: bool = False) -> Match:
    return Match(Read(field), Op.EQUAL, Constant(value), if_absent)


def unequal(field: Field, value: Value, *, if_absent: bool = False) -> Match:
    return Match(Read(field), Op.UNEQUAL, Constant(value), if_absent)


def within(field: Field, first: Value, last: Value, op: Op = Op.EQUAL, *, if_absent: bool = False) -> Match:
    return Match(Read(field), op, Elements(spans=(((Span(first, last),), None),)), if_absent)


def masked(field: Field, mask: int, value: int, op: Op = Op.EQUAL) -> Match:
    return Match(Bits(Read(field), mask), op, Constant(value))


def any_bit(field: Field, bits: int, *, if_absent: bool = False) -> Match:
    return Match(Read(field), Op.ANY_BIT, Constant(bits), if_absent)


def v4(text: str) -> int:
    return int(ip_address(text))


TCP, UDP = equal(Field.L4PROTO, 6), equal(Field.L4PROTO, 17)

HEADS: dict[str, tuple[Statement, ...]] = {
    "-s 10.0.0.0/8": (within(Field.IP_SOURCE, v4("10.0.0.0"), v4("10.255.255.255")),),
    "! -d 10.0.0.5/32": (unequal(Field.IP_DESTINATION, v4("10.0.0.5")),),
    "-s 10.0.0.0/255.0.255.0": (masked(Field.IP_SOURCE, 0xFF00FF00, v4("10.0.0.0")),),
    "-p tcp": (TCP,),
    "! -p gre": (unequal(Field.L4PROTO, 47),),
    "-p 253": (equal(Field.L4PROTO, 253),),
    "-i eth0": (equal(Field.IIFNAME, "eth0"),),
    "-o br+": (within(Field.OIFNAME, "br*", "br*"),),
    "-f": (masked(Field.IP_FRAG_OFF, 0x1FFF, 0, Op.UNEQUAL),),
    "! -f": (masked(Field.IP_FRAG_OFF, 0x1FFF, 0),),
}
TRANSPORT: dict[str, tuple[Statement, ...]] = {
    "-p tcp -m tcp": (TCP,),
    "-p tcp -m tcp --dport 80": (TCP, equal(Field.TCP_DPORT, 80)),
    "-p tcp -m tcp --sport 1000:65535 ! --dport 80:90": (
        TCP,
        within(Field.TCP_SPORT, 1000, 65535),
        within(Field.TCP_DPORT, 80, 90, Op.UNEQUAL),
    ),
    "-p udp -m udp --dport 53": (UDP, equal(Field.UDP_DPORT, 53)),
    "-p sctp -m sctp --sport 5": (equal(Field.L4PROTO, 132), equal(Field.SCTP_SPORT, 5)),
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN": (TCP, masked(Field.TCP_FLAGS, 0b10111, 0b10)),
    "-p tcp -m tcp ! --tcp-flags SYN,RST,ACK SYN,RST": (TCP, masked(Field.TCP_FLAGS, 0b10110, 0b110, Op.UNEQUAL)),
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE": (TCP, masked(Field.TCP_FLAGS, 0b111111, 0)),
    "-p tcp -m multiport --dports 22,80:90": (
        TCP,
        Match(Read(Field.TH_DPORT), Op.EQUAL, Elements(exact={(22,): None}, spans=(((Span(80, 90),), None),))),
    ),
    "-p udp -m multiport ! --ports 53": (
        UDP,
        AnyOf((equal(Field.TH_SPORT, 53), equal(Field.TH_DPORT, 53)), negated=True),
    ),
    "-p icmp -m icmp --icmp-type 8": (equal(Field.L4PROTO, 1), equal(Field.ICMP_TYPE, 8)),
    "-p icmp -m icmp ! --icmp-type 3/1": (
        equal(Field.L4PROTO, 1),
        AnyOf((unequal(Field.ICMP_TYPE, 3), unequal(Field.ICMP_CODE, 1))),
    ),
    "-p icmp -m icmp --icmp-type any": (equal(Field.L4PROTO, 1), Match(Constant(0), Op.EQUAL, Constant(0))),
}
OTHERS: dict[str, tuple[Statement, ...]] = {
    "-m mark --mark 0x539/0xfff": (masked(Field.MARK, 0xFFF, 0x539),),
    "-m mark ! --mark 0x5": (unequal(Field.MARK, 5),),
    "-m connmark --mark 0x111/0xfff": (masked(Field.CT_MARK, 0xFFF, 0x111),),
    "-m iprange --src-range 10.0.0.1-10.0.0.9": (within(Field.IP_SOURCE, v4("10.0.0.1"), v4("10.0.0.9")),),
    "-m length ! --length 10": (unequal(Field.LENGTH, 10),),
    "-m ttl --ttl-gt 5": (Match(Read(Field.IP_TTL), Op.GREATER, Constant(5)),),
    "-m dscp --dscp 0x2e": (equal(Field.IP_DSCP, 46),),
    "-m pkttype --pkt-type broadcast": (equal(Field.PKTTYPE, 1),),
    "-m addrtype --dst-type LOCAL": (equal(Field.DESTINATION_TYPE, 2),),
    "-m addrtype ! --src-type LOCAL,BROADCAST --limit-iface-in": (
        Match(Read(Field.SOURCE_TYPE_IIF), Op.UNEQUAL, Elements(exact={(2,): None, (3,): None})),
    ),
    "-m rpfilter": (unequal(Field.SOURCE_FIB_OIF, 0),),
    "-m rpfilter --invert": (equal(Field.SOURCE_FIB_OIF, 0),),
    "-m recent --set --name x --mask 255.255.255.255 --rsource": (),
    "-m recent ! --set --name x --mask 255.255.255.255 --rsource": (Match(Constant(0), Op.UNEQUAL, Constant(0)),),
    "-m socket": (equal(Field.SOCKET_WILDCARD, 0),),
    "-m socket --transparent --nowildcard --restore-skmark": (
        Match(Read(Field.SOCKET_WILDCARD), Op.GREATER_OR_EQUAL, Constant(0)),
        equal(Field.SOCKET_TRANSPARENT, 1),
        Set(Field.MARK, Read(Field.SOCKET_MARK)),
    ),
}


@pytest.mark.parametrize("spec", (HEADS | TRANSPORT | OTHERS))
def test_asks_this_of_the_packet(spec: str) -> None:
    assert read(spec) == (HEADS | TRANSPORT | OTHERS)[spec]


def test_an_inverted_interface_holds_where_there_is_none() -> None:
    """`! -i lo` in a chain that OUTPUT jumps to (tried: its counter counts)."""
    assert read("! -i lo") == (unequal(Field.IIFNAME, "lo", if_absent=True),)
    assert read("! -i eth+") == (within(Field.IIFNAME, "eth*", "eth*", Op.UNEQUAL, if_absent=True),)
    assert read("-i lo") == (equal(Field.IIFNAME, "lo"),)


def test_an_inverted_owner_holds_without_a_socket() -> None:
    """The kernel's own answers and what is forwarded; of several tests all must be inverted."""
    assert read("-m owner ! --uid-owner 1337") == (unequal(Field.UID, 1337, if_absent=True),)
    assert read("-m owner --uid-owner 5 ! --gid-owner 1000-2000") == (
        equal(Field.UID, 5),
        within(Field.GID, 1000, 2000, Op.UNEQUAL, if_absent=True),
    )
    some_socket = Match(Read(Field.UID), Op.GREATER_OR_EQUAL, Constant(0))
    assert read("-m owner --socket-exists") == (some_socket,)
    assert read("-m owner ! --socket-exists") == (Match(Read(Field.UID), Op.LESS, Constant(0), if_absent=True),)


def test_states_of_a_connection_and_of_its_translation() -> None:
    assert read("-m conntrack --ctstate NEW,RELATED,UNTRACKED") == (any_bit(Field.CT_STATE, 8 | 4 | 64),)
    assert read("-m state --state ESTABLISHED") == (any_bit(Field.CT_STATE, 2),)
    assert read("-m conntrack ! --ctstate INVALID") == (masked(Field.CT_STATE, 1, 0),)
    assert read("-m conntrack --ctstate DNAT") == (AnyOf((any_bit(Field.CT_STATUS, 32),)),)
    either = (any_bit(Field.CT_STATE, 8), any_bit(Field.CT_STATUS, 16 | 32))
    assert read("-m conntrack ! --ctstate NEW,SNAT,DNAT") == (AnyOf(either, negated=True),)


def test_what_conntrack_does_not_know_is_asked_for_its_state_alone() -> None:
    """xt_conntrack.c: without a connection the state decides, and without a state nothing matches."""
    spec = "-m conntrack --ctorigdst 10.96.0.1 --ctorigdstport 443 --ctdir ORIGINAL"
    asked = (
        (Field.CT_ORIGINAL_IP_DESTINATION, v4("10.96.0.1")),
        (Field.CT_ORIGINAL_DPORT, 443),
        (Field.CT_DIRECTION, 0),
    )
    assert read(spec) == tuple(equal(*one) for one in asked)
    with_state = read(spec.replace("conntrack ", "conntrack --ctstate INVALID ", 1))
    assert with_state == (any_bit(Field.CT_STATE, 1), *(equal(*one, if_absent=True) for one in asked))


def test_no_status_is_never_a_status() -> None:
    assert read("-m conntrack --ctstatus NONE") == (any_bit(Field.CT_STATUS, 0),)
    assert read("-m conntrack --ctstatus EXPECTED,SEEN_REPLY,ASSURED,CONFIRMED") == (any_bit(Field.CT_STATUS, 15),)


def test_the_same_of_ipv6() -> None:
    first, last = int(ip_address("fd00::")), int(ip_address("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
    assert read("-s fd00::/8", "ip6") == (within(Field.IP6_SOURCE, first, last),)
    assert read("! -d fd00::5/128", "ip6") == (unequal(Field.IP6_DESTINATION, first + 5),)
    assert read("-s fd00::/ff00::", "ip6") == (masked(Field.IP6_SOURCE, 0xFF << 120, first),)
    assert read("-p ipv6-icmp -m icmp6 --icmpv6-type 128", "ip6") == (
        equal(Field.L4PROTO, 58),
        equal(Field.ICMP6_TYPE, 128),
    )
    assert read("-m hl --hl-lt 5", "ip6") == (Match(Read(Field.IP6_HOPLIMIT), Op.LESS, Constant(5)),)
    original = equal(Field.CT_ORIGINAL_IP6_DESTINATION, first + 5)
    assert read("-m conntrack --ctorigdst fd00::5", "ip6") == (original,)


def test_kinds_of_ipv6_addresses_are_asked_of_the_address_but_those_of_a_route() -> None:
    """match_type6 in xt_addrtype.c: UNICAST is every address that is not multicast, local ones too."""
    multicast = 0xFF << 120
    assert read("-m addrtype --dst-type LOCAL", "ip6") == (equal(Field.DESTINATION_TYPE, 2),)
    assert read("-m addrtype --dst-type UNICAST", "ip6") == (within(Field.IP6_DESTINATION, 1, multicast - 1),)
    not_multicast_and_local = AnyOf(
        (
            unequal(Field.DESTINATION_TYPE, 2),
            within(Field.IP6_DESTINATION, multicast, 2**128 - 1, Op.UNEQUAL),
        )
    )
    assert read("-m addrtype ! --dst-type LOCAL,MULTICAST", "ip6") == (not_multicast_and_local,)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("-m statistic --mode random --probability 0.50000000000", "chance or a count of packets decides"),
        ("-m limit --limit 5/min", "how much came before decides"),
        ("-m recent --update --seconds 60 --name x --mask 255.255.255.255 --rsource", "who was seen before decides"),
        ("-m set --match-set probes dst", "the members of an ipset decide, which are not read"),
        ('-m string --string "hello world" --algo bm', "the packet's bytes decide"),
        ("-m time --timestart 08:00:00", "the time of day decides"),
        ("-m physdev --physdev-is-bridged", "the port of a bridge decides"),
        ("-m rpfilter --loose --validmark", "this version does not interpret it"),
        ("-m tomorrow --only 5", "this version does not interpret it"),
        ("-m mark --mark 0x5 --of-tomorrow", "this version does not interpret it"),
        ("-m conntrack --ctexpire 10:20", "what conntrack holds of the connection decides"),
        ("-m owner --gid-owner 3000 --suppl-groups", "the groups of the sender decide"),
    ],
)
def test_what_nobody_can_tell_is_named(spec: str, why: str) -> None:
    (perhaps,) = read(spec)
    assert isinstance(perhaps, Perhaps)
    assert perhaps.what.why == why
    assert perhaps.what.text.split()[:2] == spec.split()[:2]
