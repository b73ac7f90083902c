"""One served pod as the worker holds it, and what its sockets share."""

import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from proxy.api.constants import PROXY_MARK
from proxy.datapath.netns import NetnsEntry
from proxy.datapath.reactor import Reactor
from proxy.model.direction import Direction
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import NOBODY, Workload
from proxy.telemetry.series import CounterKey, Telemetry

if TYPE_CHECKING:
    from proxy.datapath.destinations import Destination

SO_MARK: Final = 36
"""include/uapi/asm-generic/socket.h"""
IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
IP_BIND_ADDRESS_NO_PORT: Final = 24
"""include/uapi/linux/in.h, in6.h"""

_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


@dataclass(slots=True)
class Node:
    """What all pods of a worker share. `policy` is replaced as a whole; None until the first one came."""

    reactor: Reactor
    telemetry: Telemetry
    entry: NetnsEntry
    chance: random.Random
    report_proof: Callable[["ProofReport"], None]
    policy: PolicySnapshot | None = None

    def count(self, name: str, **labels: str) -> None:
        self.telemetry.count(CounterKey(name, tuple(labels), tuple(labels.values())))


@dataclass(frozen=True, slots=True)
class ProofReport:
    nonce: str
    netns_cookie: int
    direction: Direction
    original_destination: str
    port: int


@dataclass(slots=True, eq=False)
class Pod:
    """`destinations` remembers what was looked up, by direction and original address; `connections` are those that
    live, so that leaving the mesh can end them."""

    node: Node
    uid: str
    namespace: str
    name: str
    service_account: str
    netns_fd: int
    netns_cookie: int
    destinations: dict[tuple[Direction, str, int], "Destination"] = field(default_factory=dict)
    connections: set["Connection"] = field(default_factory=set)
    workload: Workload = NOBODY
    idle_connections: int = 0

    def upstream_socket(self, family: int, source: str | None) -> socket.socket:
        """A marked, non-blocking TCP socket made in the pod's namespace; `source` is an address to speak from that
        need not be the pod's (transparent), its port left to the kernel until connect.

        Raises OSError: EMFILE (the worker's descriptors are used up), EPERM (CAP_NET_ADMIN or CAP_NET_RAW missing).
        """
        with self.node.entry.enter(self.netns_fd):
            sock = socket.socket(family, _STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, PROXY_MARK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source is not None:
                if family == socket.AF_INET:
                    sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
                else:
                    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
        except OSError:
            sock.close()
            raise
        return sock


class Connection(Protocol):
    """What a pod can do with each of its living connections, whatever they speak."""

    def expire(self, now_s: float) -> None:
        """Called every tick with `time.monotonic()`: close if a time-out has passed."""

    def drain(self) -> None:
        """The pod leaves the mesh: end as soon as that cuts nothing."""

    def abort(self) -> None:
        """Close both sides now."""
