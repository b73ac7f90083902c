"""Sockets towards servers, made inside a pod's network namespace: several at a time while they are in demand.

Entering the namespace and leaving it again is a quarter of what an unconnected socket costs; a burst of connections
pays it once for up to MAX_BATCH. What a tick finds unused is closed: a pod at rest holds none.
"""

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from proxy.api.constants import PROXY_MARK
from proxy.datapath.netns import Entry
from proxy.datapath.standing import NODE, Standing

MAX_BATCH: Final = 16
"""Measured: at 16 the entry is below 1 % of a connection's cost; more would only be closed unused."""

SO_MARK: Final = 36
"""include/uapi/asm-generic/socket.h"""
IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
IP_BIND_ADDRESS_NO_PORT: Final = 24
IP_LOCAL_PORT_RANGE: Final = 51
"""include/uapi/linux/in.h, in6.h"""

ANY_LOCAL_PORT: Final = (0xFFFF << 16 | 1).to_bytes(4, sys.byteorder)
"""Bounds outside of the namespace's own range, which therefore stays as it is (inet_sk_get_local_port_range). What it
changes is the search: connect() then tries the ports in turn. Otherwise it tries all even ones first, and once 14,116
connections to one address wait in TIME_WAIT, each further one walks over all of them: 1.3 ms with the loop stopped,
measured with 25,000 (net/ipv4/inet_hashtables.c, __inet_hash_connect, since Linux 6.8)."""

# Plain ints and the interpreter's own socket type: the socket module's enum members and its class, which is written in
# Python, cost 3 µs a connection.
_TYPE: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_AF_INET: Final = int(socket.AF_INET)
_AF_INET6: Final = int(socket.AF_INET6)
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_IPPROTO_IP: Final = int(socket.IPPROTO_IP)
_IPPROTO_IPV6: Final = int(socket.IPPROTO_IPV6)
_IPPROTO_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_NODELAY: Final = int(socket.TCP_NODELAY)


class UpstreamSockets:
    """A pod's; `close_unused` every tick, and before the namespace is let go."""

    __slots__ = ("_batch", "_entry", "_netns_fd", "_prepare", "_ready", "_speak_from")

    def __init__(self, entry: Entry, netns_fd: int, standing: Standing = NODE) -> None:
        self._entry = entry
        self._netns_fd = netns_fd
        self._batch = 1
        self._ready: dict[int, list[socket.SocketType]] = {_AF_INET: [], _AF_INET6: []}
        # Chosen here, not asked for each socket.
        self._prepare: _Prepare = _prepare_marked if standing.marks else _prepare
        self._speak_from: dict[int, _SpeakFrom] = {
            _AF_INET: _way_to_speak(standing, ipv6=False),
            _AF_INET6: _way_to_speak(standing, ipv6=True),
        }

    def take(self, family: int, source: str | None) -> socket.SocketType:
        """A non-blocking TCP socket, marked where the proxy's standing has it so; `source` is an address to speak from,
        which need not be the pod's where the standing is transparent, its port left to the kernel until connect.

        Raises OSError: EMFILE (the worker's descriptors are used up), EPERM (CAP_NET_ADMIN or CAP_NET_RAW missing),
        EADDRNOTAVAIL (`source` is not the pod's, and the standing not transparent).
        """
        ready = self._ready[family]
        if not ready:
            self._make(family, ready)
        sock = ready.pop()
        if source is not None:
            try:
                self._speak_from[family](sock, source)
            except OSError:
                sock.close()
                raise
        return sock

    def close_unused(self) -> None:
        self._batch = 1
        for ready in self._ready.values():
            while ready:
                ready.pop().close()

    def _make(self, family: int, ready: list[socket.SocketType]) -> None:
        """At least one, or OSError."""
        made: list[socket.SocketType] = []
        try:
            with self._entry.enter(self._netns_fd):
                for _ in range(self._batch):
                    made.append(socket.SocketType(family, _TYPE))  # what was made before an error stays
        except OSError:
            if not made:
                raise
        self._batch = min(self._batch * 2, MAX_BATCH)
        try:
            for sock in made:
                self._prepare(sock)
        except OSError:
            for sock in made:
                sock.close()
            raise
        ready += made


_Prepare = Callable[[socket.SocketType], None]
_SpeakFrom = Callable[[socket.SocketType, str], None]


def _prepare_marked(sock: socket.SocketType) -> None:
    sock.setsockopt(_SOL_SOCKET, SO_MARK, PROXY_MARK)
    sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
    with suppress(OSError):  # before Linux 6.3: ENOPROTOOPT
        sock.setsockopt(_IPPROTO_IP, IP_LOCAL_PORT_RANGE, ANY_LOCAL_PORT)


def _prepare(sock: socket.SocketType) -> None:
    sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
    with suppress(OSError):
        sock.setsockopt(_IPPROTO_IP, IP_LOCAL_PORT_RANGE, ANY_LOCAL_PORT)


def _speak_from_any4(sock: socket.SocketType, source: str) -> None:
    sock.setsockopt(_IPPROTO_IP, IP_TRANSPARENT, 1)
    sock.setsockopt(_IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))


def _speak_from_any6(sock: socket.SocketType, source: str) -> None:
    sock.setsockopt(_IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    sock.setsockopt(_IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))


def _speak_from_own(sock: socket.SocketType, source: str) -> None:
    sock.setsockopt(_IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))


def _speak_marked_from_any(sock: socket.SocketType, source: str) -> None:
    sock.setsockopt(_SOL_SOCKET, SO_MARK, PROXY_MARK)
    (_speak_from_any6 if ":" in source else _speak_from_any4)(sock, source)


def _way_to_speak(standing: Standing, ipv6: bool) -> _SpeakFrom:
    if not standing.transparent(ipv6):
        return _speak_from_own
    if not standing.marks:
        return _speak_marked_from_any
    return _speak_from_any6 if ipv6 else _speak_from_any4
