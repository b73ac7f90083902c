"""Expressions of nft's JSON (libnftables-json(5), EXPRESSIONS): what is read of a packet, and what with. Pure.

One that has no value here raises Unreadable with the reason; the statement that holds it says what that leaves open.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.explain.nft_sets import Sets, elements, kinds_of_translation, part_of, value_of
from agent.explain.nft_text import Json
from agent.explain.nft_values import (
    ETHERTYPE,
    KINDS,
    NAME,
    NUMBER,
    Kind,
    Unreadable,
    constant,
    is_wildcard,
    opaque,
    span,
)
from agent.explain.statements import Bits, Constant, Elements, Expression, Field, Joined, Looked, Opaque, Read

_READS: Final = {field: Read(field) for field in Field}

_META: Final[Mapping[str, Field]] = {
    **{
        field.value.removeprefix("meta "): field
        for field in Field
        if field.value.startswith("meta ")
    },
    # The listing has names for indices. Compared by name: who asks "which rule is it" means the interface as it is now.
    "iif": Field.IIFNAME,
    "oif": Field.OIFNAME,
    "protocol": Field.NFPROTO,
}  # fmt: skip
_PAYLOAD: Final[Mapping[tuple[str, str], Field]] = {
    (protocol, name): field
    for field in Field
    for protocol, _, name in (field.value.partition(" "),)
    if protocol in ("ip", "ip6", "tcp", "udp", "sctp", "th", "icmp", "icmpv6")
}
_CT: Final = {
    "state": Field.CT_STATE,
    "status": Field.CT_STATUS,
    "mark": Field.CT_MARK,
    "direction": Field.CT_DIRECTION,
    "zone": Field.CT_ZONE,
    "l3proto": Field.CT_L3PROTO,
    "protocol": Field.CT_PROTOCOL,
}
_CT_ORIGINAL: Final = {
    "ip saddr": Field.CT_ORIGINAL_IP_SOURCE,
    "ip daddr": Field.CT_ORIGINAL_IP_DESTINATION,
    "ip6 saddr": Field.CT_ORIGINAL_IP6_SOURCE,
    "ip6 daddr": Field.CT_ORIGINAL_IP6_DESTINATION,
    "proto-src": Field.CT_ORIGINAL_SPORT,
    "proto-dst": Field.CT_ORIGINAL_DPORT,
    "zone": Field.CT_ZONE,
    "l3proto": Field.CT_L3PROTO,
    "protocol": Field.CT_PROTOCOL,
}
SIMPLE: Final[Mapping[tuple[str, str], tuple[Read, Kind]]] = {
    **{
        ("meta", name): (_READS[field], KINDS.get(field, NUMBER)) for name, field in _META.items() if name != "protocol"
    },
    **{place: (_READS[field], KINDS.get(field, NUMBER)) for place, field in _PAYLOAD.items()},
    **{("ct", name): (_READS[field], KINDS.get(field, NUMBER)) for name, field in _CT.items()},
}
"""By protocol (meta, ct) and word: what nearly all tests read, found in one step."""
_SOCKET: Final = {
    "transparent": Field.SOCKET_TRANSPARENT,
    "mark": Field.SOCKET_MARK,
    "wildcard": Field.SOCKET_WILDCARD,
}
_FIB: Final[Mapping[tuple[str, str], Field]] = {
    (result, flags.replace(" . ", " ")): field
    for field in Field
    if field.value.startswith("fib ")
    for flags, _, result in (field.value.removeprefix("fib ").rpartition(" "),)
}
_WHY: Final = {
    "random": "chance decides",
    "time": "the time decides",
    "hour": "the time of day decides",
    "day": "the day of the week decides",
    "cpu": "the processor that handles it decides",
    "numgen": "the packets before it decide",
    "jhash": "a hash of the packet decides",
    "symhash": "a hash of the packet decides",
    "osf": "the sender's operating system is guessed from what it sends",
    "ipsec": "whether IPsec is used decides",
    "rt": "the route's own properties decide",
}


# ── What is read of a packet ───────────────────────────────────────────────────────────────────────────────────────
def _meta(said: Json, _: str) -> Field:
    key = said["key"]
    if (field := _META.get(key)) is None:
        raise Unreadable(_WHY.get(key, Opaque("").why))
    return field


def _payload(said: Json, _: str) -> Field:
    if (field := _PAYLOAD.get((said.get("protocol"), said.get("field")))) is None:
        raise Unreadable("nothing is known of that part of the packet")
    return field


def _ct(said: Json, family: str) -> Field:
    key, direction = said["key"], said.get("dir")
    if key in ("saddr", "daddr"):  # the older way to say it: of the table's family
        key = f"{family} {key}"
    field = (_CT if direction is None else _CT_ORIGINAL).get(key)
    if field is None or (direction == "reply" and key not in ("l3proto", "protocol")):
        raise Unreadable("only conntrack's entry tells")
    return field


def _socket(said: Json, _: str) -> Field:
    if (field := _SOCKET.get(said["key"])) is None:
        raise Unreadable("the sender's cgroup decides" if said["key"] == "cgroupv2" else Opaque("").why)
    return field


def _fib(said: Json, _: str) -> Field:
    if (field := _FIB.get((said["result"], " ".join(said["flags"])))) is None:
        raise Unreadable("a look-up of routes in a way that this version does not follow")
    return field


_SOURCES: Final[Mapping[str, Callable[[Json, str], Field]]] = {
    "meta": _meta,
    "payload": _payload,
    "ct": _ct,
    "socket": _socket,
    "fib": _fib,
}


def field_of(raw: Json, family: str) -> Field:
    """What a statement reads or writes. Raises Unreadable."""
    for source, said in raw.items():
        if source in _SOURCES:
            return _SOURCES[source](said, family)
        raise Unreadable(_why(source, said))
    raise Unreadable


def _why(source: str, said: Json) -> str:
    if source == "numgen" and said["mode"] == "random":
        return _WHY["random"]
    return _WHY.get(source, Opaque("").why)


# ── Expressions ────────────────────────────────────────────────────────────────────────────────────────────────────
def expression(raw: Json, sets: Sets, kind: Kind = NUMBER) -> Expression:
    """`kind`: of constants, where one can stand. Raises Unreadable."""
    if type(raw) is not dict:
        return Constant(constant(raw, kind))
    for word, said in raw.items():
        if word in _OPERATORS:
            return _OPERATORS[word](said, sets)
        if word == "concat":
            return Joined(tuple(expression(part, sets) for part in said))
        if word == "map":
            return _looked(said, sets, kind)
        return _READS[field_of(raw, sets.family)]
    raise Unreadable


def key(raw: Json, sets: Sets) -> Expression:
    """A map's. What chance or history decides stands as Opaque: any of the elements may be the one."""
    try:
        return expression(raw, sets)
    except Unreadable as error:
        return opaque(raw, error.why)


def kinds_of(left: Expression, raw: Json) -> Sequence[Kind]:
    """Of the values that it is compared with; `raw`: the same as JSON."""
    if isinstance(left, Joined):
        return tuple(one for part, each in zip(left.parts, raw["concat"], strict=True) for one in kinds_of(part, each))
    if isinstance(left, Bits):
        return (kind_of(left),)
    if isinstance(left, Read) and left.field is Field.NFPROTO and raw.get("meta", {}).get("key") == "protocol":
        return (ETHERTYPE,)
    return (kind_of(left),)


def kind_of(left: Expression) -> Kind:
    while isinstance(left, Bits):
        left = left.of
    return KINDS.get(left.field, NUMBER) if isinstance(left, Read) else NUMBER


def _operands(said: Json, sets: Sets) -> tuple[Expression, int, Kind]:
    first, second = said
    left = expression(first, sets)
    kind = kind_of(left)
    value = constant(second, kind) if _is_constant(second) else None
    if not isinstance(value, int) or isinstance(left, Joined | Constant):
        raise Unreadable
    return left, value, kind


def _is_constant(raw: Json) -> bool:
    return type(raw) is not dict or "|" in raw


def _and(said: Json, sets: Sets) -> Expression:
    of, mask, _ = _operands(said, sets)
    if isinstance(of, Bits):
        return Bits(of.of, of.mask & mask, of.xor & mask, of.ored & mask)
    return Bits(of, mask)


def _or(said: Json, sets: Sets) -> Expression:
    of, ored, kind = _operands(said, sets)
    if isinstance(of, Bits):
        return Bits(of.of, of.mask, of.xor, of.ored | ored)
    return Bits(of, kind.ones, 0, ored)


def _xor(said: Json, sets: Sets) -> Expression:
    of, xor, kind = _operands(said, sets)
    if isinstance(of, Bits):  # bits that `ored` has set are 1 before: they become the inverse of xor's
        rest = ~of.ored
        return Bits(of.of, of.mask & rest, (of.xor ^ xor) & rest | (of.ored & ~xor))
    return Bits(of, kind.ones, xor)


def _shift(_: Json, __: Sets) -> Expression:
    raise Unreadable("bits are moved, and that is more than this version follows")


_OPERATORS: Final[Mapping[str, Callable[[Json, Sets], Expression]]] = {
    "&": _and,
    "|": _or,
    "^": _xor,
    "<<": _shift,
    ">>": _shift,
}


def _looked(said: Json, sets: Sets, kind: Kind) -> Looked:
    at, data = key(said["key"], sets), said["data"]
    if isinstance(data, str):
        return Looked(at, sets.named(data[1:]))
    return Looked(at, elements(data["set"], kinds_of(at, said["key"]), value_of((kind,))))


# ── What it is compared with ───────────────────────────────────────────────────────────────────────────────────────
def right(raw: Json, kinds: Sequence[Kind], sets: Sets) -> Constant | Elements:
    """A value, or a set of them: a range, a prefix and a wildcard are one of one element. Raises Unreadable."""
    if type(raw) is dict:
        if "set" in raw:
            return elements(raw["set"], kinds)
        if "range" in raw or "prefix" in raw:
            return Elements(spans=(((span(raw, _only(kinds)),), None),))
        if "concat" in raw:
            return elements([raw], kinds)
    # An interface may be called as a set is, with the @; then the listing does not say which of them is meant.
    if type(raw) is str and raw[:1] == "@" and (sets.has(raw[1:]) or kinds[0] is not NAME):
        return sets.named(raw[1:])
    value = constant(raw, _only(kinds))
    return elements([raw], kinds) if is_wildcard(value) else Constant(value)


def _only(kinds: Sequence[Kind]) -> Kind:
    if len(kinds) != 1:
        raise Unreadable
    return kinds[0]


# ── What a translation writes ──────────────────────────────────────────────────────────────────────────────────────
def translated(raw: Json, sets: Sets, kind: Kind, family: str, number: int = 0) -> Expression:
    """An address or a port, of a range the first; of a map that leads to both, component `number`."""
    if type(raw) is dict and "map" in raw:
        at, data = key(raw["map"]["key"], sets), raw["map"]["data"]
        if isinstance(data, str):
            return Looked(at, sets.of_translation(data[1:], number))
        kinds = (kind,) if kind.bits == 16 and number == 0 else kinds_of_translation(family, data["set"])
        return Looked(at, elements(data["set"], kinds_of(at, raw["map"]["key"]), part_of(kinds, number)))
    if type(raw) is dict and ("range" in raw or "prefix" in raw):
        return Constant(span(raw, kind).first)
    return expression(raw, sets, kind)
