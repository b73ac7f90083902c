"""What the data path's tests share: a served pod without a namespace of its own, and an owner that remembers."""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxy.datapath.client import ClientConnection
from proxy.datapath.netns import NetnsEntry
from proxy.datapath.pod import Node, Pod
from proxy.datapath.reactor import Reactor
from proxy.datapath.stream import Stream
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.snapshot import PolicySnapshot
from proxy.telemetry.series import Telemetry

NO_POLICY = PolicySnapshot(1, {}, {}, {}, {}, ())


@contextmanager
def served_pod() -> Iterator[Pod]:
    """A pod in the namespace of the test, under a policy that names nothing."""
    reactor, entry = Reactor(), NetnsEntry()
    node = Node(reactor, Telemetry(), entry, random.Random(1), lambda proof: None, NO_POLICY)
    netns_fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        yield Pod(node, "uid", "default", "client", "default", netns_fd, 1)
    finally:
        os.close(netns_fd)
        entry.close()
        reactor.close()


@contextmanager
def client_of(pod: Pod, original: SocketAddress) -> Iterator[tuple[ClientConnection, socket.socket]]:
    """A connection that the pod's application has opened, and the application's end of it."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    stream = Stream(pod.node.reactor, ours, Remembering())
    stream.start()
    client = ClientConnection(pod, Direction.OUTBOUND, stream, "10.77.0.2", original)
    try:
        yield client, theirs
    finally:
        client.close()
        theirs.close()


@dataclass(slots=True)
class Remembering:
    """An owner of streams that notes what it is told."""

    told: list[tuple[str, object]] = field(default_factory=list)

    def on_data(self, stream: Stream, data: bytes) -> None:
        self.told.append(("data", data))

    def on_drained(self, stream: Stream) -> None:
        self.told.append(("drained", None))

    def on_connected(self, stream: Stream) -> None:
        self.told.append(("connected", None))

    def on_connect_failed(self, stream: Stream, reason: str) -> None:
        self.told.append(("connect failed", reason))


def turn(reactor: Reactor) -> None:
    """Lets everything happen that is due now."""
    reactor.call_later(0.02, reactor.stop)
    reactor.run()
    reactor._stopped = False
