"""A TCP connection with one owner at a time: reading with backpressure, writing what does not fit later."""

import errno
import select
import socket
import sys
import termios
from fcntl import ioctl
from time import monotonic
from typing import Final, Protocol

from proxy.datapath.reactor import BROKEN, READABLE, WRITABLE, Reactor
from proxy.http1.response import NO_RESPONSE
from proxy.model.address import SocketAddress

READ_BYTES: Final = 64 * 1024
"""One read: a whole small message, and a share of a large one that keeps other connections waiting < 50 µs."""

CONNECT_TIMEOUT_S: Final = 10.0
"""Istio's default (DestinationRule connectionPool.tcp.connectTimeout) and ztunnel's (src/proxy.rs)."""

# Between a fast sender and a slower reader the kernel would let its buffers grow to 32 MB of what was received and 4 MB
# of what is to be sent (tcp_rmem, tcp_wmem). They are bounded where they are seen to fill: all other connections are
# spared the system calls.

MAX_BUFFERED_BYTES: Final = 3 * 512 * 1024
"""Of kernel memory, for what one socket has received (SO_RCVBUF) and for what another has not had acknowledged
(SO_SNDBUF): together below 4 MB a direction, and 1 Gbit/s still flows over 12 ms."""

GROWING_BYTES: Final = MAX_BUFFERED_BYTES // 4
"""SO_SNDBUF at which it is bounded: it doubles with the congestion window, and is looked at when it is full."""

_SIOCOUTQ: Final = termios.TIOCOUTQ
"""tcp(7); the same number."""
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
"""include/uapi/asm-generic/socket.h"""

# Plain ints: `|` on the socket module's enum members costs 3 µs, as much as parsing a head.
_SEND_FLAGS: Final = int(socket.MSG_DONTWAIT) | int(socket.MSG_NOSIGNAL)
_RECEIVE_FLAGS: Final = int(socket.MSG_DONTWAIT)

_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SO_RCVBUF: Final = int(socket.SO_RCVBUF)
_SO_SNDBUF: Final = int(socket.SO_SNDBUF)

_ONCE: Final = select.EPOLLET
"""epoll tells of EPOLLHUP unasked: once then, instead of in every turn (epoll(7))."""

_RESET: Final = b"\x01\0\0\0\0\0\0\0"
"""struct linger {on, 0 s}: close sends RST (socket(7))."""


class StreamOwner(Protocol):
    """Who uses a stream at the moment."""

    def on_data(self, stream: "Stream", data: bytes) -> None:
        """b"" when the peer has ended its side; `stream.failed` tells whether by reset."""

    def on_drained(self, stream: "Stream") -> None:
        """All that was handed to `send` has left."""

    def on_connected(self, stream: "Stream") -> None: ...

    def on_connect_failed(self, stream: "Stream", reason: str) -> None:
        """The stream is closed; nothing of `outgoing` was sent. `reason` is errno's name."""


class _Nobody:
    def on_data(self, stream: "Stream", data: bytes) -> None: ...

    def on_drained(self, stream: "Stream") -> None: ...

    def on_connected(self, stream: "Stream") -> None: ...

    def on_connect_failed(self, stream: "Stream", reason: str) -> None: ...


NOBODY: Final[StreamOwner] = _Nobody()
"""Before a stream is served, and once it is closed: it and its owner would else hold each other until the collector
comes for them, which it may never do (proxy.policy_intake)."""


class Stream:
    """`outgoing` is what the kernel did not take yet: its owner stops feeding while there is any.

    `last_head` and `last_response` are the HTTP response that came before, for whoever parses the next one.
    `since_s` (time.monotonic) is when it began to connect or, in a pool, to be idle; `reused` is for pools too.
    """

    __slots__ = (
        "_bounded",
        "_connect_error",
        "_connecting",
        "_events",
        "_reactor",
        "failed",
        "fd",
        "last_head",
        "last_response",
        "outgoing",
        "owner",
        "paused",
        "reused",
        "since_s",
        "sock",
    )

    def __init__(self, reactor: Reactor, sock: socket.SocketType, owner: StreamOwner) -> None:
        """An accepted connection. Needs not be non-blocking: every call says MSG_DONTWAIT itself."""
        self._reactor = reactor
        self.sock = sock
        self.fd = sock.fileno()
        self.owner = owner
        self.outgoing = b""
        self.paused = False
        self.failed = False
        self.reused = False
        self.since_s = 0.0
        self.last_head = b""
        self.last_response = NO_RESPONSE
        self._bounded = False
        self._connecting = False
        self._connect_error = 0
        self._events = READABLE

    def start(self) -> None:
        self._reactor.watch(self.fd, self.on_event, READABLE)

    def connect(self, address: SocketAddress) -> None:
        """Instead of `start`; the outcome is told to the owner, in a later turn."""
        self._connecting = True
        self.since_s = monotonic()
        code = self.sock.connect_ex(address)
        self._events = WRITABLE
        if code not in (0, errno.EINPROGRESS):
            # ENETUNREACH and the like are known at once; told in the next turn, when the owner is ready to hear it.
            self._reactor.call_later(0, lambda: self._connect_failed(code))
            return
        self._reactor.watch(self.fd, self.on_event, WRITABLE)

    def send(self, data: bytes) -> None:
        """Send, or keep what does not fit. A reset is told by the read side, after the peer's last words."""
        if self.outgoing:
            self.outgoing += data
            return
        try:
            sent = self.sock.send(data, _SEND_FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if not self._connecting:
                self.failed = True
                return
            # Refused already, and this call took the socket's error away with it.
            self._connect_error = error.errno or errno.ECONNREFUSED
            sent = 0
        if sent and self._connecting:
            # What was taken is on its way: from now on a reset is no failure to connect, after which all is sent anew.
            self._connecting = False
            self._listen_for()
            self.owner.on_connected(self)
        if sent < len(data):
            self.outgoing = data[sent:]
            self._listen_for()
            if not self._bounded and self.fd >= 0:
                self._bounded = _bound(self.sock, _SO_SNDBUF, _SO_SNDBUFFORCE, GROWING_BYTES)

    def on_event(self, events: int) -> None:
        if self._connecting:
            if events & BROKEN or self._connect_error:
                code = self._connect_error or self.sock.getsockopt(_SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._connect_failed(code)
                    return
            if not events & WRITABLE:
                return  # of the connection that had this descriptor before, closed in this turn
            self._connecting = False
            self._listen_for()
            self.owner.on_connected(self)
        if self.outgoing and events & WRITABLE:
            self._flush()
        if events & ~WRITABLE and self.fd >= 0:
            if not self.paused:
                try:
                    data = self.sock.recv(READ_BYTES, _RECEIVE_FLAGS)
                except BlockingIOError:
                    return
                except OSError:
                    self.failed = True
                    data = b""
                self.owner.on_data(self, data)
            elif events & select.EPOLLERR or self.failed:
                # Reported whether asked for or not: leaving it would turn the loop without end.
                self.failed = True
                self.owner.on_data(self, b"")
            elif events & select.EPOLLHUP and self._events != _ONCE:
                # Both directions have ended, and bytes may wait to be read still.
                self._events = _ONCE
                self._reactor.change(self.fd, _ONCE)

    def pause(self) -> None:
        """Stop reading: nobody wants more for now."""
        if not self.paused:
            self.paused = True
            self._listen_for()

    def hold_back(self) -> None:
        """Stop reading because the other side is slower; the kernel reads ahead MAX_BUFFERED_BYTES at most."""
        if not self.paused and self.fd >= 0:
            self.pause()
            _bound(self.sock, _SO_RCVBUF, _SO_RCVBUFFORCE, MAX_BUFFERED_BYTES)

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._listen_for()

    def end(self) -> None:
        """Half-close: the peer sees the end after all that was sent. Call with `outgoing` empty."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.failed = True

    def close(self, reset: bool = False) -> None:
        """Idempotent. `reset`: with RST, so that the peer learns at once that nobody listens any more."""
        if self.fd < 0:
            return
        self._reactor.close_watched(self.fd)
        self.fd = -1
        self.owner = NOBODY
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()

    def unsent_bytes(self) -> int:
        """What the peer has not acknowledged, of a stream that could not send all; otherwise 0, and no system call."""
        if not self.outgoing or self.fd < 0:
            return 0
        return len(self.outgoing) + int.from_bytes(ioctl(self.fd, _SIOCOUTQ, bytes(4)), sys.byteorder)

    @property
    def connecting(self) -> bool:
        return self._connecting

    def _flush(self) -> None:
        try:
            sent = self.sock.send(self.outgoing, _SEND_FLAGS)
        except BlockingIOError:
            return
        except OSError:
            self.failed = True
            sent = len(self.outgoing)
        self.outgoing = self.outgoing[sent:]
        if not self.outgoing:
            self._listen_for()
            self.owner.on_drained(self)

    def _listen_for(self) -> None:
        events = 0 if self.paused or self._connecting else READABLE
        if self.outgoing or self._connecting:
            events |= WRITABLE
        if events != self._events and self.fd >= 0:
            self._events = events
            self._reactor.change(self.fd, events)

    def expire(self, now_s: float) -> None:
        """Give up connecting after CONNECT_TIMEOUT_S; the owner calls this every tick."""
        if self._connecting and self.fd >= 0 and now_s - self.since_s > CONNECT_TIMEOUT_S:
            self._connect_failed(errno.ETIMEDOUT)

    def _connect_failed(self, code: int) -> None:
        if self.fd < 0:
            return  # its owner has left meanwhile
        owner = self.owner
        self.close()
        owner.on_connect_failed(self, errno.errorcode.get(code, str(code)))


def _bound(sock: socket.SocketType, option: int, forced: int, from_bytes: int) -> bool:
    """Ends the kernel's own growth of a buffer that has reached more than `from_bytes`."""
    if sock.getsockopt(_SOL_SOCKET, option) <= from_bytes:
        return False
    half = MAX_BUFFERED_BYTES // 2  # doubled by the kernel, for its own overhead (socket(7))
    try:
        sock.setsockopt(_SOL_SOCKET, forced, half)
    except OSError:  # without CAP_NET_ADMIN net.core.{r,w}mem_max bounds it further
        sock.setsockopt(_SOL_SOCKET, option, half)
    return True
