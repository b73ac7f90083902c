"""Targets of iptables (`-j NAME …`) as statements. Pure.

What a target does is in the kernel's net/netfilter/xt_NAME.c; all but the verdicts, REJECT, NAT and TPROXY go on with
the next rule.
"""

import functools
from collections.abc import Callable
from typing import Final

from agent.explain.iptables_matches import restored
from agent.explain.iptables_options import Option, options
from agent.explain.iptables_values import ALL_BITS, V4, V6, Fields, address, mark, number, port
from agent.explain.statements import (
    ACCEPT,
    DROP,
    Bits,
    Constant,
    Decision,
    Expression,
    Field,
    Nat,
    NatKind,
    NoEffect,
    Notrack,
    Opaque,
    Read,
    Reject,
    Set,
    Statement,
    Tproxy,
    Unread,
    Verdict,
    Xored,
)

Given = dict[str, tuple[str, ...]]
Reader = Callable[[Given, Fields], list[Statement]]

_TARGETS: Final = 4096
_UNREAD: Final = "this version does not interpret the target"
_SILENT: Final = frozenset(
    {"LOG", "NFLOG", "ULOG", "TRACE", "TCPMSS", "CLASSIFY", "AUDIT", "CHECKSUM", "ECN", "TEE", "IDLETIMER", "LED"}
    | {"SECMARK", "CONNSECMARK", "RATEEST", "TCPOPTSTRIP", "HL"}
)
"""What they do is of no influence on the packet's way."""
_DEFAULT_REJECTS: Final = {False: "icmp-port-unreachable", True: "icmp6-port-unreachable"}
_ANY_ADDRESS: Final = 0


def read_target(group: str, v6: bool, cut: tuple[str, ...] = ()) -> tuple[Statement, ...]:
    """What follows `-j`, of what is no chain, as statements; what cannot be interpreted as Unread."""
    return _read(group, v6, cut) if cut else _remembered(group, v6)


@functools.lru_cache(maxsize=_TARGETS)
def _remembered(group: str, v6: bool) -> tuple[Statement, ...]:
    return _read(group, v6, ())


def _read(group: str, v6: bool, cut: tuple[str, ...]) -> tuple[Statement, ...]:
    name, _, rest = group.partition(" ")
    text = f"-j {restored(group, cut)}"
    if name in _SILENT:
        return (NoEffect(text),)
    reader = _READERS.get(name)
    if reader is not None:
        try:
            return tuple(reader(_given(options(rest, cut)), V6 if v6 else V4))
        except (ValueError, KeyError):  # an option or a value of another version
            pass
    return (Unread(Opaque(text, _UNREAD)),)


def _given(found: tuple[Option, ...]) -> Given:
    """By name. Raises ValueError for what no target has."""
    if any(option.negated for option in found):
        raise ValueError(found)
    return {option.name: option.values for option in found}


def _one(given: Given, name: str) -> str:
    (value,) = given[name]
    return value


def _only(given: Given, *names: str) -> None:
    if strange := given.keys() - set(names):
        raise ValueError(strange)


# ── Verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _accept(given: Given, _: Fields) -> list[Statement]:
    _only(given)
    return [ACCEPT]


def _drop(given: Given, _: Fields) -> list[Statement]:
    _only(given)
    return [DROP]


def _return(given: Given, _: Fields) -> list[Statement]:
    _only(given)
    return [Verdict(Decision.RETURN)]


def _queue(_: Given, __: Fields) -> list[Statement]:
    return [Verdict(Decision.QUEUE)]


def _reject(given: Given, fields: Fields) -> list[Statement]:
    _only(given, "--reject-with")
    if "--reject-with" not in given:
        return [Reject(_DEFAULT_REJECTS[fields.v6])]
    return [Reject(_one(given, "--reject-with"))]


# ── Addresses and ports ────────────────────────────────────────────────────────────────────────────────────────────
def _redirect(given: Given, _: Fields) -> list[Statement]:
    _only(given, "--to-ports", "--random", "--random-fully")
    return [_to_ports(NatKind.REDIRECT, given)]


def _masquerade(given: Given, _: Fields) -> list[Statement]:
    _only(given, "--to-ports", "--random", "--random-fully")
    return [_to_ports(NatKind.MASQUERADE, given)]


def _to_ports(kind: NatKind, given: Given) -> Nat:
    if "--to-ports" not in given:
        return Nat(kind)
    first, ranged = _port_range(_one(given, "--to-ports"))
    return Nat(kind, port=first, ranged=ranged)


def _dnat(given: Given, fields: Fields) -> list[Statement]:
    _only(given, "--to-destination", "--random", "--persistent")
    return [_translated(NatKind.DNAT, _one(given, "--to-destination"), fields)]


def _snat(given: Given, fields: Fields) -> list[Statement]:
    _only(given, "--to-source", "--random", "--random-fully", "--persistent")
    return [_translated(NatKind.SNAT, _one(given, "--to-source"), fields)]


def _translated(kind: NatKind, text: str, fields: Fields) -> Nat:
    """`A`, `A-B`, `A:PORT`, `A-B:PORT-PORT`, `:PORT`; of IPv6 in brackets when a port follows."""
    if fields.v6 and text.startswith("["):
        addresses, _, behind = text[1:].partition("]")
        ports = behind.removeprefix(":")
    elif (fields.v6 and not text.startswith(":")) or (fields.v6 and text.count(":") > 1):
        addresses, ports = text, ""
    else:
        addresses, _, ports = text.partition(":")
    first, _, last = addresses.partition("-")
    to_port, ports_ranged = _port_range(ports) if ports else (None, False)
    return Nat(
        kind,
        Constant(address(first, fields.v6)) if first else None,
        to_port,
        ports_ranged or bool(last and last != first),
    )


def _port_range(text: str) -> tuple[Expression, bool]:
    """The first port, and whether there are more."""
    span, shifted, _ = text.partition("/")
    first, _, last = span.partition("-")
    if shifted:
        return Opaque(text, "the port is shifted by as much as the packet's is from another"), True
    return Constant(port(first)), bool(last and last != first)


def _tproxy(given: Given, fields: Fields) -> list[Statement]:
    """Without a transparent socket there the packet is dropped; with one it is accepted, and bears the mark
    (net/netfilter/xt_TPROXY.c)."""
    _only(given, "--on-port", "--on-ip", "--tproxy-mark")
    found: list[Statement] = []
    value, mask = mark(_one(given, "--tproxy-mark")) if "--tproxy-mark" in given else (0, 0)
    if mask:
        found.append(_mixed(Field.MARK, value, mask))
    to = address(_one(given, "--on-ip"), fields.v6) if "--on-ip" in given else _ANY_ADDRESS
    to_port = port(_one(given, "--on-port"))
    found.append(Tproxy(Constant(to) if to else None, Constant(to_port) if to_port else None, ends=True))
    return found


# ── Marks and what else is written ─────────────────────────────────────────────────────────────────────────────────
def _mark(given: Given, _: Fields) -> list[Statement]:
    return [_set_mark(Field.MARK, given)]


def _connmark(given: Given, _: Fields) -> list[Statement]:
    if "--save-mark" in given:
        return [_copied(given, Field.CT_MARK, Field.MARK, "--ctmask", "--nfmask")]
    if "--restore-mark" in given:
        return [_copied(given, Field.MARK, Field.CT_MARK, "--nfmask", "--ctmask")]
    return [_set_mark(Field.CT_MARK, given)]


def _set_mark(field: Field, given: Given) -> Statement:
    ((word, values),) = given.items()
    (text,) = values
    value, mask = mark(text)
    match word:
        case "--set-xmark":
            return _mixed(field, value, mask)
        case "--set-mark":
            return _mixed(field, value, mask | value)
        case "--and-mark":
            return _mixed(field, 0, ~value & ALL_BITS)
        case "--or-mark":
            return _mixed(field, value, value)
        case "--xor-mark":
            return _mixed(field, value, 0)
    raise ValueError(word)


def _mixed(field: Field, value: int, mask: int) -> Set:
    """(mark & ~mask) ^ value."""
    if mask == ALL_BITS:
        return Set(field, Constant(value))
    return Set(field, Bits(Read(field), ~mask & ALL_BITS, value))


def _copied(given: Given, to: Field, of: Field, to_option: str, of_option: str) -> Set:
    """(to & ~its mask) ^ (of & its mask)."""
    _only(given, "--save-mark", "--restore-mark", "--mask", "--nfmask", "--ctmask")
    both = given.get("--mask", (hex(ALL_BITS),))
    (to_mask,), (of_mask,) = given.get(to_option, both), given.get(of_option, both)
    kept, taken = ~number(to_mask) & ALL_BITS, number(of_mask)
    right = Read(of) if taken == ALL_BITS else Bits(Read(of), taken)
    return Set(to, Xored(Bits(Read(to), kept), right) if kept else right)


def _ct(given: Given, _: Fields) -> list[Statement]:
    """`--zone-orig` counts for packets of the connection's own direction; of the other, replies are found by it."""
    _only(
        given,
        "--notrack",
        "--zone",
        "--zone-orig",
        "--zone-reply",
        "--helper",
        "--ctevents",
        "--expevents",
        "--timeout",
    )
    if "--notrack" in given:
        return [Notrack()]
    zone = given.get("--zone") or given.get("--zone-orig")
    if zone is None:
        return [NoEffect(f"-j CT {' '.join(given)}")]
    (text,) = zone
    return [Set(Field.CT_ZONE, Bits(Read(Field.MARK), 0xFFFF) if text == "mark" else Constant(number(text)))]


def _notrack(given: Given, _: Fields) -> list[Statement]:
    _only(given)
    return [Notrack()]


def _set(given: Given, _: Fields) -> list[Statement]:
    """Into an ipset; a map's elements can write the mark."""
    if "--map-mark" in given:
        return [Set(Field.MARK, Opaque(f"-j SET {' '.join(given)}", "an element of an ipset decides"))]
    return [NoEffect(f"-j SET {' '.join(given)}")]


def _hmark(_: Given, __: Fields) -> list[Statement]:
    return [Set(Field.MARK, Opaque("-j HMARK", "a hash of the packet decides"))]


def _ttl(given: Given, _: Fields) -> list[Statement]:
    _only(given, "--ttl-set", "--ttl-inc", "--ttl-dec")
    if "--ttl-set" in given:
        return [Set(Field.IP_TTL, Constant(number(_one(given, "--ttl-set"))))]
    return [Set(Field.IP_TTL, Opaque("-j TTL", "what it was decides"))]


def _dscp(given: Given, fields: Fields) -> list[Statement]:
    _only(given, "--set-dscp")
    value = number(_one(given, "--set-dscp"))
    return [NoEffect(f"-j DSCP --set-dscp {value:#x}") if fields.v6 else Set(Field.IP_DSCP, Constant(value))]


def _tos(given: Given, fields: Fields) -> list[Statement]:
    _only(given, "--set-tos")
    value, mask = mark(_one(given, "--set-tos"))
    if fields.v6:
        return [NoEffect(f"-j TOS --set-tos {value:#x}/{mask & 0xFF:#x}")]
    return [Set(Field.IP_DSCP, Bits(Read(Field.IP_DSCP), ~(mask >> 2) & 0x3F, value >> 2))]


_READERS: Final[dict[str, Reader]] = {
    "ACCEPT": _accept,
    "DROP": _drop,
    "RETURN": _return,
    "QUEUE": _queue,
    "NFQUEUE": _queue,
    "REJECT": _reject,
    "REDIRECT": _redirect,
    "MASQUERADE": _masquerade,
    "DNAT": _dnat,
    "SNAT": _snat,
    "TPROXY": _tproxy,
    "MARK": _mark,
    "CONNMARK": _connmark,
    "CT": _ct,
    "NOTRACK": _notrack,
    "SET": _set,
    "HMARK": _hmark,
    "TTL": _ttl,
    "DSCP": _dscp,
    "TOS": _tos,
}
