"""A pod's connection that the kernel led here, whatever it speaks."""

from time import monotonic
from typing import Final, NamedTuple, Protocol, cast

from proxy.datapath.destinations import Destination, destination_of
from proxy.datapath.pod import Node, Pod
from proxy.datapath.stream import Stream, StreamOwner
from proxy.datapath.upstream import Upstream
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.routing import ServiceName


class Course(NamedTuple):
    """Where a client's connection leads at the moment: None and "" for what is not decided, or between two requests."""

    service: ServiceName | None = None
    route: str = ""
    upstream: Upstream | None = None
    stream: Stream | None = None


NO_COURSE: Final = Course()


class ClientOwner(StreamOwner, Protocol):
    """Who serves a client's stream: detection, HTTP, a relay, or the end."""

    def expire(self, now_s: float) -> None: ...

    @property
    def protocol(self) -> str: ...

    def course(self) -> Course: ...

    def drain(self, patient: bool) -> None: ...

    def abort(self) -> None: ...


class ClientConnection:
    """`host` is the address that called; `original` where it was going before the redirect."""

    __slots__ = ("_upstream", "direction", "host", "node", "original", "pod", "stream")

    def __init__(self, pod: Pod, direction: Direction, stream: Stream, host: str, original: SocketAddress) -> None:
        self.pod = pod
        self.node: Node = pod.node
        self.direction = direction
        self.stream = stream
        stream.since_s = monotonic()
        self.host = host
        self.original = original
        self._upstream: Upstream | None = None  # inbound
        pod.connections.add(self)
        pod.open_count[0] = len(pod.connections)

    def destination(self) -> Destination:
        """Under the policy that is in force now. Call only once there is one."""
        assert self.node.policy is not None
        return destination_of(self.pod, self.direction, self.original, self.node.policy)

    def inbound_upstream(self, destination: Destination) -> Upstream:
        """The application behind an inbound destination, as this client's address reaches it."""
        upstream = destination.inbound_upstream(self.host)
        if upstream is not self._upstream:
            self._hold(upstream)
        return upstream

    def serve(self, owner: ClientOwner) -> None:
        self.stream.owner = owner

    def close(self, reset: bool = False) -> None:
        pod = self.pod
        pod.connections.discard(self)
        pod.open_count[0] = len(pod.connections)
        self._hold(None)
        self.stream.close(reset)

    def expire(self, now_s: float) -> None:
        if self.stream.fd >= 0:
            cast(ClientOwner, self.stream.owner).expire(now_s)

    @property
    def since_s(self) -> float:
        return self.stream.since_s

    @property
    def protocol(self) -> str:
        return cast(ClientOwner, self.stream.owner).protocol

    def course(self) -> Course:
        return cast(ClientOwner, self.stream.owner).course()

    def drain(self, patient: bool) -> None:
        cast(ClientOwner, self.stream.owner).drain(patient)

    def _hold(self, upstream: Upstream | None) -> None:
        """Be counted among the callers of one upstream at most."""
        if self._upstream is not None:
            self._upstream.callers -= 1
        self._upstream = upstream
        if upstream is not None:
            upstream.callers += 1

    def abort(self) -> None:
        cast(ClientOwner, self.stream.owner).abort()
