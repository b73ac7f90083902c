"""Matches of iptables (`-m NAME …`) as statements. Pure.

What a match says of a packet that lacks what it reads is decided in the kernel's net/netfilter/xt_NAME.c, one by one:
it is told where it is not plainly `does not match`.
"""

import functools
from collections.abc import Callable
from typing import Final

from agent.explain.iptables_connections import address_type, connection_state, conntrack, owner, reverse_path, socket
from agent.explain.iptables_options import Option, options
from agent.explain.iptables_values import (
    FLAGS,
    V4,
    V6,
    Fields,
    address,
    among,
    bits_of,
    equals,
    marked,
    masked,
    number,
    numbers,
    ports,
    within,
)
from agent.explain.statements import AnyOf, Constant, Field, Match, Op, Opaque, Perhaps, Read, Statement

Reader = Callable[[tuple[Option, ...], Fields], list[Statement]]

_GROUPS: Final = 4096
"""Remembered readings: rules of one maker say the same over and over."""
_UNREAD: Final = "this version does not interpret it"
_BYTES: Final = "the packet's bytes decide"
_BEFORE: Final = "how much came before decides"
_CHANGING: Final = {
    "statistic": "chance or a count of packets decides",
    "random": "chance decides",
    "nth": "a count of packets decides",
    "limit": _BEFORE,
    "hashlimit": _BEFORE,
    "quota": _BEFORE,
    "quota2": _BEFORE,
    "connbytes": _BEFORE,
    "connlimit": "how many connections there are decides",
    "rateest": "a measured rate decides",
    "recent": "who was seen before decides",
    "time": "the time of day decides",
    "cpu": "the CPU that it arrives on decides",
    "string": _BYTES,
    "bpf": "a program decides",
    "mac": "the sender's link address decides",
    "physdev": "the port of a bridge decides",
    "cgroup": "the sender's cgroup decides",
    "osf": "the sender's operating system decides",
    "set": "the members of an ipset decide, which are not read",
}
"""Why nobody can tell from the rule and the packet."""
_PACKET_TYPES: Final = {"unicast": 0, "broadcast": 1, "multicast": 2, "otherhost": 3}  # linux/if_packet.h


def read_match(group: str, v6: bool, cut: tuple[str, ...] = ()) -> tuple[Statement, ...]:
    """What follows `-m`, as statements; one that cannot be interpreted as Perhaps."""
    return _read(group, v6, cut) if cut else _remembered(group, v6)


@functools.lru_cache(maxsize=_GROUPS)
def _remembered(group: str, v6: bool) -> tuple[Statement, ...]:
    return _read(group, v6, ())


def _read(group: str, v6: bool, cut: tuple[str, ...]) -> tuple[Statement, ...]:
    name, _, rest = group.partition(" ")
    reader = _READERS.get(name)
    if reader is not None:
        try:
            return tuple(reader(options(rest, cut), V6 if v6 else V4))
        except (ValueError, KeyError):  # an option or a value of another version
            pass
    return (Perhaps(Opaque(f"-m {restored(group, cut)}", _CHANGING.get(name, _UNREAD))),)


def restored(group: str, cut: tuple[str, ...]) -> str:
    """With what was cut out, for a person to see."""
    for place, value in enumerate(cut):
        group = group.replace(f"\0{place}", value)
    return group


# ── Transport ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _ports_of(source: Field, destination: Field, option: Option) -> Match:
    match option.name:
        case "--sport" | "--source-port" | "--sports":
            return within(source, *ports(option.value), option.negated)
        case "--dport" | "--destination-port" | "--dports":
            return within(destination, *ports(option.value), option.negated)
    raise ValueError(option.name)


def _udp(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return [_ports_of(Field.UDP_SPORT, Field.UDP_DPORT, option) for option in given]


def _sctp(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return [_ports_of(Field.SCTP_SPORT, Field.SCTP_DPORT, option) for option in given]


def _other_transport(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return [_ports_of(Field.TH_SPORT, Field.TH_DPORT, option) for option in given]


def _tcp(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return [_of_tcp(option) for option in given]


def _of_tcp(option: Option) -> Statement:
    match option.name, option.values:
        case "--tcp-flags", (asked, wanted):
            return masked(Read(Field.TCP_FLAGS), bits_of(asked, FLAGS), bits_of(wanted, FLAGS), option.negated)
        case "--syn", ():
            return masked(Read(Field.TCP_FLAGS), bits_of("FIN,SYN,RST,ACK", FLAGS), FLAGS["SYN"], option.negated)
        case "--tcp-option", _:
            sign = "! " if option.negated else ""
            return Perhaps(Opaque(f"-m tcp {sign}--tcp-option {option.value}", "the packet's TCP options decide"))
    return _ports_of(Field.TCP_SPORT, Field.TCP_DPORT, option)


def _multiport(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    """`--ports`: the source's or the destination's; of the two, and of several options, all are asked."""
    found: list[Statement] = []
    for option in given:
        values = [ports(one) for one in option.value.split(",")]
        match option.name:
            case "--sports" | "--source-ports":
                found.append(among(Field.TH_SPORT, values, option.negated))
            case "--dports" | "--destination-ports":
                found.append(among(Field.TH_DPORT, values, option.negated))
            case "--ports":
                either = (among(Field.TH_SPORT, values, False), among(Field.TH_DPORT, values, False))
                found.append(AnyOf(either, option.negated))
            case _:
                raise ValueError(option.name)
    return found


def _icmp(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return _of_icmp(given, "--icmp-type", Field.ICMP_TYPE, Field.ICMP_CODE)


def _icmp6(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return _of_icmp(given, "--icmpv6-type", Field.ICMP6_TYPE, Field.ICMP6_CODE)


def _of_icmp(given: tuple[Option, ...], name: str, kind: Field, code: Field) -> list[Statement]:
    (option,) = given
    if option.name != name:
        raise ValueError(option.name)
    if option.value == "any":
        return [Match(Constant(0), Op.UNEQUAL if option.negated else Op.EQUAL, Constant(0))]
    wanted, slash, detail = option.value.partition("/")
    tests = [equals(kind, int(wanted), option.negated)]
    if slash:
        tests.append(equals(code, int(detail), option.negated))
    return [AnyOf(tuple(tests))] if option.negated and slash else [*tests]


# ── Of the packet and its buffer ───────────────────────────────────────────────────────────────────────────────────
def _mark(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return _marks(given, Field.MARK)


def _connmark(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    return _marks(given, Field.CT_MARK)  # a packet without a connection never matches: xt_connmark.c


def _marks(given: tuple[Option, ...], field: Field) -> list[Statement]:
    (option,) = given
    if option.name != "--mark":
        raise ValueError(option.name)
    return [marked(field, option.value, option.negated)]


def _comment(_: tuple[Option, ...], __: Fields) -> list[Statement]:
    return []


def _iprange(given: tuple[Option, ...], fields: Fields) -> list[Statement]:
    sides = {"--src-range": fields.source, "--dst-range": fields.destination}
    found: list[Statement] = []
    for option in given:
        first, _, last = option.value.partition("-")
        span = address(first, fields.v6), address(last or first, fields.v6)
        found.append(within(sides[option.name], *span, option.negated))
    return found


def _length(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    (option,) = given
    if option.name != "--length":
        raise ValueError(option.name)
    return [within(Field.LENGTH, *numbers(option.value, ":", 0xFFFF), option.negated)]


def _hops(given: tuple[Option, ...], fields: Fields) -> list[Statement]:
    (option,) = given
    operators = {"eq": Op.UNEQUAL if option.negated else Op.EQUAL, "lt": Op.LESS, "gt": Op.GREATER}
    operator = operators[option.name.removeprefix("--ttl-").removeprefix("--hl-")]
    return [Match(Read(fields.hops), operator, Constant(number(option.value)))]


def _dscp(given: tuple[Option, ...], fields: Fields) -> list[Statement]:
    (option,) = given
    if fields.v6 or option.name != "--dscp":
        raise ValueError(option.name)
    return [equals(Field.IP_DSCP, number(option.value), option.negated)]


def _pkttype(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    (option,) = given
    return [equals(Field.PKTTYPE, _PACKET_TYPES[option.value], option.negated)]


def _recent(given: tuple[Option, ...], _: Fields) -> list[Statement]:
    """`--set` only remembers the sender, and holds (net/netfilter/xt_recent.c); what else there is depends on who is
    remembered."""
    (remembers,) = (option for option in given if option.name == "--set")
    return [Match(Constant(0), Op.UNEQUAL, Constant(0))] if remembers.negated else []


_READERS: Final[dict[str, Reader]] = {
    "tcp": _tcp,
    "udp": _udp,
    "udplite": _other_transport,
    "dccp": _other_transport,
    "sctp": _sctp,
    "multiport": _multiport,
    "icmp": _icmp,
    "icmp6": _icmp6,
    "mark": _mark,
    "connmark": _connmark,
    "comment": _comment,
    "iprange": _iprange,
    "length": _length,
    "ttl": _hops,
    "hl": _hops,
    "dscp": _dscp,
    "pkttype": _pkttype,
    "recent": _recent,
    "owner": owner,
    "conntrack": conntrack,
    "state": connection_state,
    "addrtype": address_type,
    "socket": socket,
    "rpfilter": reverse_path,
}
