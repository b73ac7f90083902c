"""Addresses, and the return path (ip rule + ip route), inside the namespace that the calling thread is in.

Numbers are of linux/rtnetlink.h, linux/fib_rules.h, linux/if_addr.h and linux/if_link.h.
"""

import errno
import fcntl
import functools
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from agent.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    payloads,
)
from agent.kernel.refused import KernelRefused
from agent.plan import IPFamily, ReturnPath
from agent.plan.drift import Missing, Part

_RTM_NEWLINK: Final = 16
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34

_RTN_LOCAL: Final = 2
_RT_SCOPE_HOST: Final = 254
_RTPROT_STATIC: Final = 4
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_FR_ACT_TO_TBL: Final = 1
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD: Final = 0x02
_IFA_F_DADFAILED: Final = 0x08
_IFA_F_TENTATIVE: Final = 0x40
_IFF_UP: Final = 1

_LOOPBACK_INDEX: Final = 1  # net/core/dev.c: lo is the first device of each namespace (include/net/net_namespace.h)

_RTMSG: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_IFADDRMSG: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_SIOCGIFFLAGS: Final = 0x8913  # linux/sockios.h
_IFREQ: Final = struct.Struct("16sh14x")  # netdevice(7)
_IFINFOMSG: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_U32: Final = struct.Struct("=I")

_LOOPBACK_DISABLE_IPV6: Final = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")

_FAMILIES: Final = {IPFamily.IPV4: socket.AF_INET, IPFamily.IPV6: socket.AF_INET6}

_ABSENT: Final = frozenset({errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENODEV, errno.EPROTONOSUPPORT})
"""What the kernel answers when IPv6 is off: on lo by sysctl (EACCES, net/ipv6/route.c), or as a whole."""
_DUMPS: Final = 64
"""Remembered readings of the return path, 1 KB each."""


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One address of one interface. `tentative`: duplicate address detection has not ended (RFC 4862 5.4), so nobody
    may send from it yet; `duplicate`: it has ended badly."""

    address: IPv4Address | IPv6Address
    prefix_length: int
    interface: int
    tentative: bool
    duplicate: bool


@dataclass(frozen=True, slots=True)
class ReturnPathState:
    """Families whose return path is in place, and those that this namespace does not have, with the reason."""

    present: tuple[IPFamily, ...]
    absent: tuple[tuple[IPFamily, str], ...] = ()


def ensure_return_path(path: ReturnPath) -> ReturnPathState:
    """Sets lo up, and adds rule and route of each family; what is there already stays as it is.

    IPv6 switched off is no error: it is told in the result and nothing of it stays. Any other refusal takes back what
    this call added and raises KernelRefused: both families or none.
    """
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        steps = [(family, message) for family in path.families for message in _additions(path, family)]
        results = netlink.commit([_loopback_up(), *(message for _, message in steps)])
        added = [(family, message) for (family, message), number in zip(steps, results[1:], strict=True) if not number]
        failed = {f: n for (f, _), n in zip(steps, results[1:], strict=True) if n not in (0, errno.EEXIST)}
        absent = {f: n for f, n in failed.items() if f is IPFamily.IPV6 and n in _ABSENT}
        refused = results[0] or next((n for f, n in failed.items() if f not in absent), 0)
        undone = [message for family, message in added if refused or family in absent]
        if undone:
            netlink.commit([_opposite(message) for message in reversed(undone)])
    if refused:
        raise KernelRefused("ip rule/route of the return path", os.strerror(refused), _remedy(refused))
    present = tuple(family for family in path.families if family not in absent)
    return ReturnPathState(present, tuple((f, f"IPv6 is off here ({os.strerror(n)})") for f, n in absent.items()))


def remove_return_path(path: ReturnPath) -> None:
    """Takes rule and route of each family away; what is absent already is well. Raises KernelRefused.

    lo stays up: an application may by now rely on it, and it was the namespace's own business before.
    """
    messages = [_opposite(message) for family in path.families for message in reversed(_additions(path, family))]
    gone = {0, errno.ENOENT, errno.ESRCH, *_ABSENT}
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        refused = next((number for number in netlink.commit(messages) if number not in gone), 0)
    if refused:
        raise KernelRefused("ip rule/route del of the return path", os.strerror(refused), _remedy(refused))


def return_path_present(path: ReturnPath) -> bool:
    """True when rule and route of every family are there; IPv6 where it is off on lo counts as there."""
    return not missing_return_path(path)


def missing_return_path(path: ReturnPath) -> tuple[Missing, ...]:
    """What of the return path is not there; nothing of IPv6 where it is off on lo. Raises OSError."""
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        netlink.strict()
        dumped = tuple(part for family in path.families for part in _dumped(netlink, path, family))
    missing = _missing_in(path, dumped)
    if any(family is IPFamily.IPV6 for _, family in missing) and _ipv6_is_off():
        missing = tuple((part, family) for part, family in missing if family is not IPFamily.IPV6)
    return missing


def loopback_is_up() -> bool:
    """Of the calling thread's namespace. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _, flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
    return bool(flags & _IFF_UP)


def ensure_loopback_addresses(addresses: Iterable[IPv6Address]) -> tuple[IPv6Address, ...]:
    """Adds those that lo does not have, and returns them; none where IPv6 is off. Raises KernelRefused: none or all."""
    wanted = missing_loopback_addresses(addresses)
    messages = [_loopback_address(_RTM_NEWADDR, address) for address in wanted]
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        results = netlink.commit(messages)
        added = tuple(address for address, number in zip(wanted, results, strict=True) if not number)
        refused = next((number for number in results if number not in (0, errno.EEXIST, *_ABSENT)), 0)
        if refused:
            netlink.commit([_loopback_address(_RTM_DELADDR, address) for address in added])
            raise KernelRefused("ip address add on lo", os.strerror(refused), _remedy(refused))
    return added


def remove_loopback_addresses(addresses: Iterable[IPv6Address]) -> None:
    """What is absent already is well. Raises KernelRefused."""
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        results = netlink.commit([_loopback_address(_RTM_DELADDR, address) for address in addresses])
    refused = next((number for number in results if number not in (0, errno.EADDRNOTAVAIL, *_ABSENT)), 0)
    if refused:
        raise KernelRefused("ip address del on lo", os.strerror(refused), _remedy(refused))


def missing_loopback_addresses(addresses: Iterable[IPv6Address]) -> tuple[IPv6Address, ...]:
    """Those that lo does not have; none where IPv6 is off. Raises OSError."""
    wanted = tuple(addresses)
    if not wanted or _ipv6_is_off():
        return ()
    there = {found.address for found in read_interface_addresses() if found.interface == _LOOPBACK_INDEX}
    return tuple(address for address in wanted if address not in there)


def read_addresses() -> tuple[IPv4Address | IPv6Address, ...]:
    """All addresses of all interfaces of the namespace, loopback's and link-local ones included."""
    return tuple(found.address for found in read_interface_addresses())


def read_interface_addresses() -> tuple[InterfaceAddress, ...]:
    """As `read_addresses`, with prefix, interface and the state of duplicate address detection."""
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        objects = netlink.dump(Message(_RTM_GETADDR, 0, _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)))
    return tuple(found for data in objects if (found := _interface_address(data)) is not None)


def _interface_address(data: bytes) -> InterfaceAddress | None:
    family, prefix_length, flags, _, interface = _IFADDRMSG.unpack_from(data)
    found = attributes(data[_IFADDRMSG.size :])
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if raw is None or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if _IFA_FLAGS in found:
        (flags,) = _U32.unpack(found[_IFA_FLAGS])
    return InterfaceAddress(
        ip_address(raw), prefix_length, interface, bool(flags & _IFA_F_TENTATIVE), bool(flags & _IFA_F_DADFAILED)
    )


def _loopback_address(kind: int, address: IPv6Address) -> Message:
    """On the node's own interface, so that no other node is asked whether it has the address (IFA_F_NODAD)."""
    header = _IFADDRMSG.pack(socket.AF_INET6, address.max_prefixlen, _IFA_F_NODAD, _RT_SCOPE_HOST, _LOOPBACK_INDEX)
    flags = NLM_F_CREATE | NLM_F_EXCL if kind == _RTM_NEWADDR else 0
    return Message(kind, flags, header + attribute(_IFA_LOCAL, address.packed))


def _loopback_up() -> Message:
    """A route through lo needs it up, and a fresh namespace has it down."""
    return Message(_RTM_NEWLINK, 0, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, _LOOPBACK_INDEX, _IFF_UP, _IFF_UP))


def _additions(path: ReturnPath, family: IPFamily) -> list[Message]:
    number = _FAMILIES[family]
    # Route first: a rule without its route would send the marked packets to the default gateway.
    route = _RTMSG.pack(number, 0, 0, 0, _short(path.table), _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL, 0)
    route += attribute(_RTA_TABLE, _U32.pack(path.table)) + attribute(_RTA_OIF, _U32.pack(_LOOPBACK_INDEX))
    # struct fib_rule_hdr has rtmsg's layout; its action stands where rtmsg has the type.
    rule = _RTMSG.pack(number, 0, 0, 0, _short(path.table), 0, 0, _FR_ACT_TO_TBL, 0)
    rule += attribute(_FRA_PRIORITY, _U32.pack(path.preference)) + attribute(_FRA_FWMARK, _U32.pack(path.mark))
    rule += attribute(_FRA_FWMASK, _U32.pack(path.mask)) + attribute(_FRA_TABLE, _U32.pack(path.table))
    return [
        Message(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route),
        Message(_RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule),
    ]


def _short(table: int) -> int:
    """The one-byte table field; RT_TABLE_UNSPEC when the number does not fit and stands in the attribute only."""
    return table if table < 256 else 0


def _opposite(addition: Message) -> Message:
    return Message({_RTM_NEWROUTE: _RTM_DELROUTE, _RTM_NEWRULE: _RTM_DELRULE}[addition.kind], 0, addition.payload)


def _dumped(netlink: Netlink, path: ReturnPath, family: IPFamily) -> Iterator[bytes]:
    """The family's policy rules, and the table's routes."""
    rules = _RTMSG.pack(_FAMILIES[family], 0, 0, 0, 0, 0, 0, 0, 0)
    routes = _RTMSG.pack(_FAMILIES[family], 0, 0, 0, _short(path.table), 0, 0, 0, 0)
    routes += attribute(_RTA_TABLE, _U32.pack(path.table))
    for message in (Message(_RTM_GETRULE, 0, rules), Message(_RTM_GETROUTE, 0, routes)):
        try:
            yield netlink.dump_whole(message)
        except OSError as error:
            # ENOENT: a table in which there never was a route (net/ipv4/fib_frontend.c: inet_dump_fib).
            if error.errno != errno.ENOENT and error.errno not in _ABSENT:
                raise
            yield b""


@functools.lru_cache(maxsize=_DUMPS)
def _missing_in(path: ReturnPath, dumped: tuple[bytes, ...]) -> tuple[Missing, ...]:
    """Remembered by the bytes: what equal pods hold is equal, and is read again each minute."""
    missing: list[Missing] = []
    for number, family in enumerate(path.families):
        rules, routes = dumped[2 * number : 2 * number + 2]
        if not any(_is_rule(data, path) for data in payloads(rules)):
            missing.append((Part.RULE, family))
        if not any(_is_route(data, path) for data in payloads(routes)):
            missing.append((Part.ROUTE, family))
    return tuple(missing)


def _ipv6_is_off() -> bool:
    """/proc/sys/net shows the reading thread's namespace (proc_sysctl.c: net_ctl_header_lookup)."""
    try:
        return _LOOPBACK_DISABLE_IPV6.read_text().strip() != "0"
    except FileNotFoundError:
        return True


def _is_rule(data: bytes, path: ReturnPath) -> bool:
    _, dst_len, src_len, tos, _, _, _, action, flags = _RTMSG.unpack_from(data)
    found = attributes(data[_RTMSG.size :])
    wanted = {
        _FRA_PRIORITY: path.preference,
        _FRA_FWMARK: path.mark,
        _FRA_FWMASK: path.mask,
        _FRA_TABLE: path.table,
    }
    plain = (dst_len, src_len, tos, action, flags) == (0, 0, 0, _FR_ACT_TO_TBL, 0)
    return plain and all(found.get(kind) == _U32.pack(value) for kind, value in wanted.items())


def _is_route(data: bytes, path: ReturnPath) -> bool:
    _, dst_len, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(data)
    found = attributes(data[_RTMSG.size :])
    return (
        (dst_len, kind) == (0, _RTN_LOCAL)
        and _RTA_DST not in found
        and found.get(_RTA_TABLE) == _U32.pack(path.table)
        and found.get(_RTA_OIF) == _U32.pack(_LOOPBACK_INDEX)
    )


def _remedy(number: int) -> str:
    if number == errno.EPERM:
        return "the agent needs CAP_NET_ADMIN in the pod's user namespace"
    return "compare `ip rule` and `ip route show table all` inside the pod's namespace"
