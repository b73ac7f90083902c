"""Statements of nft's JSON that only test: comparisons, and what history decides. Pure.

Each reader gives what stands behind the statement's word, and its table's sets; Unreadable is raised for what has no
value here, and `left_open` says what is known even then.
"""

from collections.abc import Callable, Mapping
from typing import Final

from agent.explain.nft_expressions import SIMPLE, expression, kind_of, kinds_of, right
from agent.explain.nft_sets import Sets
from agent.explain.nft_text import Json
from agent.explain.nft_values import Kind, Unreadable, constant, is_wildcard, opaque, span
from agent.explain.statements import Bits, Constant, Elements, Expression, Field, Match, Op, Perhaps, Read, Statement

Reader = Callable[[Json, Sets], Statement]

CACHED: Final = 1 << 13
"""Statements that are remembered by their one word, as `jump CHAIN`: 5,000 and room."""
BEFORE: Final = "how many packets came before decides"
_WHY: Final = {
    "limit": BEFORE,
    "meter": BEFORE,
    "quota": "how much has passed before decides",
    "ct count": "how many connections there are decides",
}
_OPS: Final = {op.value: op for op in Op if op is not Op.ANY_BIT}
_PLAIN_OPS: Final = {**_OPS, "in": Op.ANY_BIT}
_MEMBER_OPS: Final = {"==": Op.EQUAL, "!=": Op.UNEQUAL}

_INTERFACES: Final = (Field.IIFNAME, Field.OIFNAME)
TCP_ONLY, _SCTP, IPV4_ONLY, IPV6_ONLY = (
    (Match(Read(field), Op.EQUAL, Constant(number)),)
    for field, number in ((Field.L4PROTO, 6), (Field.L4PROTO, 132), (Field.NFPROTO, 2), (Field.NFPROTO, 10))
)
_IMPLIED_BY: Final[Mapping[str, tuple[Match, ...]]] = {
    "tcp": TCP_ONLY,
    "tcp option": TCP_ONLY,
    "sctp": _SCTP,
    "sctp chunk": _SCTP,
    "ip": IPV4_ONLY,
    "ip option": IPV4_ONLY,
    "ip6": IPV6_ONLY,
    "exthdr": IPV6_ONLY,
    **{
        protocol: (Match(Read(Field.L4PROTO), Op.EQUAL, Constant(number)),)
        for protocol, number in (
            ("icmp", 1), ("igmp", 2), ("udp", 17), ("dccp", 33), ("esp", 50), ("ah", 51), ("icmpv6", 58), ("comp", 108),
            ("udplite", 136),
        )
    },
}  # fmt: skip
"""What a test of that header's fields asks first, unsaid (nft(8), PAYLOAD EXPRESSIONS; src/payload.c)."""


def match(said: Json, sets: Sets) -> Statement:
    left, op, against = said["left"], said["op"], said["right"]
    for source, read in left.items():
        if type(read) is dict and "dir" not in read:
            known = SIMPLE.get((read.get("protocol", source), read.get("field") or read.get("key", "")))
            if known is not None and (found := _simple(known[0], known[1], op, against)) is not None:
                return found
    return _test(left, op, against, sets)


def _simple(of: Read, kind: Kind, op: str, against: Json) -> Match | None:
    """One field is, or is not, one constant, one network or one range: nearly all tests there are. Flat, and not
    remembered: to look one up takes half as long as to make it, and a chain of thousands has each once."""
    if type(against) is int or (type(against) is str and against[:1] != "@"):
        said = _PLAIN_OPS.get(op)
        value = kind.read(against)
        if said is None or is_wildcard(value):
            return None
        to: Constant | Elements = Constant(value)
    elif type(against) is dict and ("prefix" in against or "range" in against):
        said = _MEMBER_OPS.get(op)
        if said is None:
            return None
        to = Elements("", None, (((span(against, kind),), None),))
    else:
        return None
    return Match(of, said, to, said is Op.UNEQUAL and of.field in _INTERFACES)


def _if_absent(of: Expression, op: Op) -> bool:
    """Where there is no interface, its name reads as empty (net/netfilter/nft_meta.c: nft_meta_store_ifname): any other
    name is unequal to it. Of everything else the rule does not match."""
    return op is Op.UNEQUAL and isinstance(of, Read) and of.field in _INTERFACES


def _test(left: Json, op: str, against: Json, sets: Sets) -> Match:
    of = expression(left, sets)
    if type(against) is bool and "fib" in left:
        return _exists(of, op, against)
    if op == "in" and not (isinstance(against, dict) and "set" in against):
        return Match(of, Op.ANY_BIT, Constant(constant(against, kind_of(of))))
    if op == "!":
        return Match(_masked(of, constant(against, kind_of(of))), Op.EQUAL, Constant(0))
    said = Op.EQUAL if op == "in" else _OPS[op]
    to = right(against, kinds_of(of, left), sets)
    if isinstance(to, Elements) and said not in (Op.EQUAL, Op.UNEQUAL):
        raise Unreadable
    return Match(of, said, to, _if_absent(of, said))


def _exists(of: Expression, op: str, wanted: bool) -> Match:
    """`fib … oif exists`: whether there is a route at all; the interface 0 is none (nft_fib.c)."""
    return Match(of, Op.UNEQUAL if wanted is (op == "==") else Op.EQUAL, Constant(0))


def _masked(of: Expression, mask: int | str) -> Bits:
    if not isinstance(mask, int) or not isinstance(of, Read):
        raise Unreadable
    return Bits(of, mask)


def history(word: str) -> Reader:
    """Of a statement that goes on or not by what came before."""

    def read(said: Json, _: Sets) -> Statement:
        return Perhaps(opaque({word: said}, _WHY[word]))

    return read


TESTS: Final[Mapping[str, Reader]] = {"match": match, **{word: history(word) for word in _WHY}}


def left_open(raw: Json, why: str) -> tuple[Statement, ...]:
    """A test that cannot be read; what its header implies is asked all the same: another protocol's packet misses."""
    said = raw.get("match")
    left = said.get("left") if type(said) is dict else None
    return (*implied_by(left), Perhaps(opaque(raw, why)))


def implied_by(left: Json) -> tuple[Match, ...]:
    """What is asked first, unsaid, where that field is read or written."""
    if type(left) is not dict:
        return ()
    for source, said in left.items():
        if source == "&" and type(said) is list:
            return implied_by(said[0]) if said else ()
        protocol = said.get("protocol") if source == "payload" and type(said) is dict else source
        return _IMPLIED_BY.get(protocol, ()) if type(protocol) is str else ()
    return ()
