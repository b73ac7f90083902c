"""Routes, sockets and addresses of the namespace that the calling thread is in, as agent.explain asks for them.

Each answer is the kernel's own to a question about one packet: no table is read and judged here.
"""

import errno
import socket
import struct
from functools import cached_property
from pathlib import Path
from typing import Final

from agent.explain.packet import TCP, UDP
from agent.explain.surroundings import Asked, Connection, Ends, NoSocket, Route, RouteKind, Socket
from agent.kernel import conntrack
from agent.kernel.conntrack import Tuple
from agent.kernel.fib import Interfaces, decide, interfaces
from agent.kernel.iproute import InterfaceAddress, read_interface_addresses
from agent.kernel.netlink import Message, Netlink, attributes
from agent.pods import IPAddress

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_MARK, _SOCKOPT = 15, 22  # linux/inet_diag.h: INET_DIAG_*
_TRANSPARENT: Final = 1 << 5  # struct inet_diag_sockopt, first byte
# struct inet_diag_req_v2: family, protocol, extensions, states, inet_diag_sockid with any cookie (INET_DIAG_NOCOOKIE)
_REQUEST: Final = struct.Struct("=BBxxI2s2s16s16sIQ")
_ANSWER: Final = struct.Struct("=BBBB2s2s16s16sIQIIIII")  # struct inet_diag_msg
_ANY_COOKIE: Final = (1 << 64) - 1
_ALL_STATES: Final = 0xFFFFFFFF
_IPV6: Final = Path("/proc/sys/net/ipv6/conf")
"""The reading thread's namespace's (proc_sysctl.c: net_ctl_header_lookup)."""


class KernelSurroundings:
    """Use it on the thread that made it, and on one question: interfaces and addresses are read once. Every method
    raises OSError when the kernel refuses to tell (CAP_NET_ADMIN is needed for marks alone)."""

    def route(self, asked: Asked, /) -> Route | None:
        with Netlink(socket.NETLINK_ROUTE) as netlink:
            found = decide(netlink, asked, self._interfaces)
        if found is None or asked.arrives_on is None or found.kind is not RouteKind.UNICAST:
            return found
        # Asked about IPv6 the kernel routes whether it forwards or not (ip6_output.c: ip6_forward decides that).
        stays = asked.destination.version == 6 and not _forwards6(asked.arrives_on)
        return Route(RouteKind.NONE) if stays else found

    def socket(self, ends: Ends, /) -> Socket | NoSocket | None:
        if ends.protocol not in (TCP, UDP) or ends.destination_port is None:
            return NoSocket()  # netfilter looks for no others (nf_socket_ipv4.c)
        try:
            with Netlink(_NETLINK_SOCK_DIAG) as netlink:
                return _socket(netlink.ask(Message(_SOCK_DIAG_BY_FAMILY, 0, _who_gets(ends))))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return NoSocket()
            raise

    def connection(self, ends: Ends, zone: int, /) -> Connection | None:
        if ends.protocol not in (TCP, UDP) or ends.source_port is None or ends.destination_port is None:
            return None
        sent = Tuple(ends.source, ends.source_port, ends.destination, ends.destination_port)
        # Asked for one tuple the kernel finds the entry of either direction (nf_conntrack_core.c: __nf_conntrack_find).
        entry = conntrack.find(sent, zone=zone, protocol=ends.protocol)
        if entry is None:
            return None
        other = entry.reply if entry.original == sent else entry.original
        return Connection(
            other.destination, other.destination_port, other.source, other.source_port, entry.original != sent
        )

    def addresses(self, interface: str, /) -> tuple[IPAddress, ...] | None:
        """In the kernel's own order: primary ones first, of IPv6 the widest scope first (net/ipv6/addrconf.c:
        ipv6_link_dev_addr); without those that may not be used yet."""
        number = self._interfaces.numbers.get(interface)
        if number is None:
            return None
        return tuple(one.address for one in self._addresses if one.interface == number and not one.tentative)

    @cached_property
    def _interfaces(self) -> Interfaces:
        return interfaces()

    @cached_property
    def _addresses(self) -> tuple[InterfaceAddress, ...]:
        return read_interface_addresses()


def _forwards6(interface: str) -> bool:
    """net/ipv6/ip6_output.c: ip6_forward."""
    for name, key in (("all", "forwarding"), (interface, "force_forwarding")):
        try:
            if (_IPV6 / name / key).read_text().strip() != "0":
                return True
        except OSError:
            continue  # force_forwarding: since Linux 6.17
    return False


def _who_gets(ends: Ends) -> bytes:
    """TCP's look-up takes the local end first, UDP's the remote one (net/ipv4/udp_diag.c: udp_dump_one)."""
    local = ((ends.destination_port or 0).to_bytes(2, "big"), ends.destination.packed)
    remote = ((ends.source_port or 0).to_bytes(2, "big"), ends.source.packed)
    first, second = (local, remote) if ends.protocol == TCP else (remote, local)
    family = socket.AF_INET if ends.destination.version == 4 else socket.AF_INET6
    return _REQUEST.pack(
        family, ends.protocol, _ALL_STATES, first[0], second[0], first[1], second[1], 0, _ANY_COOKIE
    )  # fmt: skip


def _socket(data: bytes) -> Socket:
    bound = _ANSWER.unpack_from(data)[6]
    found = attributes(data[_ANSWER.size :])
    mark = struct.unpack("=I", found[_MARK])[0] if _MARK in found else 0
    options = found.get(_SOCKOPT, b"\0")[0]
    return Socket(mark, bool(options & _TRANSPARENT), not any(bound))
