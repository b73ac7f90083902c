"""An HTTP/1.1 load on plain sockets: N connections, one request in flight on each, every answer checked.

Connections are kept, or opened for each request (`Ends`). With `per_s` requests begin at that rate, whether earlier
ones are answered or not (as far as there are connections): clients do not wait for each other when a server stands
still. A kept connection behaves as HTTP clients' do: one that the other side ended between two requests is opened anew,
and no loss (RFC 9112, 9.6); an end after a request was sent is one, and is told with its times (tally.Loss).

Runs in a process of its own, in the namespace it is started in (`headgate lab run POD -- headgate lab load …`), on one
thread over epoll, and always ends: after `requests`, or `seconds`. A request counts for the phase in which it was
*sent*; a phase that was asked for on standard input is announced as begun only when no request of an earlier one is in
flight, so that what is changed afterwards cannot touch them.

Standard input, one command a line: `phase NAME`, `stop` (or its end). Standard output: one JSON object a line, `event`
being `phase` (begun), `progress` (four a second) and last `result`.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from agent.lab.errors import LabError
from agent.lab.tally import Loss, Phase, together

REQUEST_TIMEOUT_S: Final = 5.0
PROGRESS_NS: Final = 250_000_000
_POLL_S: Final = 0.05
_MOST_BEHIND_S: Final = 0.25
"""Of a rate that could not be kept: what is further behind is not made up for in one burst."""
_CLOSE_FIELD: Final = b"\r\nConnection: close\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: an address (a name is not looked up), and the bytes of a request."""

    family: int
    address: tuple[str, int]
    request: bytes


@dataclass(slots=True, eq=False)
class _Connection:
    target: Target
    socket: socket.socket | None = None
    connected: bool = False
    answers: int = 0
    ending: bool = False
    phase: Phase | None = None
    opened_ns: int = 0
    sent_ns: int = 0
    received: bytearray = field(default_factory=bytearray)


def target(url: str) -> Target:
    """The target of an http:// URL with a literal address. LabError otherwise."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
        family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
        socket.inet_pton(family, parts.hostname or "")
    except (OSError, ValueError) as error:
        raise LabError(f"{url!r}: need http://ADDRESS[:PORT]/PATH with a literal address ([..] around IPv6)") from error
    if parts.scheme != "http":
        raise LabError(f"{url!r}: only http:// is spoken here")
    path = parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    if not path.isascii() or any(char <= " " for char in path):
        raise LabError(f"{url!r}: percent-encode what is not printable ASCII")
    head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: headgate-lab\r\nAccept: */*\r\n\r\n"
    return Target(family, (parts.hostname or "", port), head.encode("ascii"))


class Ends(Enum):
    """How a connection ends: it is kept for the next request, or it serves one, and then its server, asked to, or its
    client ends it first: that side's port is the one that waits (TIME-WAIT)."""

    KEPT = "kept"
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Shape:
    """How requests come. `per_s`: requests that begin in a second, over all connections; None: the next one as soon as
    one is answered."""

    ends: Ends = Ends.KEPT
    per_s: float | None = None
    timeout_s: float = REQUEST_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or (self.per_s is not None and self.per_s <= 0):
            raise LabError("a load needs a rate and a time-out above 0")


KEPT: Final = Shape()


class Load:
    """The load itself. `run` blocks until its end and returns the result; `emit` gets each event as it happens."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        connections: int,
        requests: int,
        seconds: float,
        first_phase: str = "load",
        shape: Shape = KEPT,
    ) -> None:
        if not targets or connections < 1 or requests < 1 or seconds <= 0:
            raise LabError("a load needs a URL, and connections, requests and seconds above 0")
        if shape.ends is Ends.SERVER:
            targets = [replace(one, request=one.request.replace(b"\r\n\r\n", _CLOSE_FIELD, 1)) for one in targets]
        self._shape = shape
        self._phases = [Phase(first_phase)]
        self._connections = [_Connection(targets[index % len(targets)]) for index in range(connections)]
        self._by_descriptor: dict[int, _Connection] = {}
        self._idle = deque(self._connections)
        self._epoll = select.epoll()
        self._left = requests
        now_ns = time.monotonic_ns()
        self._deadline_ns = now_ns + round(seconds * 1e9)
        self._every_ns = 0 if shape.per_s is None else round(1e9 / shape.per_s)
        self._due_ns = now_ns
        self._announced = self._phases[0]
        self._stopping = False
        self._commands = b""

    def run(self, emit: Callable[[dict[str, Any]], None], control: int | None = None) -> dict[str, Any]:
        """`control`: descriptor to read commands from. Connections are closed in any case."""
        try:
            if control is not None:
                os.set_blocking(control, False)
                self._epoll.register(control, select.EPOLLIN)
            self._loop(emit, control)
        finally:
            for connection in self._connections:
                self._close(connection)
            self._epoll.close()
        return {
            "event": "result",
            "phases": {phase.name: phase.as_json() for phase in self._phases},
            "all": together(self._phases).as_json(),
        }

    def _loop(self, emit: Callable[[dict[str, Any]], None], control: int | None) -> None:
        progress_ns = time.monotonic_ns() + PROGRESS_NS
        while self._idle or any(phase.in_flight for phase in self._phases):
            for _ in range(self._due()):  # one that fails at once is idle again, and waits for the next round
                self._next(self._idle.popleft())
            for descriptor, _ in self._epoll.poll(self._patience_s()):
                if descriptor == control:
                    self._command(descriptor)
                elif ready := self._by_descriptor.get(descriptor):
                    self._ready(ready)
            now_ns = time.monotonic_ns()
            current = self._phases[-1]
            if current is not self._announced and not any(phase.in_flight for phase in self._phases[:-1]):
                self._announced = current
                emit({"event": "phase", "name": current.name})
            if now_ns >= progress_ns:
                progress_ns = now_ns + PROGRESS_NS
                self._expire(now_ns)
                emit({"event": "progress", "phase": current.name, "ok": current.ok, "failed": current.reasons.total()})

    def _due(self) -> int:
        """How many idle connections are to send their next request now, or to be closed because there is none."""
        if self._every_ns == 0 or self._ended():
            return len(self._idle)
        now_ns = time.monotonic_ns()
        self._due_ns = max(self._due_ns, now_ns - round(_MOST_BEHIND_S * 1e9))
        due = min(len(self._idle), max(0, (now_ns - self._due_ns) // self._every_ns + 1))
        self._due_ns += due * self._every_ns
        return due

    def _patience_s(self) -> float:
        if not self._idle:
            return _POLL_S
        return min(_POLL_S, max(0.0, (self._due_ns - time.monotonic_ns()) / 1e9)) if self._every_ns else 0

    def _ended(self) -> bool:
        return self._stopping or self._left == 0 or time.monotonic_ns() >= self._deadline_ns

    def _command(self, descriptor: int) -> None:
        data = os.read(descriptor, 4096)
        if not data:
            self._stopping = True
            self._epoll.unregister(descriptor)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            word, _, name = line.decode("utf-8", "replace").strip().partition(" ")
            if word == "phase" and name:
                self._phases.append(Phase(name))
            elif word == "stop":
                self._stopping = True

    # ── One connection ─────────────────────────────────────────────────────────────────────────────────────────────
    def _next(self, connection: _Connection) -> None:
        """Sends the connection's next request, or closes it when there is none to send."""
        if self._ended():
            self._close(connection)
            return
        self._left -= 1
        phase = connection.phase = self._phases[-1]
        phase.sent += 1
        phase.in_flight += 1
        connection.sent_ns = time.monotonic_ns()
        if connection.socket is not None and self._left_by_peer(connection.socket):
            phase.closed_idle += 1
            self._close(connection)
        if connection.socket is None:
            self._open(connection)
        else:
            self._send(connection)

    @staticmethod
    def _left_by_peer(opened: socket.socket) -> bool:
        """Whether a connection between two requests was ended by the other side: clients look before they use it."""
        try:
            return opened.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _open(self, connection: _Connection) -> None:
        opened = connection.socket = socket.socket(connection.target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connected = False
        connection.answers = 0
        connection.ending = False
        self._by_descriptor[opened.fileno()] = connection
        self._epoll.register(opened.fileno(), select.EPOLLOUT)
        connection.opened_ns = time.monotonic_ns()
        try:
            opened.connect(connection.target.address)
        except BlockingIOError:
            pass  # epoll tells how it went
        except OSError as error:
            self._failed(connection, f"connect: {error.strerror}")

    def _send(self, connection: _Connection) -> None:
        assert connection.socket is not None
        try:
            # A request is a few hundred bytes and nothing else is in flight: the buffer takes it whole or not at all.
            sent = connection.socket.send(connection.target.request)
        except OSError as error:
            self._failed(connection, f"send: {error.strerror}")
            return
        if sent != len(connection.target.request):
            self._failed(connection, "send: short write")

    def _ready(self, connection: _Connection) -> None:
        assert connection.socket is not None
        if not connection.connected:
            number = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self._failed(connection, f"connect: {os.strerror(number)}")
                return
            connection.connected = True
            if connection.phase is not None:
                connection.phase.connected += 1
                connection.phase.connects_ns.append(time.monotonic_ns() - connection.opened_ns)
            self._epoll.modify(connection.socket.fileno(), select.EPOLLIN)
            self._send(connection)
            return
        if connection.phase is None:
            # It waits for its turn: what is to be read is the other side's end.
            self._phases[-1].closed_idle += 1
            self._close(connection)
            return
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(connection, f"receive: {error.strerror}")
            return
        if connection.ending:
            if data:
                self._failed(connection, "bytes after the answer")
            else:
                self._finished(connection)
            return
        if not data:
            what = "closed in the middle of an answer" if connection.received else "closed unanswered"
            self._failed(connection, what)
            return
        connection.received += data
        self._answered(connection)

    def _answered(self, connection: _Connection) -> None:
        """Judges what has been received, once it is a whole answer."""
        head_end = connection.received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(connection.received[: head_end + 4])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None:
            self._failed(connection, "answer without a status line or without Content-Length")
            return
        whole = head_end + 4 + int(length[1])
        if len(connection.received) < whole:
            return
        if len(connection.received) > whole:
            self._failed(connection, "bytes after the answer")
            return
        body = bytes(connection.received[head_end + 4 :])
        connection.received.clear()
        code = int(status[1])
        if not 200 <= code < 400:
            self._failed(connection, f"status {code}", close=_CLOSE.search(head) is not None)
            return
        assert connection.phase is not None
        connection.phase.answered(time.monotonic_ns() - connection.sent_ns, body)
        connection.answers += 1
        if self._shape.ends is Ends.SERVER:
            connection.ending = True  # its end is awaited, and its absence a loss
        else:
            self._finished(connection, close=self._shape.ends is Ends.CLIENT or _CLOSE.search(head) is not None)

    def _finished(self, connection: _Connection, *, close: bool = True) -> None:
        assert connection.phase is not None
        connection.phase.in_flight -= 1
        connection.phase = None
        if close:
            self._close(connection)
        self._idle.append(connection)

    def _failed(self, connection: _Connection, reason: str, *, close: bool = True) -> None:
        assert connection.phase is not None
        if connection.ending:
            connection.phase.ok -= 1
            reason = f"after the answer: {reason}"
        reused = connection.answers > 0
        connection.phase.lost(Loss(reason, connection.opened_ns, connection.sent_ns, time.monotonic_ns(), reused))
        connection.answers += 1
        self._finished(connection, close=close)

    def _expire(self, now_ns: int) -> None:
        for connection in self._connections:
            if connection.phase is not None and now_ns - connection.sent_ns > self._shape.timeout_s * 1e9:
                what = "no answer" if connection.connected else "connect: no answer"
                self._failed(connection, f"{what} in {self._shape.timeout_s:g} s")

    def _close(self, connection: _Connection) -> None:
        if connection.socket is not None:
            self._by_descriptor.pop(connection.socket.fileno(), None)
            connection.socket.close()  # leaves the epoll set with it
            connection.socket = None
        connection.received.clear()
