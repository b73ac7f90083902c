"""What supervisor and worker say to each other, over one private SEQPACKET pair.

Values only; `Link` (below them) frames, pickles and carries descriptors. Pickle is safe here and only here: the pair is
made by the supervisor before the worker starts and nobody else holds an end of it.
"""

from dataclasses import dataclass

from proxy.model.direction import Direction
from proxy.model.snapshot import PolicySnapshot
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
class ServePod:
    """Descriptors beside it: the pod's network namespace, then one listening socket for each of `listeners`."""

    pod: PodIdentity
    listeners: tuple[ListenerKind, ...]


@dataclass(frozen=True, slots=True)
class ForgetPod:
    """Stop accepting for the pod; its connections may end by themselves within `drain_s`, then they are closed."""

    uid: str
    drain_s: float


@dataclass(frozen=True, slots=True)
class UsePolicy:
    """From now on new requests follow this snapshot; until the first one nothing is accepted."""

    snapshot: PolicySnapshot


@dataclass(frozen=True, slots=True)
class ReportTelemetry:
    request_id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop accepting everywhere, end when the last connection has ended or after `drain_s`."""

    drain_s: float


# ── worker → supervisor ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class WorkerReady:
    pid: int


@dataclass(frozen=True, slots=True)
class PodServed:
    """The worker holds the pod's listeners; it accepts on them as soon as a policy is in force."""

    uid: str


@dataclass(frozen=True, slots=True)
class PodForgotten:
    uid: str
    cut_connections: int


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
class TelemetryReport:
    request_id: int
    delta: TelemetryDelta


ToWorker = ServePod | ForgetPod | UsePolicy | ReportTelemetry | Stop
FromWorker = WorkerReady | PodServed | PodForgotten | PolicyInForce | ProofSeen | TelemetryReport
