"""What is known of a pod, its agent, its proxy and its namespace when somebody asks why it is not in the mesh. Values.

What could not be looked at is `Unknown`, with the reason; it is never taken for well, nor for wrong. Strings in here
come from pods, files and other processes: they are made printable where they are shown.
"""

from dataclasses import dataclass
from enum import Enum

from agent.pods import IPAddress


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not looked at, or not to be seen from here."""

    reason: str


class Silence(Enum):
    """How a socket answers that does not answer."""

    ABSENT = "absent"  # nobody listens: no such file, or the file of a process that has ended
    FORBIDDEN = "forbidden"  # there, and not ours to open
    MUTE = "mute"  # somebody listens and says nothing
    STRANGE = "strange"  # what is said cannot be understood


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """`pid`: of who listens there, 0 unknown; `pid_state`: its state in proc(5), as `T` (stopped), "" unknown."""

    silence: Silence
    socket: str
    detail: str = ""
    pid: int = 0
    pid_state: str = ""


# ── Told by the agent ──────────────────────────────────────────────────────────────────────────────────────────────
class SourceKind(Enum):
    FILE = "file"  # the pods file `place` lists them
    NAMES = "names"  # each namespace named in the directory `place` is one
    CLUSTER = "cluster"  # labels select them; `place` is the API server


@dataclass(frozen=True, slots=True)
class Source:
    """Where the agent's pods come from. `pods`: those that it tells of, as NAMESPACE/NAME."""

    kind: SourceKind
    place: str
    problems: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Objects:
    """Kubernetes objects that the agent tells proxies of; None in Agent: the proxy has its own source. `place`: their
    directory, or the API server. `complete`: all of them are known to the agent."""

    place: str
    complete: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """`netns_id`: of the namespace that the agent itself runs in."""

    source: Source
    proxy_connected: bool
    objects: Objects | None
    backend: str
    netns_id: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Which annotation (or the node's default) decided `what`; `overruled`: (key, value) of those that lost."""

    what: str
    key: str
    value: str
    overruled: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the pod's annotations ask for. `error`: which key, which value and why it cannot be given; "" when all can.
    `noted`: read, and without effect here."""

    error: str = ""
    origins: tuple[Origin, ...] = ()
    noted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Between plan and kernel, at this moment. `foreign`: others' chains that may come before ours, in words."""

    changes: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proved:
    """One of the four: out4, out6, in4, in6. `result`: ok, failed, absent, exempt."""

    name: str
    result: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProbePath:
    """To one address of the pod; `status`: a value of agent.pods.probe_path.PathStatus. `fails`: whatever the
    application does."""

    address: str
    status: str
    fails: bool = False
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Probes:
    """`listed`: the node gives those of this pod their address. `paths`: as they were last tried; none yet."""

    listed: bool
    paths: tuple[ProbePath, ...] = ()


@dataclass(frozen=True, slots=True)
class Outside:
    """Connections that go past the proxy and would not, were they opened now: how many, and some of them in words."""

    grandfathered: int = 0
    drift: int = 0
    rules_changed: int = 0
    named: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return self.grandfathered + self.drift + self.rules_changed


@dataclass(frozen=True, slots=True)
class Pod:
    """The agent's word. `state` and `reason` as `headgate pods` shows them. `left_out`: why the source does not select
    it, "" when it does; `mesh_label`: value of its label headgate.io/mesh, None without one. `installed`: rules of ours
    are in force, as far as the agent knows; `drained`: in the form that captures nothing. `object_known`: of the pod's
    own Kubernetes object, where the agent tells of objects. `drifts`: how often the rules were found changed;
    `last_drift`: to what and by whom. `conntrack_full`: as the agent found it at the last proof. `probes` None:
    kubelet's are nothing of the agent's."""

    name: str
    uid: str
    addresses: tuple[IPAddress, ...]
    left_out: str
    mesh_label: str | None
    netns_path: str
    netns_id: str
    state: str
    reason: str
    installed: bool
    drained: bool
    wishes: Wishes
    difference: Difference | Unknown
    proofs: tuple[Proved, ...] | Unknown
    outside: Outside = Outside()
    object_known: bool | None = None
    drifts: int = 0
    last_drift: str = ""
    conntrack_full: bool = False
    probes: Probes | None = None

    @property
    def capturing(self) -> bool:
        return self.installed and not self.drained


@dataclass(frozen=True, slots=True)
class Listed:
    """The source names the pod, and the agent could not take it up: nothing that it can use is at the path."""

    netns_path: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The source knows the pod and does not tell the agent of it."""

    reason: str


# ── Told by the proxy ──────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Served:
    """How the proxy holds the pod: `served`, `waiting for its object`, `handing over`, or `pending` with a reason."""

    state: str
    reason: str = ""
    workers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A policy object that is not in force as it is: `object` is `KIND NAMESPACE/NAME`, `text` all of it in a line."""

    object: str
    text: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """`served` None: it does not know the pod. `generation`: of the policy compiled last, None before the first;
    `in_force`: that of each worker."""

    served: Served | None
    generation: int | None
    in_force: tuple[int | None, ...]
    rejections: tuple[Rejection, ...] = ()


# ── Seen in the namespace ──────────────────────────────────────────────────────────────────────────────────────────
class Unopened(Enum):
    """Why a path leads into no namespace."""

    MISSING = "missing"
    NO_NETNS = "no netns"  # a file of another kind
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class NoNetns:
    kind: Unopened
    path: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PortHeld:
    """Who listens on a port of the proxy's. `marked`: with the proxy's mark; None when the kernel did not tell. `pid`
    0: a process that cannot be seen from here."""

    port: int
    marked: bool | None
    pid: int = 0
    command: str = ""


@dataclass(frozen=True, slots=True)
class Loopback:
    """`ipv6_off`: switched off by sysctl, on lo or as a whole."""

    up: bool
    has4: bool
    has6: bool
    ipv6_off: bool = False


@dataclass(frozen=True, slots=True)
class Ours:
    """What a namespace holds of ours, whoever put it there. `backends`: in which rules are, as `nft`; `steers`:
    some of them lead to the proxy, by their ids. `missing`: of the return path, in words; `nothing`: neither rules nor
    any part of it."""

    backends: tuple[str, ...] = ()
    steers: bool = False
    missing: tuple[str, ...] = ()
    nothing: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """conntrack's, of this namespace."""

    entries: int
    limit: int
    full: bool


@dataclass(frozen=True, slots=True)
class Led:
    """What the rules do to a new connection, as `headgate rules explain` has it. `asked`: the connection in words;
    `options`: how to ask for it there. `wanted`: the listener's port that it is to reach. `verdict`: an outcome's
    fate; `by`: the rule that decided, in words, "" when no rule did; `ours`: it is one of ours; `undo`: the command
    that takes somebody else's rule away, "" when there is none to be given."""

    name: str
    asked: str
    options: str
    wanted: int
    verdict: str
    port: int | None = None
    by: str = ""
    ours: bool = False
    undo: str = ""


@dataclass(frozen=True, slots=True)
class Netns:
    """A look of this command's own. `id`: as str(NetnsId); `own`: of the namespace that the command itself runs in.
    `conflicts`: others' use of our marks and table, each with its remedy."""

    path: str
    id: str
    own: bool
    addresses: tuple[IPAddress, ...] = ()
    loopback: Loopback = Loopback(True, True, True)
    ports: tuple[PortHeld, ...] = ()
    ours: Ours | Unknown = Ours()
    conntrack: Table | Unknown = Table(0, 0, full=False)
    conflicts: tuple[str, ...] = ()
    led: tuple[Led, ...] | Unknown = ()


# ── All of it ──────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Facts:
    """`asked`: the pod as NAMESPACE/NAME, "" when only a namespace was given. `pod` None: the agent does not know it,
    or was not heard. `run_dir`: where agent and proxy were asked."""

    asked: str
    run_dir: str
    agent: Agent | NoAnswer
    pod: Pod | None = None
    listed: Listed | LeftOut | None = None
    proxy: Proxy | NoAnswer | Unknown = Unknown("not asked")
    netns: Netns | NoNetns | Unknown = Unknown("no namespace is known: give --netns PATH")
