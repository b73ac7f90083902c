"""Every socket of the namespace that the calling thread is in, with what a person wants to know of it.

TCP by sock_diag(7), with struct tcp_info (linux/tcp.h); UDP from proc(5), which needs no module. Numbers are of
linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
"""

import functools
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from agent.kernel.netlink import Message, Netlink, attribute_list
from agent.plan import FlowKey
from agent.pods import IPAddress

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_INET_DIAG_INFO, _INET_DIAG_MARK = 2, 15
_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h

_STATES: Final = {
    1: "established",
    2: "syn-sent",
    3: "syn-recv",
    4: "fin-wait-1",
    5: "fin-wait-2",
    8: "close-wait",
    9: "last-ack",
    10: "listen",
    11: "closing",
}
"""Not TIME_WAIT and CLOSE: nothing of the application's is in them any more."""
_OPENING: Final = frozenset({"syn-sent", "syn-recv"})

# struct inet_diag_req_v2: family, protocol, extensions, padding, states, and inet_diag_sockid, all zero: any.
_REQUEST: Final = struct.Struct("=BBBxI48x")
_WANTED: Final = 1 << (_INET_DIAG_INFO - 1)
# struct inet_diag_msg, as in agent.kernel.sock_diag.
_ANSWER: Final = struct.Struct("=BBBB2s2s16s16sIQIIIII")
_QUIET: Final = struct.Struct("=44xI4xII")
"""struct tcp_info, of: tcpi_last_data_sent, tcpi_last_data_recv, tcpi_last_ack_recv (ms)"""


@dataclass(frozen=True, slots=True)
class HeldSocket:
    """`remote` None: not connected (UDP). `at_least_s`: it is no younger, because the kernel remembers when something
    was last sent or received, which for who said nothing is when it was opened; None where nothing is remembered.
    `inode` 0: its last descriptor is closed. `mark` None: not told (it needs CAP_NET_ADMIN)."""

    local: IPAddress
    local_port: int
    remote: IPAddress | None
    remote_port: int
    state: str
    uid: int
    inode: int
    mark: int | None = None
    at_least_s: float | None = None

    @property
    def key(self) -> FlowKey:
        """Of a connected one."""
        assert self.remote is not None
        return self.local, self.local_port, self.remote, self.remote_port


def tcp_sockets() -> tuple[HeldSocket, ...]:
    """Listening and living ones. Raises OSError."""
    bits = sum(1 << number for number in _STATES)
    found = []
    with Netlink(_NETLINK_SOCK_DIAG) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(family, socket.IPPROTO_TCP, _WANTED, bits)
            found += [_tcp(data) for data in netlink.dump(Message(_SOCK_DIAG_BY_FAMILY, 0, request))]
    return tuple(found)


def _tcp(data: bytes) -> HeldSocket:
    family, number, _, _, sport, dport, source, destination, _, _, _, _, _, uid, inode = _ANSWER.unpack_from(data)
    length = 4 if family == socket.AF_INET else 16
    state = _STATES.get(number, str(number))
    mark, at_least_s = None, None
    for kind, value in attribute_list(data[_ANSWER.size :]):
        if kind == _INET_DIAG_MARK and len(value) >= 4:
            mark = int.from_bytes(value[:4], sys.byteorder)
        elif kind == _INET_DIAG_INFO and len(value) >= _QUIET.size and state not in _OPENING:
            at_least_s = max(_QUIET.unpack_from(value)) / 1000
    return HeldSocket(
        _plain(source[:length]),
        int.from_bytes(sport, "big"),
        None if state == "listen" else _plain(destination[:length]),
        int.from_bytes(dport, "big"),
        state,
        uid,
        inode,
        mark,
        at_least_s,
    )


def udp_sockets() -> tuple[HeldSocket, ...]:
    """net/ipv4/udp.c: udp4_format_sock. Raises OSError."""
    found = []
    for table in ("udp", "udp6"):
        try:
            lines = Path(f"/proc/thread-self/net/{table}").read_bytes().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        found += [_udp(line.split()) for line in lines]
    return tuple(found)


def _udp(words: list[bytes]) -> HeldSocket:
    local, local_port = _of_proc(words[1])
    remote, remote_port = _of_proc(words[2])
    connected = remote_port != 0
    state = "connected" if connected else "bound"
    return HeldSocket(
        local, local_port, remote if connected else None, remote_port, state, int(words[7]), int(words[9])
    )


def _of_proc(text: bytes) -> tuple[IPAddress, int]:
    """An address as 32-bit words in the machine's order, and a port."""
    address, _, port = text.rpartition(b":")
    raw = b"".join(int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8))
    return _plain(raw), int(port, 16)


def netns_cookie() -> int:
    """Of the calling thread's namespace, as the proxy knows it (SO_NETNS_COOKIE, since Linux 5.14). Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)


@functools.lru_cache(maxsize=65536)
def _plain(raw: bytes) -> IPAddress:
    """An IPv4 connection of an IPv6 socket (::ffff:a.b.c.d) is IPv4 to netfilter, so to us."""
    address = ip_address(raw)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
