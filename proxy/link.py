"""Carries the values of proxy.workerlink over the supervisor's private SEQPACKET pair: framing, pickling, descriptors.

No event loop inside: the supervisor drives it from asyncio (`add_reader`, `add_writer`), the worker from its reactor.
Both do the same: on readable `receive()`, on writable `flush()`, and watch for writability while `wants_write`.
"""

import array
import fcntl
import os
import pickle
import socket
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from proxy.workerlink import FromWorker, ToWorker

FRAME_BYTES: Final = 64 * 1024
"""Payload of one packet. A SEQPACKET packet must fit the send buffer whole (unix(7)); the kernel's default is 208 KiB
(net.core.wmem_default), so three frames are in flight at least."""

MAX_MESSAGE_BYTES: Final = 1 << 30
"""A joined message above this is a fault of ours, not policy: 20,000 endpoints pickle to a few megabytes."""

MAX_DESCRIPTORS: Final = 253
"""SCM_MAX_FD (include/net/scm.h)."""

_MORE: Final = b"+"
_LAST: Final = b"."
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


class LinkClosed(Exception):
    """The other process is gone, or the link is unusable. Retrying on this link is pointless: make a new one."""


def link_pair() -> tuple["Link", socket.socket]:
    """The supervisor's end, and the socket whose descriptor the worker inherits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Link(ours), theirs


class Link:
    """One end; owns its socket. Not for use by several threads."""

    __slots__ = ("_buffer", "_closed_by_peer", "_descriptors", "_parts", "_parts_bytes", "_queue", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._queue: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._buffer = bytearray(len(_MORE) + FRAME_BYTES)
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._descriptors: tuple[int, ...] = ()
        self._closed_by_peer = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        """Something waits for room in the socket: watch for writability and call `flush`."""
        return bool(self._queue)

    def send(self, message: ToWorker | FromWorker, fds: Sequence[int] = ()) -> None:
        """Send now, or queue what does not fit; order is kept. `fds` stay the caller's and may be closed on return.

        Raises LinkClosed.
        """
        if len(fds) > MAX_DESCRIPTORS:
            raise ValueError(f"{len(fds)} descriptors beside one message; the kernel carries {MAX_DESCRIPTORS} at most")
        body = memoryview(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
        travelling: Sequence[int] = fds
        for start in range(0, len(body), FRAME_BYTES):
            end = start + FRAME_BYTES
            frame = (_MORE if end < len(body) else _LAST) + body[start:end]
            if self._queue or not self._transmit(frame, travelling):
                # The caller may close its descriptors before there is room: the queue holds its own.
                own = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0) for fd in travelling)
                self._queue.append((frame, own))
            travelling = ()

    def flush(self) -> None:
        """Send what is queued as far as there is room. Raises LinkClosed."""
        while self._queue:
            frame, descriptors = self._queue[0]
            if not self._transmit(frame, descriptors):
                return
            self._queue.popleft()
            close_descriptors(descriptors)

    def receive(self, most: int = sys.maxsize) -> list[tuple[ToWorker | FromWorker, tuple[int, ...]]]:
        """Every message that is complete, with its descriptors (close-on-exec, now the caller's). May be empty.

        Not more than `most`: who must not be kept longer comes again, the rest makes the link readable still.

        Raises LinkClosed when the other end is gone and everything before was delivered.
        """
        messages: list[tuple[ToWorker | FromWorker, tuple[int, ...]]] = []
        try:
            while len(messages) < most and not self._closed_by_peer and (frame := self._next_frame()) is not None:
                if self._join(frame):
                    messages.append(self._take_message())
        except LinkClosed:
            for _, descriptors in messages:
                close_descriptors(descriptors)
            raise
        if self._closed_by_peer and not messages:
            raise LinkClosed("the other end of the link is closed")
        return messages

    def close(self) -> None:
        """Close the socket and every descriptor that was queued or half received. Idempotent."""
        for _, descriptors in self._queue:
            close_descriptors(descriptors)
        self._queue.clear()
        self._forget_partial()
        self._socket.close()

    def _transmit(self, frame: bytes, fds: Sequence[int]) -> bool:
        try:
            if fds:
                socket.send_fds(self._socket, [frame], list(fds), socket.MSG_NOSIGNAL)
            else:
                self._socket.send(frame, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError) as error:
            raise LinkClosed("the other end of the link is closed") from error
        return True

    def _next_frame(self) -> bytes | None:
        """One packet; None when nothing waits or the peer has closed."""
        try:
            size, ancillary, flags, _ = self._socket.recvmsg_into(
                [self._buffer], _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:
            size, ancillary, flags = 0, [], 0
        arrived = _descriptors_of(ancillary)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or (arrived and self._parts):
            close_descriptors(arrived)
            self._forget_partial()
            raise LinkClosed("a packet of the link arrived cut off: both ends must run the same version of headgate")
        if size == 0:
            self._closed_by_peer = True
            close_descriptors(arrived)
            self._forget_partial()
            return None
        if arrived:
            self._descriptors = arrived
        return bytes(memoryview(self._buffer)[:size])

    def _join(self, frame: bytes) -> bool:
        """Add a frame to the message that is arriving; true when it was the last."""
        self._parts.append(frame[1:])
        self._parts_bytes += len(frame) - 1
        if self._parts_bytes > MAX_MESSAGE_BYTES:
            self._forget_partial()
            raise LinkClosed(f"a message of the link exceeds {MAX_MESSAGE_BYTES} bytes")
        return frame[:1] == _LAST

    def _take_message(self) -> tuple[ToWorker | FromWorker, tuple[int, ...]]:
        body, descriptors = b"".join(self._parts), self._descriptors
        self._parts, self._parts_bytes, self._descriptors = [], 0, ()
        try:
            message: ToWorker | FromWorker = pickle.loads(body)  # noqa: S301 - our own child, over a private pair
        except Exception as error:
            close_descriptors(descriptors)
            raise LinkClosed("a message of the link cannot be read: both ends must run the same version") from error
        return message, descriptors

    def _forget_partial(self) -> None:
        close_descriptors(self._descriptors)
        self._parts, self._parts_bytes, self._descriptors = [], 0, ()


def close_descriptors(descriptors: Iterable[int]) -> None:
    """Close all; one that is closed already is no reason to leave the others open."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _descriptors_of(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[int, ...]:
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return tuple(descriptors)
