"""What a rule asks of a packet, in words: `TCP to port 80`, `not sent by user 1337`. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.explain import nft_symbols as symbols
from agent.explain.nft_values import KINDS
from agent.explain.statements import AnyOf, Bits, Constant, Elements, Field, Match, Op, Perhaps, Read
from agent.explain.words_expressions import expression_in_words, fields_of, opaque_in_words, what_in_words
from agent.explain.words_values import elements_in_words, flags, protocol, value_in_words


@dataclass(frozen=True, slots=True)
class Said:
    """`of`: the protocol that it is said of, as TCP, said once for all that is; empty where it is none's."""

    of: str
    what: str


_PHRASES: Final[Mapping[Field, str]] = {
    Field.NFPROTO: "{}",
    Field.L4PROTO: "{}",
    Field.IP_PROTOCOL: "{}",
    Field.IP6_NEXTHDR: "{}",
    Field.IIFNAME: "arriving on {}",
    Field.OIFNAME: "leaving by {}",
    Field.IIFTYPE: "arriving on an interface of type {}",
    Field.OIFTYPE: "leaving by an interface of type {}",
    Field.MARK: "with mark {}",
    Field.UID: "sent by user {}",
    Field.GID: "sent by group {}",
    Field.PKTTYPE: "of packet type {}",
    Field.LENGTH: "with length {}",
    Field.CGROUP: "of cgroup {}",
    Field.IP_SOURCE: "from {}",
    Field.IP_DESTINATION: "to {}",
    Field.IP6_SOURCE: "from {}",
    Field.IP6_DESTINATION: "to {}",
    Field.IP_TTL: "with TTL {}",
    Field.IP_DSCP: "with DSCP {}",
    Field.IP_FRAG_OFF: "with fragment bits {}",
    Field.IP6_HOPLIMIT: "with hop limit {}",
    **{
        field: "from port {}" if field.value.endswith("sport") else "to port {}"
        for field in Field
        if field.value.endswith((" sport", " dport"))
    },
    Field.TCP_FLAGS: "with flags {}",
    Field.ICMP_TYPE: "type {}",
    Field.ICMP_CODE: "code {}",
    Field.ICMP6_TYPE: "type {}",
    Field.ICMP6_CODE: "code {}",
    Field.CT_STATE: "of a connection that is {}",
    Field.CT_STATUS: "of a connection with status {}",
    Field.CT_MARK: "with connection mark {}",
    Field.CT_DIRECTION: "in the {} direction of its connection",
    Field.CT_ZONE: "in conntrack zone {}",
    Field.CT_L3PROTO: "of an {} connection",
    Field.CT_PROTOCOL: "of a {} connection",
    Field.CT_ORIGINAL_IP_SOURCE: "originally from {}",
    Field.CT_ORIGINAL_IP_DESTINATION: "originally to {}",
    Field.CT_ORIGINAL_IP6_SOURCE: "originally from {}",
    Field.CT_ORIGINAL_IP6_DESTINATION: "originally to {}",
    Field.CT_ORIGINAL_SPORT: "originally from port {}",
    Field.CT_ORIGINAL_DPORT: "originally to port {}",
    Field.SOCKET_TRANSPARENT: "for a socket with transparent {}",
    Field.SOCKET_MARK: "for a socket with mark {}",
    Field.SOCKET_WILDCARD: "for a socket with wildcard {}",
    Field.SOURCE_TYPE: "from a {} address",
    Field.DESTINATION_TYPE: "to a {} address",
    Field.SOURCE_TYPE_IIF: "from a {} address of the interface it arrives on",
    Field.DESTINATION_TYPE_IIF: "to a {} address of the interface it arrives on",
    Field.SOURCE_FIB_OIF: "with a route back by interface {}",
    Field.SOURCE_FIB_OIF_MARK: "with a route back for its mark by interface {}",
}
_SPECIAL: Final[Mapping[tuple[Field, Op, int], str]] = {
    (Field.SOURCE_FIB_OIF, Op.EQUAL, 0): "without a route back by the interface it arrives on",
    (Field.SOURCE_FIB_OIF, Op.UNEQUAL, 0): "with a route back by the interface it arrives on",
    (Field.SOURCE_FIB_OIF_MARK, Op.EQUAL, 0): "without a route back for its mark by the interface it arrives on",
    (Field.SOURCE_FIB_OIF_MARK, Op.UNEQUAL, 0): "with a route back for its mark by the interface it arrives on",
    (Field.SOCKET_TRANSPARENT, Op.EQUAL, 1): "for a transparent socket",
    (Field.SOCKET_TRANSPARENT, Op.EQUAL, 0): "for a socket that is not transparent",
    (Field.SOCKET_WILDCARD, Op.EQUAL, 0): "for a socket bound to one address",
    (Field.SOCKET_WILDCARD, Op.EQUAL, 1): "for a socket bound to every address",
    (Field.SOCKET_WILDCARD, Op.GREATER_OR_EQUAL, 0): "for a socket of this host",
    (Field.UID, Op.GREATER_OR_EQUAL, 0): "sent by a socket",
    (Field.UID, Op.LESS, 0): "not sent by a socket",
    (Field.MARK, Op.EQUAL, 0): "without a mark",
    (Field.MARK, Op.UNEQUAL, 0): "with a mark",
    (Field.CT_MARK, Op.EQUAL, 0): "without a connection mark",
    (Field.CT_MARK, Op.UNEQUAL, 0): "with a connection mark",
}
_ANY: Final = "any"
"""Of ports that are read whatever the protocol is: said of the one that the rule names, if it names one."""
_OF: Final = {"th": _ANY, "tcp": "TCP", "udp": "UDP", "sctp": "SCTP", "icmp": "ICMP", "icmpv6": "ICMPv6"}
_RELATIONS: Final[Mapping[Op, str]] = {
    Op.EQUAL: "{}",
    Op.UNEQUAL: "{}",
    Op.LESS: "below {}",
    Op.LESS_OR_EQUAL: "up to {}",
    Op.GREATER: "above {}",
    Op.GREATER_OR_EQUAL: "{} and above",
    Op.ANY_BIT: "{}",
}
_PROTOCOLS: Final = (Field.L4PROTO, Field.IP_PROTOCOL, Field.IP6_NEXTHDR)


def together(tests: Sequence[Said]) -> str:
    """All of them in a row; what is said of one protocol stands behind its name, once."""
    named = {said.of for said in tests} - {"", _ANY}
    sole = named.pop() if len(named) == 1 else ""
    groups: dict[tuple[str, int], list[str]] = {}
    for number, said in enumerate(tests):
        of = sole if said.of == _ANY else said.of
        found = groups.setdefault((of, 0 if of else number), [])
        if said.what and said.what not in found:
            found.append(said.what)
    return ", ".join(text for (of, _), what in groups.items() if (text := " ".join([of, *what]).strip()))


def test_in_words(test: Match | AnyOf | Perhaps) -> Said:
    if isinstance(test, Perhaps):
        return Said("", f"perhaps ({opaque_in_words(test.what)})")
    if isinstance(test, AnyOf):
        return Said("", f"{'neither ' if test.negated else ''}{_any_of(test)}")
    return _match(test)


def _any_of(test: AnyOf) -> str:
    parts = [together([_match(one)]) for one in test.of]
    return (" nor " if test.negated else " or ").join(parts)


def _match(test: Match) -> Said:
    left, right = test.left, test.right
    if isinstance(left, Constant) and isinstance(right, Constant):  # iptables' text has options that always hold
        return Said("", "" if (left.value == right.value) is (test.op is Op.EQUAL) else "never")
    if isinstance(left, Read) and isinstance(right, Constant):
        return _plain(left.field, test.op, right)
    if isinstance(left, Bits) and isinstance(right, Constant) and isinstance(right.value, int):
        return _bits(left, test.op, right.value)
    fields = fields_of(left)
    if isinstance(right, Elements):
        text = elements_in_words(fields, right)
    else:
        text = expression_in_words(right)
    field = fields[0] if len(fields) == 1 else None
    if field is None or not isinstance(left, Read):
        what = what_in_words(left)
        return Said("", f"whose {what} is {'not ' if test.op is Op.UNEQUAL else ''}{text}")
    return _phrase(field, test.op, text)


def _plain(field: Field, op: Op, right: Constant) -> Said:
    value = right.value
    if isinstance(value, int):
        special = _SPECIAL.get((field, op, value))
        if special is not None:
            return Said("", special)
        if field in _PROTOCOLS and op is Op.EQUAL:
            return Said(protocol(value), "")
    text = value_in_words(field, value)
    if field in _FLAGS:
        text = text.replace(",", " or ") if op is Op.ANY_BIT else f"{text} alone"
    return _phrase(field, op, text)


def _phrase(field: Field, op: Op, value: str) -> Said:
    text = _PHRASES.get(field, f"with {field.value} {{}}").format(_RELATIONS[op].format(value))
    of = _OF.get(field.value.partition(" ")[0], "")
    return Said(of, negated(text) if op is Op.UNEQUAL else text)


def negated(text: str) -> str:
    return f"without {text.removeprefix('with ')}" if text.startswith("with ") else f"not {text}"


def _bits(left: Bits, op: Op, value: int) -> Said:
    fields = fields_of(left)
    field = fields[0] if len(fields) == 1 else None
    if field is None or left.xor or left.ored or op not in (Op.EQUAL, Op.UNEQUAL):
        return Said(
            "", f"whose {expression_in_words(left).removeprefix('the ')} is {_RELATIONS[op].format(hex(value))}"
        )
    words = _FLAGS.get(field)
    if words is None:
        return _masked(field, op, value, left.mask)
    mask, shown = flags(words)(left.mask), flags(words)(value)
    none = value == 0
    text = mask.replace(",", " or ") if none else shown if value == left.mask else f"{shown} of {mask}"
    said = _phrase(field, Op.EQUAL, text)
    return Said(said.of, negated(said.what) if none is (op is Op.EQUAL) else said.what)


_FLAGS: Final = {
    Field.TCP_FLAGS: symbols.TCP_FLAGS,
    Field.CT_STATE: symbols.CT_STATES,
    Field.CT_STATUS: symbols.CT_STATUS,
}


def _masked(field: Field, op: Op, value: int, mask: int) -> Said:
    ones = KINDS[field].ones if field in KINDS else 0xFFFFFFFF
    text, of = value_in_words(field, value), value_in_words(field, mask)
    if value == 0 and op is Op.UNEQUAL:
        return _phrase(field, Op.EQUAL, f"in which a bit of {of} is set")
    return _phrase(field, op, text if mask == ones else f"{text}/{of}")
