"""A keep-alive HTTP/1.1 load on plain sockets: N connections, one request in flight on each, every answer checked.

Runs in a process of its own, in the namespace it is started in (`headgate lab run POD -- headgate lab load …`), on one
thread over epoll, and always ends: after `requests`, or `seconds`. A request counts for the phase in which it was
*sent*; a phase that was asked for on standard input is announced as begun only when no request of an earlier one is in
flight, so that what is changed afterwards cannot touch them.

Standard input, one command a line: `phase NAME`, `stop` (or its end). Standard output: one JSON object a line, `event`
being `phase` (begun), `progress` (four a second) and last `result`.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from agent.lab import figures
from agent.lab.errors import LabError

REQUEST_TIMEOUT_S: Final = 5.0
PROGRESS_NS: Final = 250_000_000
_POLL_S: Final = 0.05
_MOST_DISTINCT: Final = 64
"""Clients and pods told apart by their answers; a server that answers nonsense must not fill memory."""
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: an address (a name is not looked up), and the bytes of a request."""

    family: int
    address: tuple[str, int]
    request: bytes


@dataclass(slots=True)
class Phase:
    """What was counted between two marks."""

    name: str
    sent: int = 0
    ok: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    pods: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    latencies_ns: list[int] = field(default_factory=list)
    in_flight: int = 0

    def as_json(self) -> dict[str, Any]:
        ordered = sorted(self.latencies_ns)
        return {
            "sent": self.sent,
            "ok": self.ok,
            "failed": sum(self.reasons.values()),
            "reasons": dict(self.reasons),
            "pods": dict(self.pods),
            "clients": dict(self.clients),
            "latency_ns": {f"p{share}": figures.percentile(ordered, share / 100) for share in (50, 90, 99)},
            "buckets": list(figures.buckets(ordered)),
        }


@dataclass(slots=True, eq=False)
class _Connection:
    target: Target
    socket: socket.socket | None = None
    connected: bool = False
    phase: Phase | None = None
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


class Load:
    """The load itself. `run` blocks until its end and returns the result; `emit` gets each event as it happens."""

    def __init__(
        self, targets: Sequence[Target], *, connections: int, requests: int, seconds: float, first_phase: str = "load"
    ) -> None:
        if not targets or connections < 1 or requests < 1 or seconds <= 0:
            raise LabError("a load needs a URL, and connections, requests and seconds above 0")
        self._phases = [Phase(first_phase)]
        self._connections = [_Connection(targets[index % len(targets)]) for index in range(connections)]
        self._by_descriptor: dict[int, _Connection] = {}
        self._idle = list(self._connections)
        self._epoll = select.epoll()
        self._left = requests
        self._deadline_ns = time.monotonic_ns() + round(seconds * 1e9)
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
            "all": _together(self._phases).as_json(),
        }

    def _loop(self, emit: Callable[[dict[str, Any]], None], control: int | None) -> None:
        progress_ns = time.monotonic_ns() + PROGRESS_NS
        while self._idle or any(phase.in_flight for phase in self._phases):
            idle, self._idle = self._idle, []  # those that fail at once are idle again, and wait for the next round
            for connection in idle:
                self._next(connection)
            for descriptor, _ in self._epoll.poll(0 if self._idle else _POLL_S):
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
        if self._stopping or self._left == 0 or time.monotonic_ns() >= self._deadline_ns:
            self._close(connection)
            return
        self._left -= 1
        phase = connection.phase = self._phases[-1]
        phase.sent += 1
        phase.in_flight += 1
        connection.sent_ns = time.monotonic_ns()
        if connection.socket is None:
            self._open(connection)
        else:
            self._send(connection)

    def _open(self, connection: _Connection) -> None:
        opened = connection.socket = socket.socket(connection.target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connected = False
        self._by_descriptor[opened.fileno()] = connection
        self._epoll.register(opened.fileno(), select.EPOLLOUT)
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
            self._epoll.modify(connection.socket.fileno(), select.EPOLLIN)
            self._send(connection)
            return
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(connection, f"receive: {error.strerror}")
            return
        if not data:
            self._failed(
                connection, "closed in the middle of an answer" if connection.received else "closed unanswered"
            )
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
            self._count(connection, f"status {code}")
        else:
            self._count(connection, None, body)
        if _CLOSE.search(head):
            self._close(connection)
        self._idle.append(connection)

    def _failed(self, connection: _Connection, reason: str) -> None:
        self._close(connection)
        self._count(connection, reason)
        self._idle.append(connection)

    def _count(self, connection: _Connection, reason: str | None, body: bytes = b"") -> None:
        phase = connection.phase
        assert phase is not None
        connection.phase = None
        phase.in_flight -= 1
        if reason is not None:
            phase.reasons[reason] += 1
            return
        phase.ok += 1
        phase.latencies_ns.append(time.monotonic_ns() - connection.sent_ns)
        pod, client = _who(body)
        for counter, key in ((phase.pods, pod), (phase.clients, client)):
            counter[key if key in counter or len(counter) < _MOST_DISTINCT else "others"] += 1

    def _expire(self, now_ns: int) -> None:
        for connection in self._connections:
            if connection.phase is not None and now_ns - connection.sent_ns > REQUEST_TIMEOUT_S * 1e9:
                self._failed(connection, f"no answer in {REQUEST_TIMEOUT_S:g} s")

    def _close(self, connection: _Connection) -> None:
        if connection.socket is not None:
            self._by_descriptor.pop(connection.socket.fileno(), None)
            connection.socket.close()  # leaves the epoll set with it
            connection.socket = None
        connection.received.clear()


def _together(phases: Sequence[Phase]) -> Phase:
    whole = Phase("all")
    for phase in phases:
        whole.sent += phase.sent
        whole.ok += phase.ok
        whole.reasons += phase.reasons
        whole.pods += phase.pods
        whole.clients += phase.clients
        whole.latencies_ns += phase.latencies_ns
    return whole


def _who(body: bytes) -> tuple[str, str]:
    """Which pod answered and which client address it saw, as the lab's servers tell in their JSON."""
    try:
        answer = json.loads(body)
        return str(answer["pod"])[:64], str(answer["client"])[:64]
    except (ValueError, KeyError, TypeError):
        return "unknown", "unknown"
