"""Values as iptables-save(8) prints them, read into tests of a field. Pure.

Every reader raises ValueError (or KeyError) for what it does not know: the rule is then followed both ways.
"""

import functools
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from agent.explain.statements import Bits, Constant, Elements, Expression, Field, Match, Op, Read, Span, Value

ALL_BITS: Final = 0xFFFFFFFF
PROTOCOLS: Final = {
    "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ipv4": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9, "pup": 12,
    "udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37,
    "idpr-cmtp": 38, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50,
    "ah": 51, "skip": 57, "icmpv6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "rspf": 73, "vmtp": 81,
    "eigrp": 88, "ospf": 89, "ospfigp": 89, "ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98, "pim": 103,
    "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "fc": 133, "mobility-header": 135, "mh": 135,
    "udplite": 136, "mpls-in-ip": 137, "manet": 138, "hip": 139, "shim6": 140, "wesp": 141, "rohc": 142,
    "ethernet": 143,
}  # fmt: skip
"""iptables-save prints a protocol by its name in /etc/protocols (Debian's netbase), or in libxtables' own list."""
FLAGS: Final = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
_WORDS: Final = 1024


class Fields(NamedTuple):
    """What a family calls the same thing."""

    v6: bool
    source: Field
    destination: Field
    original_source: Field
    original_destination: Field
    hops: Field


V4: Final = Fields(
    False,
    Field.IP_SOURCE,
    Field.IP_DESTINATION,
    Field.CT_ORIGINAL_IP_SOURCE,
    Field.CT_ORIGINAL_IP_DESTINATION,
    Field.IP_TTL,
)
V6: Final = Fields(
    True,
    Field.IP6_SOURCE,
    Field.IP6_DESTINATION,
    Field.CT_ORIGINAL_IP6_SOURCE,
    Field.CT_ORIGINAL_IP6_DESTINATION,
    Field.IP6_HOPLIMIT,
)


def number(text: str) -> int:
    """Decimal, or hexadecimal with 0x. Not octal: nothing prints it."""
    return int(text, 16) if text[:2] in ("0x", "0X") else int(text)


def address(text: str, v6: bool) -> int:
    if v6:
        return int(IPv6Address(text))
    a, b, c, d = map(int, text.split("."))  # a third of ipaddress's time; it is done for every rule
    if (a | b | c | d) & ~0xFF:
        raise ValueError(text)
    return a << 24 | b << 16 | c << 8 | d


def protocol(text: str) -> int:
    found = PROTOCOLS.get(text.lower())
    return int(text) if found is None else found


def bits_of(text: str, known: dict[str, int]) -> int:
    """Words with commas between, as one number."""
    found = 0
    for word in text.split(","):
        found |= known[word]
    return found


# ── Tests ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def equals(field: Field, value: Value, negated: bool, if_absent: bool = False) -> Match:
    return Match(Read(field), Op.UNEQUAL if negated else Op.EQUAL, Constant(value), if_absent)


def within(field: Field, first: int, last: int, negated: bool, if_absent: bool = False) -> Match:
    """Both ends are in it."""
    if first == last:
        return equals(field, first, negated, if_absent)
    spans = Elements(spans=(((Span(first, last),), None),))
    return Match(Read(field), Op.UNEQUAL if negated else Op.EQUAL, spans, if_absent)


def among(field: Field, values: list[tuple[int, int]], negated: bool) -> Match:
    """In one of several ranges, or in none."""
    if len(values) == 1:
        return within(field, *values[0], negated)
    single: dict[tuple[Value, ...], None] = {(first,): None for first, last in values if first == last}
    spans = tuple(((Span(first, last),), None) for first, last in values if first != last)
    return Match(Read(field), Op.UNEQUAL if negated else Op.EQUAL, Elements(exact=single or None, spans=spans))


def masked(of: Expression, mask: int, value: int, negated: bool) -> Match:
    """(of & mask) == value."""
    left = of if mask == ALL_BITS else Bits(of, mask)
    return Match(left, Op.UNEQUAL if negated else Op.EQUAL, Constant(value))


def marked(field: Field, text: str, negated: bool) -> Match:
    """`--mark VALUE[/MASK]` (net/netfilter/xt_mark.c, xt_connmark.c)."""
    value, mask = mark(text)
    return masked(Read(field), mask, value, negated)


def mark(text: str) -> tuple[int, int]:
    value, _, mask = text.partition("/")
    return number(value), number(mask) if mask else ALL_BITS


def network(field: Field, text: str, v6: bool, negated: bool) -> Match:
    """`-s`, `-d`: an address with a prefix, or with a mask that may have holes."""
    shown, _, length = text.partition("/")
    first, width = address(shown, v6), 128 if v6 else 32
    if not length or length == str(width):
        return equals(field, first, negated)
    if not length.isdecimal():
        return masked_address(field, first, address(length, v6), negated)
    size = 1 << (width - int(length))
    first &= -size
    return within(field, first, first + size - 1, negated)


def masked_address(field: Field, value: int, mask: int, negated: bool) -> Match:
    return Match(Bits(Read(field), mask), Op.UNEQUAL if negated else Op.EQUAL, Constant(value))


def port(text: str) -> int:
    found = int(text)
    if not 0 <= found <= 0xFFFF:
        raise ValueError(text)
    return found


def ports(text: str) -> tuple[int, int]:
    """`80`, `80:90`, `:90`, `80:`."""
    first, colon, last = text.partition(":")
    if not colon:
        return (found := port(first)), found
    return port(first or "0"), port(last or "65535")


def numbers(text: str, between: str, largest: int) -> tuple[int, int]:
    """`10`, `10:20`, `10:`."""
    first, given, last = text.partition(between)
    return number(first or "0"), (number(last) if last else largest) if given else number(first)


@functools.lru_cache(maxsize=_WORDS)
def interface(field: Field, text: str, negated: bool) -> Match:
    """`-i`, `-o`. An interface that the hook does not have has an empty name, for both iptables: so `! -i lo` holds for
    what is sent from here (ip_packet_match in net/ipv4/netfilter/ip_tables.c; nft_meta_store_ifname, tried)."""
    if text == "+":  # printed negated only: never true (iptables-nft writes `INVAL/D`; legacy prints nothing at all)
        return Match(Constant(0), Op.EQUAL if negated else Op.UNEQUAL, Constant(1))
    if not text.endswith("+"):
        return equals(field, text, negated, if_absent=negated)
    name = f"{text[:-1]}*"
    spans = Elements(spans=(((Span(name, name),), None),))
    return Match(Read(field), Op.UNEQUAL if negated else Op.EQUAL, spans, if_absent=negated)


@functools.lru_cache(maxsize=_WORDS)
def of_protocol(text: str, negated: bool) -> Match:
    return equals(Field.L4PROTO, protocol(text), negated)
