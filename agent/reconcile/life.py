"""What a pod's life consists of: states, what is known, what happens, what is to be done. Values only."""

from dataclasses import dataclass, field
from enum import Enum

from agent.plan import PlanSettings, RedirectPlan
from agent.pods import IPAddress, NetnsId, PodRef, Proofs


class State(Enum):
    SEEN = "seen"
    LOCATED = "located"
    PLANNED = "planned"
    ANNOUNCED = "announced"
    INSTALLED = "installed"
    PROVED = "proved"
    DRIFTED = "drifted"  # the kernel no longer holds the plan; being put right
    PENDING = "pending"  # waits for the proxy; tried again every retry_s
    FAILED = "failed"  # cannot be enrolled as it is; stays as it was, looked at again, less and less often
    LEAVING = "leaving"
    DISABLED = "disabled"  # its label keeps it out of the mesh
    GONE = "gone"


class Timer(Enum):
    RETRY = "retry"
    RECHECK = "recheck"
    PROVE = "prove"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class LifeSettings:
    """Seconds. `retry_s`: ztunnel's pace for pending workloads (inpod statemanager, 5 s); the others are DESIGN 5's.

    A failed pod is looked at again after `first_recheck_s`, then after twice as long each time, up to `recheck_s`: a
    namespace is often named before its address is there, and kubelet restarts a container after seconds.
    """

    plan: PlanSettings = field(default_factory=PlanSettings)
    retry_s: float = 5.0
    first_recheck_s: float = 1.0
    recheck_s: float = 60.0
    prove_every_s: float = 60.0
    prove_again_s: float = 5.0
    drain_s: float = 30.0
    drain_poll_s: float = 0.5


# ── What is known ──────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class PortConflict:
    """A port of the proxy's on which somebody else listens; pid 0 when the process cannot be seen."""

    port: int
    pid: int
    command: str

    def __str__(self) -> str:
        owner = f"process {self.pid} ({self.command})" if self.pid else "a process the agent cannot see"
        return f"port {self.port} is taken by {owner}"


class Held(Enum):
    """What a namespace holds of ours. An agent that begins finds there what the one before it left in force.

    A return path alone is what an install or a removal leaves that was cut short, or somebody who deleted the tables.
    RULES where the proxy's listeners are there too. Where they are not it captures nothing, as the drain form: rules
    in a pod that may never have been enrolled must not go in before a proxy is there.
    """

    NOTHING = "nothing"
    RULES = "rules"  # tables in the steering form, whole or damaged
    DRAIN_FORM = "drain form"  # captures nothing, keeps what was steered translated
    SIDECARS = "a sidecar's rules"  # `headgate init` put them there, for the pod's own proxy: nothing of the node's


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in the namespace, before anything is changed there. `netns_cookie`: SO_NETNS_COOKIE, 0 unknown."""

    addresses: tuple[IPAddress, ...]
    conflicts: tuple[PortConflict, ...] = ()
    held: Held = Held.NOTHING
    netns_cookie: int = 0


@dataclass(frozen=True, slots=True)
class Life:
    """One pod in one network namespace. `reason` tells why the state is not better; empty when nothing is wrong.

    `looked_at`: until the first look succeeds, the agent does not know what the one before it left in the namespace
    and with the proxy. `installed`: something of ours is in force there, `drained`: and it is the drain form.
    `announced`: a proxy may serve the pod, on this agent's word or on a former one's, and is to be told of the end.
    `plan` is what the pod is to have; while that is not in force yet, `replaces` is what is.
    """

    pod: PodRef
    netns_path: str
    netns_id: NetnsId
    state: State = State.SEEN
    reason: str = ""
    complaint: str = ""  # what the pod asks for and cannot get, while what is in force stays; or why it leaves
    plan: RedirectPlan | None = None
    replaces: RedirectPlan | None = None
    looked_at: bool = False
    announced: bool = False
    installed: bool = False
    drained: bool = False
    proofs: Proofs | None = None
    timer: Timer | None = None
    drain_left_s: float = 0.0
    ending: State | None = None  # while LEAVING: DISABLED, FAILED or GONE; before the first look: GONE
    successor: "Seen | None" = None  # while LEAVING: same pod, other namespace
    failures: int = 0  # one after the other, since it was installed or told anew

    @property
    def capturing(self) -> bool:
        """New connections of the pod are led to the proxy, as far as the agent knows."""
        return self.installed and not self.drained

    @property
    def plan_in_force(self) -> RedirectPlan | None:
        """None: nothing of ours, or what only a former agent could name."""
        return self.replaces or self.plan


# ── Events ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Seen:
    """A source tells of the pod, for the first time or again."""

    pod: PodRef
    netns_path: str
    netns_id: NetnsId


@dataclass(frozen=True, slots=True)
class Left:
    """The source no longer has the pod. Its namespace may or may not exist."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The agent ends and is to leave nothing behind."""


@dataclass(frozen=True, slots=True)
class NetnsLost:
    """An action found the namespace gone or replaced."""

    reason: str


@dataclass(frozen=True, slots=True)
class NetnsUnfit:
    """An action found a namespace that the agent may not touch: the node's own, or none at all."""

    reason: str


@dataclass(frozen=True, slots=True)
class Inspected:
    inspection: Inspection


@dataclass(frozen=True, slots=True)
class Acked:
    """The proxy has its listeners in the namespace."""


@dataclass(frozen=True, slots=True)
class Nacked:
    reason: str


@dataclass(frozen=True, slots=True)
class ProxyAbsent:
    """No proxy is connected."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Rules and return path are in force."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The kernel refused the last action; nothing of it was applied."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drifted:
    """The kernel no longer holds the plan: what is different, in words, and who did it ("" when nobody saw)."""

    changes: tuple[str, ...]
    by: str = ""


@dataclass(frozen=True, slots=True)
class Healed:
    """The plan is in force again, by one transaction. `slipped`: connections that went past the mesh meanwhile; `cut`:
    steered connections that did not live through it."""

    slipped: int
    cut: int


@dataclass(frozen=True, slots=True)
class ProxyParked:
    """No proxy came for --park-timeout: the stored listeners were closed. Nothing is to be done, it is to be said."""


@dataclass(frozen=True, slots=True)
class ProofsTaken:
    proofs: Proofs


@dataclass(frozen=True, slots=True)
class ProofsWait:
    """Proofs are to be taken, and nobody would answer before the proxy has its policy. ProofsTaken follows."""


@dataclass(frozen=True, slots=True)
class ProveNow:
    """Somebody asks for the proofs."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The drain form is in force: nothing new is captured."""


@dataclass(frozen=True, slots=True)
class SteeredLeft:
    """How many steered connections are alive."""

    count: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Tables and return path are gone."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Every proxy was told to forget the pod."""


@dataclass(frozen=True, slots=True)
class Due:
    timer: Timer


Event = (
    Seen | Left | Stop | NetnsLost | NetnsUnfit | Inspected | Acked | Nacked | ProxyAbsent | Installed | Refused
    | Drifted | Healed | ProxyParked | ProofsWait | ProofsTaken | ProveNow | Drained | SteeredLeft | Removed | Withdrawn
    | Due
)  # fmt: skip


# ── Actions ────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Inspect:
    """Open the namespace, read addresses and listeners."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Hand the namespace to the proxy and wait for its answer."""


@dataclass(frozen=True, slots=True)
class Install:
    """`replaces`: the plan in force until then, when it is another one: what that left alone has not slipped by."""

    plan: RedirectPlan
    replaces: RedirectPlan | None = None


@dataclass(frozen=True, slots=True)
class Heal:
    """Put the plan in force again and count what the gap cost; a namespace that holds it is left as it is."""

    plan: RedirectPlan


@dataclass(frozen=True, slots=True)
class Prove:
    """Take the four proofs; other actions do not wait for them."""


@dataclass(frozen=True, slots=True)
class Drain:
    plan: RedirectPlan


@dataclass(frozen=True, slots=True)
class CountSteered:
    pass


@dataclass(frozen=True, slots=True)
class Remove:
    plan: RedirectPlan


@dataclass(frozen=True, slots=True)
class Withdraw:
    pass


@dataclass(frozen=True, slots=True)
class Wake:
    """Send Due(timer) after this time; takes the place of a timer set before."""

    timer: Timer
    after_s: float


@dataclass(frozen=True, slots=True)
class Begin:
    """A new life begins for the same pod in another namespace, beside this one's end. What the source has told since
    goes to the new one, in order and at once: what it tells next is newer."""

    seen: Seen


Action = Inspect | Announce | Install | Heal | Prove | Drain | CountSteered | Remove | Withdraw | Wake | Begin
Step = tuple[Life, tuple[Action, ...]]
