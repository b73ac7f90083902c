"""Policy rules, the routes of our table and what lo has besides its own addresses, of the calling thread's namespace.

Numbers are of linux/rtnetlink.h and linux/fib_rules.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from agent.kernel import iproute
from agent.kernel.netlink import Message, Netlink, attributes
from agent.ruleset.inventory import HEADGATE, UNKNOWN, PolicyRule, Routing, TableRoute
from agent.ruleset.whose import AMBIENT
from proxy.api import constants

_RTM_GETROUTE, _RTM_GETRULE = 26, 34
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_U32: Final = struct.Struct("=I")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 6, 10
_FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME = 15, 16, 17
_FIB_RULE_INVERT: Final = 2
_KERNELS_OWN: Final = frozenset({0, 32766, 32767})  # net/ipv4/fib_rules.c: fib_default_rules_init
_TABLES: Final = {253: "default", 254: "main", 255: "local"}
_KINDS: Final = {1: "", 2: "local ", 3: "broadcast ", 6: "blackhole ", 7: "unreachable ", 8: "prohibit "}
_RTPROT_BOOT: Final = 3
_PROTOCOLS: Final = {2: "kernel", 4: "static", 9: "ra"}
_ACTIONS: Final = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
_FAMILIES: Final = (("ip", socket.AF_INET, 32), ("ip6", socket.AF_INET6, 128))
_NONE: Final = frozenset({errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""A table that there never was (net/ipv4/fib_frontend.c: inet_dump_fib), a family that there is not."""

OUR_RULE: Final = f"from all fwmark {constants.RETURN_MARK:#x}/{constants.MARK_MASK:#x} lookup {constants.RETURN_TABLE}"
OUR_ROUTE: Final = "local default dev lo proto static"
"""agent.kernel.iproute makes it so; the same by hand is `proto boot`, which ip-route(8) does not print."""


def read(makers: frozenset[str]) -> Routing:
    """`makers`: everybody who holds rules here. Istio ambient's return path is ours to the letter, whose numbers
    come from there (istio cni/pkg/iptables): beside its rules the path is its own. Raises OSError."""
    whose = AMBIENT if AMBIENT in makers else HEADGATE
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        netlink.strict()
        rules = tuple(rule for family in _FAMILIES for rule in _rules(netlink, *family))
        routes = tuple(route for family in _FAMILIES for route in _routes(netlink, *family))
    return Routing(
        tuple(replace(rule, whose=whose) if _is_our_rule(rule) else rule for rule in rules),
        tuple(replace(route, whose=whose) if route.text == OUR_ROUTE else route for route in routes),
        _loopback_addresses(),
    )


def _is_our_rule(rule: PolicyRule) -> bool:
    return rule.preference == constants.RETURN_RULE_PREFERENCE and rule.text == OUR_RULE


def _loopback_addresses() -> tuple[str, ...]:
    found = (a.address for a in iproute.read_interface_addresses() if a.interface == 1)
    return tuple(str(address) for address in found if not address.is_loopback)


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _rules(netlink: Netlink, name: str, family: int, bits: int) -> Iterator[PolicyRule]:
    for data in _dump(netlink, _RTM_GETRULE, family):
        _, dst_len, src_len, _, table, _, _, action, flags = _RTMSG.unpack_from(data)
        found = attributes(data[_RTMSG.size :])
        preference = _number(found, _FRA_PRIORITY)
        if preference not in _KERNELS_OWN:
            text = _rule_text(found, src_len, dst_len, bits)
            leads = f"lookup {_table(found, _FRA_TABLE, table)}" if action == 1 else _ACTIONS.get(action, "?")
            yield PolicyRule(name, preference, f"{'not ' if flags & _FIB_RULE_INVERT else ''}{text} {leads}", UNKNOWN)


def _rule_text(found: dict[int, bytes], src_len: int, dst_len: int, bits: int) -> str:
    parts = [f"from {_prefix(found.get(_FRA_SRC), src_len, bits, 'all')}"]
    if _FRA_DST in found:
        parts.append(f"to {_prefix(found[_FRA_DST], dst_len, bits, 'all')}")
    if _FRA_FWMARK in found:
        mask = _number(found, _FRA_FWMASK)
        parts.append(f"fwmark {_number(found, _FRA_FWMARK):#x}" + ("" if mask == 0xFFFFFFFF else f"/{mask:#x}"))
    for kind, word in ((_FRA_IIFNAME, "iif"), (_FRA_OIFNAME, "oif")):
        if kind in found:
            parts.append(f"{word} {found[kind].rstrip(bytes(1)).decode('utf-8', 'replace')}")
    return " ".join(parts)


# ── Routes of our table ────────────────────────────────────────────────────────────────────────────────────────────
def _routes(netlink: Netlink, name: str, family: int, bits: int) -> Iterator[TableRoute]:
    table = constants.RETURN_TABLE
    for data in _dump(netlink, _RTM_GETROUTE, family, table):
        _, dst_len, _, _, short, protocol, _, kind, _ = _RTMSG.unpack_from(data)
        found = attributes(data[_RTMSG.size :])
        if (_number(found, _RTA_TABLE) or short) != table:
            continue  # a kernel without strict checking dumps all tables
        text = f"{_KINDS.get(kind, '?')}{_prefix(found.get(_RTA_DST), dst_len, bits, 'default')}"
        if _RTA_GATEWAY in found:
            text += f" via {ip_address(found[_RTA_GATEWAY])}"
        if _RTA_OIF in found:
            text += f" dev {_interface(_number(found, _RTA_OIF))}"
        if protocol != _RTPROT_BOOT:
            text += f" proto {_PROTOCOLS.get(protocol, protocol)}"
        yield TableRoute(name, text, UNKNOWN)


def _dump(netlink: Netlink, kind: int, family: int, table: int = 0) -> list[bytes]:
    payload = _RTMSG.pack(family, 0, 0, 0, table, 0, 0, 0, 0)
    try:
        return netlink.dump(Message(kind, 0, payload))
    except OSError as error:
        if error.errno in _NONE:
            return []
        raise


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"if{index}"


def _table(found: dict[int, bytes], kind: int, short: int) -> str:
    number = _number(found, kind) or short
    return _TABLES.get(number, str(number))


def _prefix(raw: bytes | None, length: int, bits: int, absent: str) -> str:
    if raw is None:
        return absent
    return str(ip_address(raw)) if length == bits else f"{ip_address(raw)}/{length}"


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(_U32.unpack(found[kind])[0]) if kind in found else 0
