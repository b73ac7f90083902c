"""Telling what lives in a worker: a slice a turn, so that whoever has a request under way does not notice."""

import socket
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from proxy.datapath.client import ClientConnection
from proxy.datapath.labels import PASSTHROUGH
from proxy.datapath.pod import Connection, Pod
from proxy.datapath.stream import Stream
from proxy.datapath.upstream import Upstream
from proxy.model.address import SocketAddress
from proxy.model.living import CLOSING, IDLE, LivingConnection
from proxy.model.routing import ServiceName
from proxy.model.workload import NOBODY

A_TURN: Final = 32
"""Connections told in one go, with their three system calls each and the pickling of all: 0.4 to 0.7 ms of the 2 ms
that a slice may take (DESIGN 6)."""

REST_S: Final = 0.002
"""Between two slices: a request that takes four turns of the loop meets one slice or two, not four. Measured with
30,000 connections in two workers and a request every 0.8 ms: they take 2.8 s, for which its median is 1.7 times and its
p99 2.4 times what it is otherwise; without the rest it was ten times and four times, for a third as long."""

ROOM_S: Final = 0.005
"""Until the next slice is tried, when the supervisor has not taken the last one yet."""


class Walk:
    """Over the living connections of pods, as they are when their turn comes.

    `tell` is given each slice, `has_room` says whether there may be another; `end` is told how many clients'
    connections were left out. `later` is the reactor's call_later.
    """

    __slots__ = ("_connections", "_end", "_has_room", "_idle", "_later", "_left", "_pods", "_stopped", "_tell")

    def __init__(
        self,
        pods: Iterable[Pod],
        most: int,
        tell: Callable[[tuple[LivingConnection, ...]], None],
        end: Callable[[int], None],
        has_room: Callable[[], bool],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._pods = list(pods)
        self._connections: list[Connection] = []  # of the pod whose turn it is
        self._idle: list[tuple[Upstream, Stream]] = []
        self._left = most
        self._tell = tell
        self._end = end
        self._has_room = has_room
        self._later = later
        self._stopped = False

    def stop(self) -> None:
        """Nothing more is told, not even the end."""
        self._stopped = True

    def step(self) -> None:
        """A slice, and the next one in a later turn. Call it once."""
        if self._stopped:
            return
        if not self._has_room():
            self._later(ROOM_S, self.step)
            return
        now_s = monotonic()
        told: list[LivingConnection] = []
        for _ in range(A_TURN):
            if self._left <= 0 or not (self._connections or self._idle or self._next_pod()):
                break
            found = self._next(now_s)
            if found is not None:
                told.append(found)
                self._left -= 1
        if told:
            self._tell(tuple(told))
        if self._left > 0 and (self._connections or self._idle or self._pods):
            self._later(REST_S, self.step)
        else:
            self._end(len(self._connections) + sum(len(pod.connections) for pod in self._pods))

    def _next_pod(self) -> bool:
        while self._pods:
            pod = self._pods.pop()
            self._connections = list(pod.connections)
            self._idle = [(upstream, stream) for upstream in pod.resting for stream in upstream.idle]
            if self._connections or self._idle:
                return True
        return False

    def _next(self, now_s: float) -> LivingConnection | None:
        if self._connections:
            connection = self._connections.pop()
            return told_of(connection, now_s) if isinstance(connection, ClientConnection) else None
        return _told_of_idle(*self._idle.pop(), now_s)


def told_of(client: ClientConnection, now_s: float) -> LivingConnection | None:
    """None when it has ended."""
    stream = client.stream
    if stream.fd < 0:
        return None
    course = client.course()
    server, upstream = course.stream, course.upstream
    if server is None or server is stream or upstream is None or server.fd < 0:
        near, far, workload = None, None, ""
    else:
        near, far, workload = _name(server.sock), upstream.address, _workload(upstream)
    return LivingConnection(
        client.pod.uid,
        client.pod.netns_cookie,
        client.direction.value,
        client.protocol or CLOSING,
        _peer(stream.sock),
        _name(stream.sock),
        client.original,
        near,
        far,
        _service(course.service),
        course.route,
        workload,
        now_s - client.since_s,
    )


def _told_of_idle(upstream: Upstream, stream: Stream, now_s: float) -> LivingConnection | None:
    if stream.fd < 0 or stream.owner is not upstream:  # in use again, so its client tells of it
        return None
    pod = upstream.pod
    return LivingConnection(
        pod.uid,
        pod.netns_cookie,
        upstream.direction.value,
        IDLE,
        None,
        None,
        upstream.address,
        _name(stream.sock),
        upstream.address,
        _service(upstream.service),
        "",
        _workload(upstream),
        now_s - stream.since_s,
    )


def _service(service: ServiceName | None) -> str:
    if service is None:
        return ""
    return service.name if service is PASSTHROUGH else service.host


def _workload(upstream: Upstream) -> str:
    called = upstream.workload
    return "" if called is NOBODY else f"{called.namespace}/{called.pod}"


def _peer(sock: socket.SocketType) -> SocketAddress | None:
    try:
        return SocketAddress(*sock.getpeername()[:2])
    except OSError:  # reset, and not yet noticed
        return None


def _name(sock: socket.SocketType) -> SocketAddress | None:
    try:
        return SocketAddress(*sock.getsockname()[:2])
    except OSError:
        return None
