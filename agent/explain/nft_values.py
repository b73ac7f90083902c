"""A constant of nft's JSON as the value that it is compared with: numbers, addresses, words, names of interfaces. Pure.

What is read here was printed by libnftables from what a pod may have written: all of it may be anything.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from agent.explain import nft_symbols as symbols
from agent.explain.nft_text import Json, text_of
from agent.explain.statements import Field, Opaque, Span, Value

_IFNAMSIZ: Final = 16  # linux/if.h, with the zero at its end
_OCTETS: Final = {str(octet): octet for octet in range(256)}
_NOT_READ: Final = Opaque("").why


MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)
"""What reading JSON raises that is not as nft writes it."""


class Unreadable(Exception):
    """This expression means something that the values of agent.explain cannot say. `why`: in a person's words."""

    def __init__(self, why: str = _NOT_READ) -> None:
        super().__init__(why)
        self.why = why


def opaque(raw: Json, why: str = _NOT_READ) -> Opaque:
    return Opaque(text_of(raw), why)


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one type are written. `bits`: their width, 0 of text; `ones`: all of them set."""

    bits: int
    read: Callable[[Json], Value]
    ones: int


def _kind(bits: int, read: Callable[[Json], Value]) -> Kind:
    return Kind(bits, read, (1 << bits) - 1)


# ── Readers: JSON -> value; Unreadable, for what is nothing of the kind ────────────────────────────────────────────
def _number(raw: Json) -> Value:
    if type(raw) is int:
        return raw
    if raw is True or raw is False:  # `exists`, `missing`
        return int(raw)
    if isinstance(raw, str) and raw.isascii() and raw.isdigit():  # an interface index of no interface
        return int(raw)
    raise Unreadable(f"{text_of(raw)} is no number")


def _words(known: Mapping[str, int]) -> Callable[[Json], Value]:
    def read(raw: Json) -> Value:
        if type(raw) is str and (value := known.get(raw)) is not None:
            return value
        if type(raw) is str and not raw.isdigit():
            raise Unreadable(f"{text_of(raw)} is a word of its maker's machine, or of a newer nft")
        return _number(raw)

    return read


def _ipv4(raw: str) -> int:
    """As inet_ntop(3) writes it. ipaddress takes four times as long, and a Service map has thousands of them."""
    try:
        first, second, third, fourth = raw.split(".")
        return _OCTETS[first] << 24 | _OCTETS[second] << 16 | _OCTETS[third] << 8 | _OCTETS[fourth]
    except (KeyError, ValueError):
        raise Unreadable(f"{text_of(raw)} is no IPv4 address") from None


@functools.lru_cache(maxsize=1 << 16)  # a set's elements come again with each rule that names it
def _ipv6(raw: str) -> int:
    try:
        if "%" in raw:  # a zone is an interface, and no part of what is compared
            raise ValueError
        return int(IPv6Address(raw))
    except ValueError:
        raise Unreadable(f"{text_of(raw)} is no IPv6 address") from None


def _address4(raw: Json) -> Value:
    return _ipv4(raw) if type(raw) is str else _number(raw)


def _address6(raw: Json) -> Value:
    return _ipv6(raw) if type(raw) is str else _number(raw)


def _name(raw: Json) -> Value:
    """Of an interface. nft writes a star that is part of the name as `\\*`: no Value can say that, and a wildcard it is
    not."""
    if type(raw) is not str or len(raw) >= _IFNAMSIZ or raw.endswith("\\*"):
        raise Unreadable(f"{text_of(raw)} is no name of an interface that can be told from a wildcard")
    return raw


def _ethertype(raw: Json) -> Value:
    if type(raw) is int:
        return _ETHERTYPES.get(raw, raw | 1 << 16)
    return _ETHERTYPE_WORDS(raw)


_ETHERTYPES: Final = {0x0800: 2, 0x86DD: 10, 0x0008: 2, 0xDD86: 10}
"""Also with their bytes turned round, as nft 1.0.6 prints them in numbers (datatype.c: ethertype_type_print)."""
_ETHERTYPE_WORDS: Final = _words(symbols.ETHERTYPES)

NUMBER: Final = _kind(32, _number)
BYTE: Final = _kind(8, _number)
PORT: Final = _kind(16, _number)
ADDRESS4: Final = _kind(32, _address4)
ADDRESS6: Final = _kind(128, _address6)
NAME: Final = _kind(0, _name)
PROTOCOL: Final = _kind(8, _words(symbols.PROTOCOLS))
NFPROTO: Final = _kind(8, _words(symbols.NFPROTO))
ETHERTYPE: Final = _kind(16, _ethertype)
USER: Final = _kind(32, _words(symbols.USERS))
TCP_FLAGS: Final = _kind(8, _words(symbols.TCP_FLAGS))
CT_STATE: Final = _kind(32, _words(symbols.CT_STATES))
CT_STATUS: Final = _kind(32, _words(symbols.CT_STATUS))
CT_DIRECTION: Final = _kind(8, _words(symbols.CT_DIRECTIONS))
ADDRESS_TYPE: Final = _kind(32, _words(symbols.ADDRESS_TYPES))
PACKET_TYPE: Final = _kind(8, _words(symbols.PACKET_TYPES))
INTERFACE_TYPE: Final = _kind(16, _words(symbols.INTERFACE_TYPES))
DSCP: Final = _kind(6, _words(symbols.DSCP))
ICMP_TYPE: Final = _kind(8, _words(symbols.ICMP_TYPES))
ICMP_CODE: Final = _kind(8, _words(symbols.ICMP_CODES))
ICMP6_TYPE: Final = _kind(8, _words(symbols.ICMP6_TYPES))
ICMP6_CODE: Final = _kind(8, _words(symbols.ICMP6_CODES))

KINDS: Final[Mapping[Field, Kind]] = {
    Field.NFPROTO: NFPROTO,
    Field.L4PROTO: PROTOCOL,
    Field.IIFNAME: NAME,
    Field.OIFNAME: NAME,
    Field.IIFTYPE: INTERFACE_TYPE,
    Field.OIFTYPE: INTERFACE_TYPE,
    Field.UID: USER,
    Field.GID: USER,
    Field.PKTTYPE: PACKET_TYPE,
    Field.IP_SOURCE: ADDRESS4,
    Field.IP_DESTINATION: ADDRESS4,
    Field.IP_PROTOCOL: PROTOCOL,
    Field.IP_TTL: BYTE,
    Field.IP_DSCP: DSCP,
    Field.IP_FRAG_OFF: PORT,
    Field.IP6_SOURCE: ADDRESS6,
    Field.IP6_DESTINATION: ADDRESS6,
    Field.IP6_NEXTHDR: PROTOCOL,
    Field.IP6_HOPLIMIT: BYTE,
    Field.TCP_SPORT: PORT,
    Field.TCP_DPORT: PORT,
    Field.TCP_FLAGS: TCP_FLAGS,
    Field.UDP_SPORT: PORT,
    Field.UDP_DPORT: PORT,
    Field.SCTP_SPORT: PORT,
    Field.SCTP_DPORT: PORT,
    Field.TH_SPORT: PORT,
    Field.TH_DPORT: PORT,
    Field.ICMP_TYPE: ICMP_TYPE,
    Field.ICMP_CODE: ICMP_CODE,
    Field.ICMP6_TYPE: ICMP6_TYPE,
    Field.ICMP6_CODE: ICMP6_CODE,
    Field.CT_STATE: CT_STATE,
    Field.CT_STATUS: CT_STATUS,
    Field.CT_DIRECTION: CT_DIRECTION,
    Field.CT_ZONE: PORT,
    Field.CT_L3PROTO: NFPROTO,
    Field.CT_PROTOCOL: PROTOCOL,
    Field.CT_ORIGINAL_IP_SOURCE: ADDRESS4,
    Field.CT_ORIGINAL_IP_DESTINATION: ADDRESS4,
    Field.CT_ORIGINAL_IP6_SOURCE: ADDRESS6,
    Field.CT_ORIGINAL_IP6_DESTINATION: ADDRESS6,
    Field.CT_ORIGINAL_SPORT: PORT,
    Field.CT_ORIGINAL_DPORT: PORT,
    Field.SOCKET_TRANSPARENT: BYTE,
    Field.SOCKET_WILDCARD: BYTE,
    Field.SOURCE_TYPE: ADDRESS_TYPE,
    Field.DESTINATION_TYPE: ADDRESS_TYPE,
    Field.SOURCE_TYPE_IIF: ADDRESS_TYPE,
    Field.DESTINATION_TYPE_IIF: ADDRESS_TYPE,
}
"""All others are numbers of 32 bits."""

SET_TYPES: Final[Mapping[str, Kind]] = {
    "ipv4_addr": ADDRESS4,
    "ipv6_addr": ADDRESS6,
    "inet_service": PORT,
    "inet_proto": PROTOCOL,
    "ifname": NAME,
    "iface_index": NAME,  # printed by name, and compared by name: nft_expressions' `iif`
    "iface_type": INTERFACE_TYPE,
    "mark": NUMBER,
    "uid": USER,
    "gid": USER,
    "ct_state": CT_STATE,
    "ct_status": CT_STATUS,
    "ct_dir": CT_DIRECTION,
    "nf_proto": NFPROTO,
    "ether_type": ETHERTYPE,
    "tcp_flag": TCP_FLAGS,
    "icmp_type": ICMP_TYPE,
    "icmp_code": ICMP_CODE,
    "icmpv6_type": ICMP6_TYPE,
    "icmpv6_code": ICMP6_CODE,
    "dscp": DSCP,
    "fib_addrtype": ADDRESS_TYPE,
    "pkt_type": PACKET_TYPE,
    "boolean": BYTE,
    "integer": NUMBER,
}


# ── Constants that are written in several parts ────────────────────────────────────────────────────────────────────
def constant(raw: Json, kind: Kind) -> Value:
    """One value; of flags, several laid together: `["syn", "ack"]`, `{"|": ["syn", "ack"]}`."""
    parts = raw if type(raw) is list else raw.get("|") if type(raw) is dict else None
    if parts is None:
        return kind.read(raw)
    value = 0
    for part in parts:
        one = constant(part, kind)
        if not isinstance(one, int):
            raise Unreadable
        value |= one
    return value


def span(raw: Json, kind: Kind) -> Span:
    """A range, a prefix, a wildcard, or one value."""
    if type(raw) is dict:
        if (prefix := raw.get("prefix")) is not None:
            first, length = kind.read(prefix["addr"]), prefix["len"]
            if type(first) is not int or not 0 <= length <= kind.bits:
                raise Unreadable
            hosts = kind.ones >> length
            return Span(first & ~hosts, first | hosts)
        if (ends := raw.get("range")) is not None:
            first, last = ends
            return Span(constant(first, kind), constant(last, kind))
    if raw == "*" and kind.bits:  # the element for all that no other one is for
        return Span(0, kind.ones)
    value = constant(raw, kind)
    return Span(value, value)


def is_wildcard(value: Value) -> bool:
    return isinstance(value, str) and value.endswith("*")
