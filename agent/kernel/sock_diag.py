"""TCP sockets of the namespace that the calling thread is in, by sock_diag(7).

Numbers are of linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
"""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from agent.kernel.netlink import Message, Netlink, attributes
from agent.plan import FlowKey, FlowTuple
from agent.pods import IPAddress
from proxy.api.constants import PROXY_PORTS

_NETLINK_SOCK_DIAG: Final = 4
_TCPDIAG_GETSOCK: Final = 18
_SOCK_DESTROY: Final = 21
_INET_DIAG_MARK: Final = 15

_LISTEN: Final = 10
# ESTABLISHED 1, SYN_SENT 2, SYN_RECV 3, FIN_WAIT1 4, FIN_WAIT2 5, CLOSE_WAIT 8, LAST_ACK 9, CLOSING 11
_LIVING: Final = (1, 2, 3, 4, 5, 8, 9, 11)

# struct inet_diag_req: family (not read), lengths of addresses, extensions, struct inet_diag_sockid (all zero: any),
# states, tables. The older of two requests, because it alone asks for both families at once (inet_diag.c:
# inet_diag_dump_compat): each reading walks the whole machine's table of connections, 0.19 ms at its 262,144 buckets.
_REQUEST: Final = struct.Struct("=4x48xII")
# struct inet_diag_msg: family, state, timer, retransmits, source and destination port (network order), addresses,
# interface, cookie, expires, receive and send queue, uid, inode
_ANSWER: Final = struct.Struct("=BBBB2s2s16s16sIQIIIII")

# struct inet_diag_req_v2: family, protocol, extensions, padding, states, and inet_diag_sockid: ports and addresses in
# network order, interface, cookie (all ones: any, INET_DIAG_NOCOOKIE).
_ONE: Final = struct.Struct("=BBxxI2s2s16s16sIQ")
_ANY_COOKIE: Final = (1 << 64) - 1
_AT_ONCE: Final = 100
"""Requests in one send: each answer takes a kilobyte of the receive buffer (net.core.rmem_default, 212,992), and they
all come before the send returns."""

_PROXY_LISTENERS: Final = 2 * len(PROXY_PORTS)
"""One a port and family (DESIGN 6)."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket. An unspecified IPv6 address may also take IPv4: assume that it does.

    `mark` is its SO_MARK (the proxy's own listeners carry one), None when the kernel did not tell; `uid`, of who made
    it.
    """

    address: IPAddress
    port: int
    inode: int
    mark: int | None = None
    uid: int = 0


def established() -> tuple[FlowTuple, ...]:
    """The living TCP connections: every state from SYN_SENT to LAST_ACK.

    Not TIME_WAIT: nothing of the application's is in it any more, and there may be 28,000 of them. Raises OSError.

    A pod in which nothing runs yet is told without the walk through the machine's table (0.6 to 3 ms when its buckets
    are in no cache; this 0.1 ms): where no socket but the proxy's listeners is in use there is no connection, but for
    handshakes with those listeners, which are outside nobody's mesh.
    """
    if (in_use := _in_use()) <= _PROXY_LISTENERS:
        listening = tuple(listeners())
        if len(listening) == in_use and all(listener.port in PROXY_PORTS for listener in listening):
            return ()
    return tuple(
        FlowTuple(local, local_port, remote, remote_port, _mark(data), uid)
        for (local, local_port, remote, remote_port, uid, _), data in _dump(_LIVING)
    )


def is_spoken_with(ports: frozenset[int]) -> bool:
    """Whether a living connection, or a handshake, has its local end at one of `ports`. Raises OSError."""
    return any(local_port in ports for (_, local_port, *_), _ in _dump(_LIVING))


def listeners() -> tuple[Listener, ...]:
    """The listening TCP sockets. Who holds one: `socket_owners.owner_of`, asked only when somebody wants to know.
    Raises OSError."""
    found = _dump((_LISTEN,))
    return tuple(Listener(local, port, inode, _mark(data), uid) for (local, port, _, _, uid, inode), data in found)


def datagram_ports() -> frozenset[int]:
    """UDP ports that a socket of the namespace is bound to (net/ipv4/udp.c: udp4_format_sock). Raises OSError."""
    ports: set[int] = set()
    for table in ("udp", "udp6"):
        try:
            lines = Path(f"/proc/thread-self/net/{table}").read_bytes().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        ports.update(int(line.split()[1].rpartition(b":")[2], 16) for line in lines)
    return frozenset(ports)


def destroy(flows: Iterable[FlowKey]) -> frozenset[FlowKey]:
    """Ends connections at their local sockets: the application reads ECONNABORTED, its peer is sent a reset.

    Returned are those that this kernel cannot end (CONFIG_INET_DIAG_DESTROY is off); one that has ended meanwhile is no
    failure. Raises OSError.
    """
    left: set[FlowKey] = set()
    with Netlink(_NETLINK_SOCK_DIAG) as netlink:
        waiting = iter(sorted(flows, key=str))
        while some := tuple(itertools.islice(waiting, _AT_ONCE)):
            results = netlink.commit([Message(_SOCK_DESTROY, 0, _named(flow)) for flow in some])
            for flow, number in zip(some, results, strict=True):
                if number in (errno.EOPNOTSUPP, errno.EINVAL):  # EINVAL: before Linux 4.5, which knows no such message
                    left.add(flow)
                elif number not in (0, errno.ENOENT):
                    raise OSError(number, f"SOCK_DESTROY: {os.strerror(number)}")
    return frozenset(left)


def _named(flow: FlowKey) -> bytes:
    local, local_port, remote, remote_port = flow
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    return _ONE.pack(
        family,
        socket.IPPROTO_TCP,
        sum(1 << state for state in _LIVING),
        local_port.to_bytes(2, "big"),
        remote_port.to_bytes(2, "big"),
        local.packed,
        remote.packed,
        0,
        _ANY_COOKIE,
    )


def _in_use() -> int:
    """TCP sockets of the namespace, listening ones and those of connections (net/ipv4/proc.c: sockstat_seq_show). Not
    told are TIME_WAIT, and handshakes that a listener has not completed."""
    total = 0
    for table, name in ((b"sockstat", b"TCP:"), (b"sockstat6", b"TCP6:")):
        try:
            fd = os.open(b"/proc/thread-self/net/" + table, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a kernel without IPv6
            continue
        try:
            words = os.read(fd, 4096).split()
        finally:
            os.close(fd)
        total += int(words[words.index(name) + 2])  # "TCP: inuse 4"
    return total


_Answer = tuple[IPAddress, int, IPAddress, int, int, int]
"""Addresses and ports, user, inode."""


def _dump(states: tuple[int, ...]) -> Iterator[tuple[_Answer, bytes]]:
    bits = sum(1 << state for state in states)
    with Netlink(_NETLINK_SOCK_DIAG) as netlink:
        for data in netlink.dump(Message(_TCPDIAG_GETSOCK, 0, _REQUEST.pack(bits, 0))):
            yield _read(data), data


def _read(data: bytes) -> _Answer:
    family, _, _, _, sport, dport, source, destination, *_, uid, inode = _ANSWER.unpack_from(data)
    length = 4 if family == socket.AF_INET else 16
    return (
        _plain(source[:length]),
        int.from_bytes(sport, "big"),
        _plain(destination[:length]),
        int.from_bytes(dport, "big"),
        uid,
        inode,
    )


def _plain(raw: bytes) -> IPAddress:
    """An IPv4 connection of an IPv6 socket (::ffff:a.b.c.d) is IPv4 to netfilter, so to us."""
    address = ip_address(raw)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _mark(data: bytes) -> int | None:
    """SO_MARK; the kernel tells it to CAP_NET_ADMIN only (inet_diag.c: inet_diag_msg_attrs_fill)."""
    raw = attributes(data[_ANSWER.size :]).get(_INET_DIAG_MARK)
    return None if raw is None else int(struct.unpack("=I", raw)[0])
