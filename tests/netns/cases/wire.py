"""Plain sockets inside a lab's pods, as an application or a proxy makes them, and what they see of each other."""

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from agent.lab.namespaces import Netns
from agent.lab.node import LabPod
from proxy.api.constants import PROXY_MARK

TIMEOUT_S: Final = 5.0
"""Long enough for a retransmitted SYN or two: what takes longer is a black hole."""

APPLICATION_UID: Final = 1000

_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h; netfilter_ipv6/ip6_tables.h has the same number
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_RESET: Final = struct.pack("=ii", 1, 0)  # struct linger: on, 0 s
_unused_ports: Final[dict[str, Iterator[int]]] = {}
"""By namespace: above the proxy's ports, below those that the kernel gives by itself (ip_local_port_range, ip(7))."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Family:
    """IPv4 or IPv6: its addresses, and a pod's own one."""

    version: int
    number: socket.AddressFamily
    any: str
    loopback: str
    vip: str

    def of(self, pod: LabPod) -> str:
        address = pod.address4 if self.version == 4 else pod.address6
        assert address is not None
        return str(address)


V4: Final = Family(4, socket.AF_INET, "0.0.0.0", "127.0.0.1", "10.96.0.10")
V6: Final = Family(6, socket.AF_INET6, "::", "::1", "fd96::10")


# ── Sockets ────────────────────────────────────────────────────────────────────────────────────────────────────────
def listen(where: Netns, address: str, port: int, *, mark: int = 0, backlog: int = 64) -> socket.socket:
    """A listener that takes its own family only; `accept` waits TIMEOUT_S at most."""

    def make() -> socket.socket:
        sock = _socket(address, mark)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return sock

    return where.call(make)


def dial(
    where: Netns, address: str, port: int, *, mark: int = 0, source: str = "", from_port: int | None = None
) -> socket.socket:
    """A TCP connection from there, from a port that no connection of the tests has had before (or `from_port`), and
    from the address that the kernel chooses (or `source`).

    Not the kernel's choice: it may take the port of a connection that has ended and that conntrack remembers. When the
    old one was led to the same listener from another address, the port that the listener sees is altered (B38).
    """

    def make() -> socket.socket:
        sock = _socket(address, mark)
        try:
            bound = from_port or _unused_port(where)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one port, several destinations
            # getaddrinfo knows %eth0, which bind and connect of this module leave out.
            sock.bind(socket.getaddrinfo(source, bound)[0][4] if source else ("", bound))
            sock.connect(socket.getaddrinfo(address, port)[0][4])
        except BaseException:
            sock.close()
            raise
        return sock

    return where.call(make)


def dial_as(
    uid: int, where: Netns, address: str, port: int, *, gid: int | None = None, source: str = ""
) -> socket.socket:
    """As `dial`, by a thread whose sockets belong to `uid`, and to `gid`: setfsuid(2) is one thread's own affair."""
    bound = (source, _unused_port(where))
    made = where.call(_as_owner, uid, gid, lambda: socket.create_connection((address, port), TIMEOUT_S, bound))
    assert os.fstat(made.fileno()).st_uid == uid
    return made


def socket_as(uid: int, where: Netns, family: "Family", kind: socket.SocketKind) -> socket.socket:
    """A socket that belongs to `uid`, not connected."""

    def make() -> socket.socket:
        sock = socket.socket(family.number, kind)
        sock.settimeout(TIMEOUT_S)
        return sock

    return where.call(_as_owner, uid, None, make)


def _as_owner(uid: int, gid: int | None, make: Callable[[], socket.socket]) -> socket.socket:
    if gid is not None:
        _LIBC.setfsgid(gid)
    _LIBC.setfsuid(uid)
    return make()


def _unused_port(where: Netns) -> int:
    return next(_unused_ports.setdefault(where.name, iter(range(20_000, 32_768))))


def _socket(address: str, mark: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    if mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _become_transparent(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET:
        for option in (_IP_TRANSPARENT, _IP_FREEBIND):
            sock.setsockopt(socket.IPPROTO_IP, option, 1)
    else:
        for option in (_IPV6_TRANSPARENT, _IPV6_FREEBIND):
            sock.setsockopt(socket.IPPROTO_IPV6, option, 1)


def dial_as_proxy(where: Netns, address: str, port: int, *, source: Endpoint | None = None) -> socket.socket:
    """The proxy's own connection: marked, and with `source` transparent: it speaks with a client's address."""

    def make() -> socket.socket:
        sock = _socket(address, PROXY_MARK)
        try:
            if source is not None:
                _become_transparent(sock)
                sock.bind(source)
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    return where.call(make)


def end_by_reset(socks: Iterable[socket.socket]) -> None:
    """Both sides end at once, and nothing stays in TIME_WAIT."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()


# ── What a socket sees ─────────────────────────────────────────────────────────────────────────────────────────────
def accept(listener: socket.socket) -> socket.socket:
    """The next connection, within TIMEOUT_S."""
    accepted, _ = listener.accept()
    accepted.settimeout(TIMEOUT_S)
    return accepted


def is_untouched(listener: socket.socket) -> bool:
    """Whether nobody waits in its queue. Ask when the connection in question is known to be somewhere else."""
    listener.settimeout(0)
    try:
        accepted, _ = listener.accept()
    except BlockingIOError:
        return True
    finally:
        listener.settimeout(TIMEOUT_S)
    accepted.close()
    return False


def original_destination(sock: socket.socket) -> Endpoint:
    """Asked of conntrack, without a fallback: OSError when the connection was not translated."""
    if sock.family == socket.AF_INET:
        answer = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        return socket.inet_ntop(sock.family, answer[4:8]), int.from_bytes(answer[2:4], "big")
    answer = sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
    return socket.inet_ntop(sock.family, answer[8:24]), int.from_bytes(answer[2:4], "big")


def own(sock: socket.socket) -> Endpoint:
    """(address, port) of its own end; a scope is left out."""
    return _endpoint(sock.getsockname())


def peer(sock: socket.socket) -> Endpoint:
    return _endpoint(sock.getpeername())


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return name[0].partition("%")[0], name[1]


def assert_talk(one: socket.socket, other: socket.socket, size: int = 16_384) -> None:
    """Bytes cross both ways, several segments of them, and each side's end reaches the other."""
    for sender, receiver, byte in ((one, other, b">"), (other, one, b"<")):
        sender.sendall(byte * size)
        sender.shutdown(socket.SHUT_WR)
        assert read_all(receiver) == byte * size


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer's end; each wait is TIMEOUT_S at most."""
    parts = []
    while part := sock.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def assert_direct(where: Netns, address: str, port: int, listener: socket.socket, *, source: str) -> None:
    """A connection from there, with address `source`, arrives at the listener itself and talks: nobody came between."""
    with dial(where, address, port, source=source) as client, accept(listener) as served:
        assert peer(served) == own(client)
        assert peer(served)[0] == source.partition("%")[0]
        assert own(served) == (address.partition("%")[0], port)
        assert_talk(client, served)
