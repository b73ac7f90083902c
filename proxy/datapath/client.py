"""A pod's connection that the kernel led here, whatever it speaks."""

from typing import Protocol, cast

from proxy.datapath.destinations import Destination, destination_of
from proxy.datapath.pod import Node, Pod
from proxy.datapath.stream import Stream, StreamOwner
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction


class ClientOwner(StreamOwner, Protocol):
    """Who serves a client's stream: detection, HTTP, a relay, or the end."""

    def expire(self, now_s: float) -> None: ...

    def abort(self) -> None: ...


class ClientConnection:
    """`host` is the address that called; `original` where it was going before the redirect."""

    __slots__ = ("direction", "host", "node", "original", "pod", "stream")

    def __init__(self, pod: Pod, direction: Direction, stream: Stream, host: str, original: SocketAddress) -> None:
        self.pod = pod
        self.node: Node = pod.node
        self.direction = direction
        self.stream = stream
        self.host = host
        self.original = original
        pod.connections.add(self)

    def destination(self) -> Destination:
        """Under the policy that is in force now. Call only once there is one."""
        assert self.node.policy is not None
        return destination_of(self.pod, self.direction, self.original, self.node.policy)

    def serve(self, owner: ClientOwner) -> None:
        self.stream.owner = owner

    def close(self, reset: bool = False) -> None:
        self.pod.connections.discard(self)
        self.stream.close(reset)

    def expire(self, now_s: float) -> None:
        cast(ClientOwner, self.stream.owner).expire(now_s)

    def abort(self) -> None:
        cast(ClientOwner, self.stream.owner).abort()
