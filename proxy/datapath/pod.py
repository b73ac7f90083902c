"""One served pod as the worker holds it, and what its sockets share."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from proxy.datapath.netns import Entry
from proxy.datapath.own_ends import OwnEnds
from proxy.datapath.reactor import Reactor
from proxy.datapath.standing import NODE, Standing
from proxy.datapath.upstream_sockets import UpstreamSockets
from proxy.model.direction import Direction
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import NOBODY, Workload
from proxy.policy.lease import MAX_IDLE_A_POD, batch_of
from proxy.telemetry.series import CounterKey, Telemetry

if TYPE_CHECKING:
    from proxy.datapath.destinations import Destination
    from proxy.datapath.upstream import Upstream


@dataclass(slots=True)
class Node:
    """What all pods of a worker share. `policy` is replaced as a whole; None until the first one came."""

    reactor: Reactor
    telemetry: Telemetry
    entry: Entry
    chance: random.Random
    report_proof: Callable[["ProofReport"], None]
    policy: PolicySnapshot | None = None
    ask_idle: Callable[[str], None] = lambda uid: None
    """Asks the supervisor for more of IDLE_CONNECTIONS for a pod; the answer comes later, or never."""
    standing: Standing = NODE
    own_ends: OwnEnds | None = None
    """Of a sidecar."""

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
    live, so that leaving the mesh can end them; `resting` are the upstreams that may hold idle connections.
    `draining`: every answer is the last of its connection.

    `open_count[0]` is the number of `connections`, where a supervisor reads it when this process has been killed.

    Of the idle upstream connections that all workers may keep together, this one may keep `idle_granted`, has promised
    to give `idle_owed` back, and asks for more from `idle_threshold` on.
    """

    node: Node
    uid: str
    namespace: str
    name: str
    service_account: str
    netns_fd: int
    netns_cookie: int
    destinations: dict[tuple[Direction, str, int], "Destination"] = field(default_factory=dict)
    connections: set["Connection"] = field(default_factory=set)
    resting: set["Upstream"] = field(default_factory=set)
    workload: Workload = NOBODY
    draining: bool = False
    idle_connections: int = 0
    idle_granted: int = MAX_IDLE_A_POD
    idle_owed: int = 0
    idle_threshold: int = MAX_IDLE_A_POD
    open_count: memoryview | list[int] = field(default_factory=lambda: [0])
    sockets: UpstreamSockets = field(init=False)
    _idle_asked: bool = False

    def __post_init__(self) -> None:
        self.sockets = UpstreamSockets(self.node.entry, self.netns_fd, self.node.standing)

    def set_idle_threshold(self) -> None:
        """After each grant. Half a batch before the end: the next one is there before the last token is used."""
        self._idle_asked = False
        alone = self.idle_granted >= MAX_IDLE_A_POD
        self.idle_threshold = self.idle_granted if alone else max(0, self.idle_granted - batch_of(MAX_IDLE_A_POD) // 2)

    def may_keep_idle(self) -> bool:
        """Whether one more connection may be kept idle, when `idle_threshold` are."""
        if not self._idle_asked and self.idle_granted < MAX_IDLE_A_POD:
            self._idle_asked = True
            self.node.ask_idle(self.uid)
        return self.idle_connections < self.idle_granted

    def take_unused_idle(self) -> int:
        """Tokens out of what is owed that are not in use: no longer granted from now on."""
        tokens = min(self.idle_owed, max(0, self.idle_granted - self.idle_connections))
        self.idle_owed -= tokens
        self.idle_granted -= tokens
        self.idle_threshold = min(self.idle_threshold, self.idle_granted)
        return tokens


class Connection(Protocol):
    """What a pod can do with each of its living connections, whatever they speak."""

    direction: Direction

    @property
    def since_s(self) -> float:
        """When it was accepted (time.monotonic)."""

    @property
    def protocol(self) -> str:
        """http, tcp or detecting; "" when everything was said, and only the peer's end is awaited."""

    def expire(self, now_s: float) -> None:
        """Called every tick with `time.monotonic()`: close if a time-out has passed."""

    def drain(self, patient: bool) -> None:
        """The pod leaves: end as soon as that cuts nothing. `patient`: one that is idle waits for a last request."""

    def abort(self) -> None:
        """Close both sides now."""
