"""What supervisor and worker say to each other, over one private SEQPACKET pair.

Values only; `Link` (below them) frames, pickles and carries descriptors. Pickle is safe here and only here: the pair is
made by the supervisor before the worker starts and nobody else holds an end of it.
"""

from dataclasses import dataclass
from typing import Final

from proxy.model.direction import Direction
from proxy.model.living import LivingConnection
from proxy.policy.lease import MAX_IDLE_A_POD
from proxy.telemetry.open_counts import NOT_COUNTED
from proxy.telemetry.series import TelemetryDelta


@dataclass(frozen=True, slots=True)
class ListenerKind:
    """Which of a pod's listeners a descriptor is: `family` is 4 or 6."""

    direction: Direction
    family: int


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """A pod as ZDS announced it; `netns_cookie` is SO_NETNS_COOKIE of a socket made in its namespace."""

    uid: str
    namespace: str
    name: str
    service_account: str
    netns_cookie: int


# ── supervisor → worker ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ShareCounts:
    """A descriptor beside it: memory that the supervisor reads (proxy.telemetry.open_counts). Comes before any pod."""


@dataclass(frozen=True, slots=True)
class ServePod:
    """Descriptors beside it: the pod's network namespace, then one listening socket for each of `listeners`.

    `sequence` numbers this hand-over; PodServed and PodForgotten tell it again, so that an answer that comes late is
    not taken for another's. `shared`: other workers accept on the same listeners. `idle_tokens` is the first grant of
    IDLE_CONNECTIONS, beside what the worker holds of a released pod. `count_slot`: where its open connections are
    counted (ShareCounts).
    """

    pod: PodIdentity
    listeners: tuple[ListenerKind, ...]
    sequence: int = 0
    shared: bool = False
    idle_tokens: int = MAX_IDLE_A_POD
    count_slot: int = NOT_COUNTED


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Another worker serves the pod now: accept no more for it, and keep what lives until it ends by itself. ServePod
    takes it up again; PodForgotten tells when nothing of it is left."""

    uid: str


@dataclass(frozen=True, slots=True)
class ForgetPod:
    """The pod leaves, whether it is served, was released or is leaving already.

    `drain_s` 0: everything is closed as soon as the answers under way are out, within 0.5 s. Otherwise it is patient:
    no new connection, each HTTP connection ends with its next answer (`Connection: close`) or when it stayed idle,
    relays live on; what is left after `drain_s` is cut, and told in PodForgotten.
    """

    uid: str
    drain_s: float


@dataclass(frozen=True, slots=True)
class PolicySlice:
    """A part of the next policy, for the worker to stage: `rows` are pickled ones of proxy.policy.rows, few enough for
    one go. Pickled apart: the link then only copies them, and the worker takes them up when it has the time."""

    rows: bytes


@dataclass(frozen=True, slots=True)
class PolicySwitch:
    """What was staged is in force from now on, in one step; until the first switch nothing is accepted.

    `pods_required`: on a pod's listeners only once the policy knows the pod's own object.
    """

    generation: int
    pods_required: bool = False


@dataclass(frozen=True, slots=True)
class ReportTelemetry:
    request_id: int


@dataclass(frozen=True, slots=True)
class ReportConnections:
    """Answered with LivingConnections as the worker finds the time, and then ConnectionsTold; a question that comes
    before it was takes its place. `uid`, `netns_cookie`: only of pods that are called so; `most`: to be told in all."""

    request_id: int
    most: int
    uid: str | None = None
    netns_cookie: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """ForgetPod for every pod; the process ends when the last connection has, or after `drain_s`. ForgetPod may still
    follow, and hastens."""

    drain_s: float


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered with Pong between two rounds of the worker's loop."""

    sequence: int


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """What is leased (proxy.policy.lease): a `resource` of the pod `uid`."""

    resource: str
    uid: str


IDLE_CONNECTIONS: Final = "idle-connections"
"""A resource: a pod's idle upstream connections, MAX_IDLE_A_POD in all its workers together."""


@dataclass(frozen=True, slots=True)
class GrantLease:
    """`tokens` more to use, which no other worker holds."""

    key: LeaseKey
    tokens: int


@dataclass(frozen=True, slots=True)
class RecallLease:
    """Another worker needs them: give back up to `tokens`, unused ones now, the rest as they fall free."""

    key: LeaseKey
    tokens: int


# ── worker → supervisor ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class WorkerReady:
    pid: int


@dataclass(frozen=True, slots=True)
class PodServed:
    """The worker holds the pod's listeners; it accepts on them as soon as a policy is in force."""

    uid: str
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class CutConnection:
    """A connection that was still alive when its pod's drain was over. `protocol`: http, tcp, or detecting."""

    direction: Direction
    age_s: float
    protocol: str


@dataclass(frozen=True, slots=True)
class PodForgotten:
    """Nothing of the pod is left in the worker, of the hand-over with this sequence: its namespace is free."""

    uid: str
    sequence: int = 0
    cut: tuple[CutConnection, ...] = ()

    @property
    def cut_connections(self) -> int:
        return len(self.cut)


@dataclass(frozen=True, slots=True)
class Pong:
    sequence: int


@dataclass(frozen=True, slots=True)
class AskLease:
    """The worker will run out soon; the supervisor decides how many more it grants, at once or when some come back."""

    key: LeaseKey


@dataclass(frozen=True, slots=True)
class ReturnLease:
    key: LeaseKey
    tokens: int


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    generation: int


@dataclass(frozen=True, slots=True)
class ProofSeen:
    """A proof connection of the agent arrived at a listener of the pod with this netns cookie."""

    nonce: str
    netns_cookie: int
    direction: Direction
    original_destination: str
    port: int


@dataclass(frozen=True, slots=True)
class LivingConnections:
    """A part of the answer. One that ended meanwhile may be in it, one that began may not."""

    request_id: int
    connections: tuple[LivingConnection, ...]


@dataclass(frozen=True, slots=True)
class ConnectionsTold:
    """`left_out`: clients' connections beyond what was asked for."""

    request_id: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class TelemetryReport:
    request_id: int
    delta: TelemetryDelta


ToWorker = (
    ShareCounts
    | ServePod
    | ReleasePod
    | ForgetPod
    | PolicySlice
    | PolicySwitch
    | ReportTelemetry
    | ReportConnections
    | Stop
    | Ping
    | GrantLease
    | RecallLease
)
FromWorker = (
    WorkerReady
    | PodServed
    | PodForgotten
    | PolicyInForce
    | ProofSeen
    | TelemetryReport
    | LivingConnections
    | ConnectionsTold
    | Pong
    | AskLease
    | ReturnLease
)
