"""Where the proxy connects to: a Service's endpoint, or the pod's own application.

An `Upstream` is one address as one pod reaches it, with its idle connections and its series. Nothing is shared between
pods: an idle connection of one pod never carries another's request.
"""

import errno
import socket
from typing import Final

from proxy.datapath.labels import request_labels
from proxy.datapath.pod import Pod
from proxy.datapath.stream import Stream, StreamOwner
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.routing import ServiceName
from proxy.model.workload import Workload
from proxy.policy.lease import MAX_IDLE_A_POD
from proxy.telemetry.series import RequestSeries, TcpSeries

_AF_INET: Final = int(socket.AF_INET)
_AF_INET6: Final = int(socket.AF_INET6)

IDLE_UPSTREAM_S: Final = 5.0
"""Below the keep-alive time-outs of common servers, Node's 5 s being the shortest; Linkerd's is 3 s."""

MAX_IDLE_INBOUND: Final = 4
"""Idle connections that an inbound Upstream keeps (DESIGN 6, pools), and one more for each connection that the client
still holds open: with fewer, 32 busy keep-alive connections of one client would close and open upstreams for ever."""


SETTLED_S: Final = 0.2
"""After which a connection that stays within the host has come about, even on a busy one."""


class Upstream:
    """`peer` is who calls, `workload` who is called; `source` is the address to speak from (inbound: the client's
    own) or None for the pod's. `active` counts requests and connections in flight. `unproved`: what is sent there may
    come back.
    """

    __slots__ = (
        "_flagged",
        "_max_idle",
        "_tcp_series",
        "active",
        "address",
        "answered",
        "callers",
        "direction",
        "family",
        "idle",
        "peer",
        "pod",
        "retired",
        "service",
        "source",
        "unproved",
        "workload",
    )

    def __init__(
        self,
        pod: Pod,
        direction: Direction,
        address: SocketAddress,
        service: ServiceName,
        peer: Workload,
        workload: Workload,
        source: str | None = None,
    ) -> None:
        self.pod = pod
        self.direction = direction
        self.address = address
        self.family = _AF_INET6 if ":" in address.host else _AF_INET
        self.service = service
        self.peer = peer
        self.workload = workload
        self.source = source
        self.active = 0
        self.callers = 0  # connections of inbound clients that have used it and are still open
        self.unproved = pod.node.own_ends is not None
        self.retired = False  # policy names it no longer: nothing is kept idle
        self.idle: list[Stream] = []
        self.answered: dict[int, RequestSeries] = {}  # by status, of what the server answered itself
        self._flagged: dict[tuple[int, str], RequestSeries] = {}
        self._max_idle = MAX_IDLE_A_POD if direction is Direction.OUTBOUND else MAX_IDLE_INBOUND
        self._tcp_series: TcpSeries | None = None

    def take(self, owner: StreamOwner, fresh: bool = False) -> Stream:
        """The idle connection used last (the likeliest to be alive), or a new one that is being connected.

        Raises OSError when no socket can be made; a refused connection is told to the owner later.
        """
        if self.idle and not fresh:
            stream = self.idle.pop()
            self.pod.idle_connections -= 1
            stream.owner = owner
            stream.reused = True
            return stream
        stream = Stream(self.pod.node.reactor, self.pod.sockets.take(self.family, self.source), owner)
        stream.connect(self.address)
        if self.unproved:
            self._prove(stream)
        return stream

    def _prove(self, stream: Stream) -> None:
        """Of a sidecar's: until the first connection is known to end elsewhere. Raises OSError: it ends here."""
        if self._is_led_back(stream):
            stream.close(reset=True)
            self.pod.node.count("headgate_self_calls", direction=self.direction.value)
            raise OSError(errno.ELOOP, "it is led back to this sidecar, which the pod's rules do not know as the proxy")
        self.pod.node.reactor.call_later(SETTLED_S, lambda: self._settle(stream))

    def _settle(self, stream: Stream) -> None:
        if stream.fd >= 0:
            self.unproved = self._is_led_back(stream)

    def _is_led_back(self, stream: Stream) -> bool:
        own_ends = self.pod.node.own_ends
        return own_ends is not None and own_ends.led_back(stream.sock, self.direction)

    def give_back(self, stream: Stream, now_s: float) -> None:
        """The stream finished a request and may carry another."""
        pod = self.pod
        if (
            self.retired
            or len(self.idle) >= self._max_idle + self.callers
            or (pod.idle_connections >= pod.idle_threshold and not pod.may_keep_idle())
        ):
            stream.close()
            return
        stream.owner = self
        if stream.paused:
            stream.resume()
        stream.since_s = now_s
        pod.idle_connections += 1
        if not self.idle:
            pod.resting.add(self)
        self.idle.append(stream)

    def on_data(self, stream: Stream, data: bytes) -> None:
        """An idle stream ended, or brought bytes that nobody asked for: of no use either way."""
        self._drop(stream)

    def on_drained(self, stream: Stream) -> None: ...

    def on_connected(self, stream: Stream) -> None: ...

    def on_connect_failed(self, stream: Stream, reason: str) -> None:
        if stream in self.idle:
            self._drop(stream)

    def expire(self, now_s: float) -> None:
        """Close what has been idle too long; the oldest is first, since the list is used as a stack."""
        while self.idle and now_s - self.idle[0].since_s > IDLE_UPSTREAM_S:
            self._drop(self.idle[0])
        if not self.idle:
            self.pod.resting.discard(self)

    def retire(self) -> None:
        self.retired = True
        while self.idle:
            self._drop(self.idle[-1])

    def _drop(self, stream: Stream) -> None:
        self.idle.remove(stream)
        self.pod.idle_connections -= 1
        stream.close()

    def series(self, status: int, flags: str) -> RequestSeries:
        found = self.answered.get(status) if flags == "-" else self._flagged.get((status, flags))
        if found is None:
            labels = request_labels(self.direction, self.peer, self.workload, self.service, "http", str(status), flags)
            found = self.pod.node.telemetry.requests(labels)
            if flags == "-":
                self.answered[status] = found
            else:
                self._flagged[status, flags] = found
        return found

    def tcp_series(self) -> TcpSeries:
        if self._tcp_series is None:
            labels = request_labels(self.direction, self.peer, self.workload, self.service, "tcp", "0", "-")
            self._tcp_series = self.pod.node.telemetry.connections(labels)
        return self._tcp_series
