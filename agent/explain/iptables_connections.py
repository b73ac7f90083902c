"""Matches of iptables that ask conntrack, the routes or the sockets. Pure."""

from typing import Final

from agent.explain.iptables_options import Option
from agent.explain.iptables_values import (
    Fields,
    among,
    bits_of,
    equals,
    network,
    numbers,
    ports,
    protocol,
    within,
)
from agent.explain.statements import (
    AnyOf,
    Bits,
    Constant,
    Field,
    Match,
    Op,
    Opaque,
    Perhaps,
    Read,
    Set,
    Statement,
)

_STATES: Final = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}
_NAT_STATES: Final = {"SNAT": 16, "DNAT": 32}  # IPS_SRC_NAT, IPS_DST_NAT: linux/netfilter/nf_conntrack_common.h
_STATUSES: Final = {"EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8, "NONE": 0}
"""Of `--ctstatus`. NONE alone never matches: no bit is set in no bits (net/netfilter/xt_conntrack.c)."""
_DIRECTIONS: Final = {"ORIGINAL": 0, "REPLY": 1}
_TYPES: Final = {
    "UNSPEC": 0,
    "UNICAST": 1,
    "LOCAL": 2,
    "BROADCAST": 3,
    "ANYCAST": 4,
    "MULTICAST": 5,
    "BLACKHOLE": 6,
    "UNREACHABLE": 7,
    "PROHIBIT": 8,
    "THROW": 9,
    "NAT": 10,
    "XRESOLVE": 11,
}
"""RTN_* of linux/rtnetlink.h."""
_ROUTED6: Final = frozenset({"LOCAL", "ANYCAST", "UNREACHABLE"})
_MULTICAST6: Final = 0xFF << 120
_SPANS6: Final = {
    "UNSPEC": (0, 0),
    "UNICAST": (1, _MULTICAST6 - 1),
    "MULTICAST": (_MULTICAST6, (1 << 128) - 1),
}
_NO_FILE_ID: Final = 0xFFFFFFFF  # no user's: (uid_t) -1


# ── Conntrack ──────────────────────────────────────────────────────────────────────────────────────────────────────
def connection_state(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    (option,) = given
    if option.name != "--state":
        raise ValueError(option.name)
    return [_in_state(option.value, option.negated)]


def conntrack(given: tuple[Option, ...], fields: Fields) -> list[Statement]:
    """Of a packet that conntrack does not know the state alone is asked, and without a state it does not match
    (conntrack_mt in net/netfilter/xt_conntrack.c)."""
    holds_unknown = any(option.name == "--ctstate" for option in given)
    return [_of_conntrack(option, fields, holds_unknown) for option in given]


def _of_conntrack(option: Option, fields: Fields, if_absent: bool) -> Statement:
    negated = option.negated
    match option.name:
        case "--ctstate":
            return _in_state(option.value, negated)
        case "--ctdir":
            return equals(Field.CT_DIRECTION, _DIRECTIONS[option.value], negated, if_absent)
        case "--ctproto":
            return equals(Field.CT_PROTOCOL, protocol(option.value), negated, if_absent)
        case "--ctstatus":
            return _any_bit(Field.CT_STATUS, bits_of(option.value, _STATUSES), negated, if_absent)
        case "--ctorigsrc":
            return _network(fields.original_source, option, fields, if_absent)
        case "--ctorigdst":
            return _network(fields.original_destination, option, fields, if_absent)
        case "--ctorigsrcport":
            return within(Field.CT_ORIGINAL_SPORT, *ports(option.value), negated, if_absent)
        case "--ctorigdstport":
            return within(Field.CT_ORIGINAL_DPORT, *ports(option.value), negated, if_absent)
    sign = "! " if negated else ""
    text = f"-m conntrack {sign}{option.name} {' '.join(option.values)}"
    return Perhaps(Opaque(text.rstrip(), "what conntrack holds of the connection decides"))


def _network(field: Field, option: Option, fields: Fields, if_absent: bool) -> Match:
    found = network(field, option.value, fields.v6, option.negated)
    return Match(found.left, found.op, found.right, if_absent)


def _in_state(text: str, negated: bool) -> Statement:
    words = text.split(",")
    states = sum(_STATES[word] for word in set(words) - _NAT_STATES.keys())
    translated = sum(_NAT_STATES[word] for word in set(words) & _NAT_STATES.keys())
    if not translated:
        return _any_bit(Field.CT_STATE, states, negated)
    tests = (_any_bit(Field.CT_STATE, states, False), _any_bit(Field.CT_STATUS, translated, False))
    return AnyOf(tests if states else tests[1:], negated)


def _any_bit(field: Field, mask: int, negated: bool, if_absent: bool = False) -> Match:
    if negated:
        return Match(Bits(Read(field), mask), Op.EQUAL, Constant(0), if_absent)
    return Match(Read(field), Op.ANY_BIT, Constant(mask), if_absent)


# ── Sockets ────────────────────────────────────────────────────────────────────────────────────────────────────────
def owner(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    """A packet without a socket matches when all that is asked is negated: owner_mt in net/netfilter/xt_owner.c."""
    if any(option.name == "--suppl-groups" for option in given):
        return [Perhaps(Opaque("-m owner --suppl-groups", "the groups of the sender decide"))]
    return [_of_owner(option) for option in given]


def _of_owner(option: Option) -> Match:
    match option.name:
        case "--uid-owner":
            return within(Field.UID, *numbers(option.value, "-", _NO_FILE_ID), option.negated, option.negated)
        case "--gid-owner":
            return within(Field.GID, *numbers(option.value, "-", _NO_FILE_ID), option.negated, option.negated)
        case "--socket-exists":
            operator = Op.LESS if option.negated else Op.GREATER_OR_EQUAL
            return Match(Read(Field.UID), operator, Constant(0), if_absent=option.negated)
    raise ValueError(option.name)


def socket(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    """socket_match in net/netfilter/xt_socket.c. One that listens on every address counts with --nowildcard only."""
    names = {option.name for option in given}
    if names - {"--transparent", "--nowildcard", "--restore-skmark"} or any(option.negated for option in given):
        raise ValueError(names)
    some = Match(Read(Field.SOCKET_WILDCARD), Op.GREATER_OR_EQUAL, Constant(0))
    found: list[Statement] = [some if "--nowildcard" in names else equals(Field.SOCKET_WILDCARD, 0, False)]
    if "--transparent" in names:
        found.append(equals(Field.SOCKET_TRANSPARENT, 1, False))
    if "--restore-skmark" in names:
        found.append(Set(Field.MARK, Read(Field.SOCKET_MARK)))
    return found


# ── Routes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def address_type(given: tuple[Option, ...], fields: Fields) -> list[Statement]:
    limits = {option.name for option in given} & {"--limit-iface-in", "--limit-iface-out"}
    if "--limit-iface-out" in limits:
        raise ValueError(limits)
    sides = {
        "--src-type": (fields.source, Field.SOURCE_TYPE_IIF if limits else Field.SOURCE_TYPE),
        "--dst-type": (fields.destination, Field.DESTINATION_TYPE_IIF if limits else Field.DESTINATION_TYPE),
    }
    found: list[Statement] = []
    for option in given:
        if option.name not in limits:
            found += _of_types(*sides[option.name], option, fields.v6)
    return found


def _of_types(address_field: Field, type_field: Field, option: Option, v6: bool) -> list[Statement]:
    words, negated = option.value.split(","), option.negated
    tests: list[Match] = []
    routed = [word for word in words if not v6 or word in _ROUTED6]
    if routed:
        kinds = [(_TYPES[word], _TYPES[word]) for word in routed]
        tests.append(among(type_field, kinds, negated))
    # Of IPv6, these are asked of the address alone, and all of them must hold (match_type6 in xt_addrtype.c).
    for word in sorted(set(words) - set(routed)):
        tests.append(within(address_field, *_SPANS6[word], negated))
    return [AnyOf(tuple(tests))] if negated and len(tests) > 1 else [*tests]


def reverse_path(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    """Whether a route back leads to where it came from (net/ipv4/netfilter/ipt_rpfilter.c)."""
    names = {option.name for option in given}
    if names - {"--invert"}:
        raise ValueError(names)
    return [equals(Field.SOURCE_FIB_OIF, 0, "--invert" not in names)]
