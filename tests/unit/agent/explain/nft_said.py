"""What a rule asks and does, as the values it is read into, in few words."""

from ipaddress import ip_address

from agent.explain.statements import (
    Bits,
    Constant,
    Elements,
    Expression,
    Field,
    Match,
    Op,
    Read,
    Set,
    Span,
    Value,
)


def ip(text: str) -> int:
    return int(ip_address(text))


def equal(field: Field, value: Value) -> Match:
    return Match(Read(field), Op.EQUAL, Constant(value))


def within(field: Field, first: Value, last: Value, op: Op = Op.EQUAL, *, if_absent: bool = False) -> Match:
    return Match(Read(field), op, Elements(spans=(((Span(first, last),), None),)), if_absent)


def among(field: Field, *values: Value) -> Match:
    return Match(Read(field), Op.EQUAL, Elements(exact={(value,): None for value in values}))


def any_bit(field: Field, bits: int) -> Match:
    return Match(Read(field), Op.ANY_BIT, Constant(bits))


def masked(field: Field, mask: int, value: int, op: Op = Op.EQUAL) -> Match:
    return Match(Bits(Read(field), mask), op, Constant(value))


TCP = equal(Field.L4PROTO, 6)
IPV4, IPV6 = equal(Field.NFPROTO, 2), equal(Field.NFPROTO, 10)
DPORT80 = equal(Field.TCP_DPORT, 80)


def mark_becomes(value: Expression) -> Set:
    return Set(Field.MARK, value)
