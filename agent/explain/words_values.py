"""Values of a field, and sets of them, as a person reads them: addresses, ports, marks, names. Pure.

What is returned is printable and short: a pod may have called its interfaces, sets and chains anything.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.explain import nft_symbols as symbols
from agent.explain.nft_values import KINDS
from agent.explain.statements import Elements, Field, Span, Value
from agent.printable import printable

NAME_LIMIT: Final = 64
"""Of one name; NFT_NAME_MAXLEN is 256, and a line has other words too."""
_PLAIN: Final = re.compile(rf"[\w.@*+:/-]{{1,{NAME_LIMIT}}}")
LISTED: Final = 4
"""A set of more than so many values is counted, not listed: the rule's own text has them all."""

ADDRESSES: Final = frozenset(
    field for field in Field if field.value.endswith(("ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr"))
)
PORTS: Final = frozenset(field for field in Field if field.value.endswith(("sport", "dport", "proto-src", "proto-dst")))
_TCP_UDP: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


def name(text: str) -> str:
    """As it is, or in quotes: a chain may be called `x -> accept`."""
    return text if _PLAIN.fullmatch(text) else json.dumps(printable(text, NAME_LIMIT), ensure_ascii=False)


# ── One value ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _turned(words: Mapping[str, int]) -> dict[int, str]:
    """The first word for each number."""
    return {number: word for word, number in reversed(list(words.items()))}


def _word(words: Mapping[str, int]) -> Callable[[int], str]:
    known = _turned(words)
    return lambda value: known.get(value, str(value))


def flags(words: Mapping[str, int]) -> Callable[[int], str]:
    """Bits by their names, what has none in figures."""
    known = _turned(words)

    def read(value: int) -> str:
        found = [word for bit, word in sorted(known.items()) if value & bit]
        rest = value & ~sum(bit for bit in known if value & bit)
        return ",".join(found + [hex(rest)] * bool(rest)) or "none"

    return read


def protocol(value: int) -> str:
    return _TCP_UDP.get(value) or _PROTOCOL(value)


def address(value: Value) -> str:
    """Of either family, where nothing else tells which: below 1.0.0.0 nobody is, but ::1 is."""
    if isinstance(value, str):
        return name(value)
    return str(IPv4Address(value)) if 1 << 24 <= value < 1 << 32 else _ipv6(value)


def _ipv4(value: int) -> str:
    return str(IPv4Address(value)) if 0 <= value < 1 << 32 else hex(value)


def _ipv6(value: int) -> str:
    return str(IPv6Address(value)) if 0 <= value < 1 << 128 else hex(value)


_PROTOCOL: Final = _word(symbols.PROTOCOLS)
_FAMILY: Final = {2: "IPv4", 10: "IPv6"}
_WRITERS: Final[Mapping[Field, Callable[[int], str]]] = {
    Field.NFPROTO: lambda value: _FAMILY.get(value, str(value)),
    Field.CT_L3PROTO: lambda value: _FAMILY.get(value, str(value)),
    **dict.fromkeys((Field.L4PROTO, Field.IP_PROTOCOL, Field.IP6_NEXTHDR, Field.CT_PROTOCOL), protocol),
    **{field: _ipv6 if "ip6" in field.value else _ipv4 for field in ADDRESSES},
    **dict.fromkeys((Field.MARK, Field.CT_MARK, Field.SOCKET_MARK, Field.IP_FRAG_OFF), hex),
    **dict.fromkeys(
        (Field.SOURCE_TYPE, Field.DESTINATION_TYPE, Field.SOURCE_TYPE_IIF, Field.DESTINATION_TYPE_IIF),
        _word(symbols.ADDRESS_TYPES),
    ),
    Field.IIFTYPE: _word(symbols.INTERFACE_TYPES),
    Field.OIFTYPE: _word(symbols.INTERFACE_TYPES),
    Field.PKTTYPE: _word(symbols.PACKET_TYPES),
    Field.ICMP_TYPE: _word(symbols.ICMP_TYPES),
    Field.ICMP_CODE: str,  # 0 of an echo request is no "net-unreachable"
    Field.ICMP6_TYPE: _word(symbols.ICMP6_TYPES),
    Field.ICMP6_CODE: str,
    Field.CT_DIRECTION: _word(symbols.CT_DIRECTIONS),
    Field.CT_STATE: flags(symbols.CT_STATES),
    Field.CT_STATUS: flags(symbols.CT_STATUS),
    Field.TCP_FLAGS: flags(symbols.TCP_FLAGS),
}


def value_in_words(field: Field | None, value: Value) -> str:
    """`field` None: nothing is known of what it is."""
    if isinstance(value, str):
        return name(value)
    writer = _WRITERS.get(field) if field is not None else None
    return writer(value) if writer is not None else str(value)


# ── Several ────────────────────────────────────────────────────────────────────────────────────────────────────────
def span_in_words(field: Field | None, span: Span) -> str:
    first, last = span.first, span.last
    if first == last or isinstance(first, str) or isinstance(last, str):
        return value_in_words(field, first)
    hosts = last - first
    if field is not None and field in ADDRESSES and hosts & (hosts + 1) == 0 and first & hosts == 0:
        return f"{value_in_words(field, first)}/{KINDS[field].bits - hosts.bit_length()}"
    return f"{value_in_words(field, first)}-{value_in_words(field, last)}"


def count(among: Elements) -> int:
    return len(among.exact or ()) + len(among.spans)


def elements_in_words(fields: Sequence[Field | None], among: Elements) -> str:
    """`80, 443 or 1000-2000`; of a named one or of many how many: `one of 12 addresses of @probes`."""
    total = count(among)
    noun = plural(fields)
    if among.name:
        return (
            f"one of {total} {noun} of @{name(among.name)}" if total else f"one of @{name(among.name)}, which is empty"
        )
    if total > LISTED:
        return f"one of {total} {noun}"
    listed = keys_in_words(fields, among)
    return f"{', '.join(listed[:-1])} or {listed[-1]}" if len(listed) > 1 else "".join(listed) or f"none of 0 {noun}"


def keys_in_words(fields: Sequence[Field | None], among: Elements) -> list[str]:
    """Each key; for sets that are short."""
    return [
        *(
            " . ".join(value_in_words(_at(fields, number), value) for number, value in enumerate(key))
            for key in among.exact or ()
        ),
        *(
            " . ".join(span_in_words(_at(fields, number), span) for number, span in enumerate(key))
            for key, _ in among.spans
        ),
    ]


def covers_all(spans: Sequence[Span]) -> bool:
    """What stands for every key that has no element of its own: nft's `*`."""
    return all(span.first == "*" or (span.first == 0 and span.last in _ALL_ONES) for span in spans)


_ALL_ONES: Final = frozenset((1 << bits) - 1 for bits in (8, 16, 32, 128))


def _at(fields: Sequence[Field | None], number: int) -> Field | None:
    return fields[number] if number < len(fields) else None


# ── What they are called ───────────────────────────────────────────────────────────────────────────────────────────
_PLURALS: Final = {
    Field.IIFNAME: "interfaces",
    Field.OIFNAME: "interfaces",
    Field.UID: "users",
    Field.GID: "groups",
    Field.MARK: "marks",
    Field.CT_MARK: "marks",
    Field.SOCKET_MARK: "marks",
    Field.L4PROTO: "protocols",
    Field.IP_PROTOCOL: "protocols",
    Field.IP6_NEXTHDR: "protocols",
    Field.CT_STATE: "states",
    Field.ICMP_TYPE: "types",
    Field.ICMP6_TYPE: "types",
}


def plural(fields: Sequence[Field | None]) -> str:
    if len(fields) != 1:
        return "entries"
    (field,) = fields
    if field in ADDRESSES:
        return "addresses"
    if field in PORTS:
        return "ports"
    return _PLURALS.get(field, "values") if field is not None else "values"


NOUNS: Final[Mapping[Field, str]] = {
    Field.NFPROTO: "family",
    Field.L4PROTO: "protocol",
    Field.IIFNAME: "interface it arrives on",
    Field.OIFNAME: "interface it leaves by",
    Field.MARK: "mark",
    Field.UID: "sending user",
    Field.GID: "sending group",
    Field.IP_SOURCE: "source address",
    Field.IP_DESTINATION: "destination address",
    Field.IP6_SOURCE: "source address",
    Field.IP6_DESTINATION: "destination address",
    Field.IP_PROTOCOL: "protocol",
    Field.IP6_NEXTHDR: "protocol",
    Field.IP_TTL: "TTL",
    Field.IP6_HOPLIMIT: "hop limit",
    Field.IP_DSCP: "DSCP",
    **{
        field: "source port" if field.value.endswith("sport") else "destination port"
        for field in Field
        if field.value.endswith((" sport", " dport"))
    },
    Field.TCP_FLAGS: "TCP flags",
    Field.ICMP_TYPE: "ICMP type",
    Field.ICMP6_TYPE: "ICMPv6 type",
    Field.CT_STATE: "connection state",
    Field.CT_MARK: "connection's mark",
    Field.CT_ZONE: "conntrack zone",
    Field.SOCKET_MARK: "socket's mark",
    Field.PKTTYPE: "packet type",
}


def noun(field: Field) -> str:
    """As in `the destination port`."""
    return NOUNS.get(field, field.value)
