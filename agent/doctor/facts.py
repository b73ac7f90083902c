"""A node as the doctor has seen it. Values only, and pure: gathered by agent.doctor.gather, judged by
agent.doctor.checks. None stands for what could not be looked at; why is told in `Facts.unseen`."""

from dataclasses import dataclass, field
from typing import Final

from agent.doctor.declared import Declared
from agent.doctor.findings import Unseen
from agent.plan import FlowTuple
from agent.pods import IPAddress
from agent.ruleset.inventory import Inventory, Tool
from proxy.api.constants import MARK_MASK, PROXY_MARK, PROXY_PORTS

NODE: Final = "node"


# ── The kernel ─────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Tried:
    """One feature of the kernel. `complaint` None: it is there. `purpose`: who needs it, or what it is good for."""

    name: str
    needed: bool
    purpose: str
    config: str
    module: str
    complaint: str | None = None


@dataclass(frozen=True, slots=True)
class Modules:
    """`loadable` False: a kernel without modules, or none installed for it."""

    loadable: bool
    known: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Features:
    """`backends`: name, and why it cannot be used, None when it can. `cgroup2`: where the tree is mounted."""

    nft: tuple[Tried, ...]
    bpf: tuple[Tried, ...]
    backends: tuple[tuple[str, str | None], ...]
    modules: Modules
    cgroup2: str | None


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """A bpf program on a cgroup's hook, as far as sockets of that cgroup meet it. `hook`: `connect4`, `connect6`…;
    `cgroups`: of how many that were asked it is in force. The kernel keeps 15 characters of a name."""

    hook: str
    name: str
    id: int
    cgroups: int = 1


@dataclass(frozen=True, slots=True)
class SocketPrograms:
    """`cilium_host_only`: what Cilium's own configuration says about pods; None: no such file is to be seen."""

    programs: tuple[AttachedProgram, ...]
    cilium_host_only: bool | None = None


# ── The machine ────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Clock:
    """`jump_s`: how far CLOCK_REALTIME moved against CLOCK_MONOTONIC_RAW while the doctor looked. `max_error_s` as the
    kernel reckons it (adjtimex(2))."""

    synchronised: bool
    max_error_s: float
    jump_s: float
    looked_s: float


@dataclass(frozen=True, slots=True)
class HeldLock:
    """`file`: what it is for people; held by the same process at the begin and at the end of the look."""

    file: str
    pid: int
    command: str
    looked_s: float


@dataclass(frozen=True, slots=True)
class CniFile:
    """One file of the CNI directory that a runtime would read. `plugins`: types, in order; `problem` non-empty: it
    cannot be used, and why."""

    name: str
    network: str = ""
    plugins: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CniDirectory:
    """`files` in the order in which runtimes try them (libcni: sorted by name)."""

    path: str
    files: tuple[CniFile, ...]


@dataclass(frozen=True, slots=True)
class MeshProcess:
    """One of ours, as its command line says. `role`: `agent`, `proxy` (its supervisor) or `worker`; `limit`:
    RLIMIT_NOFILE (soft); `open`: descriptors. `in_pod`: a sidecar, or somebody who says so: the node's are in none."""

    pid: int
    role: str
    limit: int
    open: int
    in_pod: bool = False


@dataclass(frozen=True, slots=True)
class Descriptors:
    """`/proc/sys/fs/file-nr` and our processes."""

    allocated: int
    maximum: int
    processes: tuple[MeshProcess, ...]


# ── A network namespace ────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class CutOff:
    """Probes of the node that cannot reach the pod, or whose answers cannot come back."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Pod:
    """As the agent has it."""

    namespace: str
    name: str
    state: str
    addresses: tuple[IPAddress, ...]
    cut_off: tuple[CutOff, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Rules:
    """`counts`: rules by tool, and `inventory` with all tables: where somebody else than we has something. Where all is
    ours it is not read in full: both are empty then, but for the routing. `ours`: something is."""

    counts: tuple[tuple[Tool, int], ...]
    inventory: Inventory
    ours: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """`rp_filter`, `src_valid_mark`: as they act, the larger of the interface's and of `all`
    (Documentation/networking/ip-sysctl). `ipv6` False: disable_ipv6 is set; None: a kernel without IPv6."""

    name: str
    rp_filter: int
    src_valid_mark: bool
    ipv6: bool | None
    addresses: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Tracking:
    """conntrack of a namespace: entries of `limit`, and packets that found no room since it was made (`dropped`),
    entries that were evicted early to make some (`evicted`)."""

    entries: int
    limit: int
    dropped: int
    evicted: int


@dataclass(frozen=True, slots=True)
class Listening:
    """A TCP listener; `pid` 0: nobody who holds it is to be seen. Sought for those on the proxy's ports only, and by
    `inode`."""

    address: IPAddress
    port: int
    mark: int | None
    inode: int = 0
    pid: int = 0
    command: str = ""

    @property
    def is_on_our_port(self) -> bool:
        return self.port in PROXY_PORTS

    @property
    def is_the_proxys(self) -> bool:
        """A node's proxy marks its listeners; a sidecar may not be able to."""
        return self.mark is not None and self.mark & MARK_MASK == PROXY_MARK


@dataclass(frozen=True, slots=True)
class Process:
    """`effective`, `bounding`: capability sets, a bit each (capabilities(7))."""

    pid: int
    command: str
    effective: int
    bounding: int


@dataclass(frozen=True, slots=True)
class Namespace:
    """`where`: as in Finding. `pod` None: the node's own, or one that was named by its path. What is None could not be
    looked at."""

    where: str
    pod: Pod | None = None
    rules: Rules | None = None
    interfaces: tuple[Interface, ...] | None = None
    tracking: Tracking | None = None
    listening: tuple[Listening, ...] | None = None
    flows: tuple[FlowTuple, ...] | None = None
    sockets: int = 0
    processes: tuple[Process, ...] | None = None

    @property
    def is_node(self) -> bool:
        return self.where == NODE

    @property
    def is_enrolled(self) -> bool:
        """By the agent's word, else by the rules."""
        if self.pod is not None:
            return self.pod.state in ENROLLED
        return self.rules is not None and self.rules.ours


ENROLLED: Final = frozenset({"installed", "proved", "drifted"})
"""Values of agent.reconcile.State in which rules are in force."""


@dataclass(frozen=True, slots=True)
class Facts:
    """`ipvs`: virtual services of IPVS; `self_calls`: what the proxy refused because it led to itself."""

    node: Namespace
    pods: tuple[Namespace, ...] = ()
    features: Features | None = None
    programs: SocketPrograms | None = None
    clock: Clock | None = None
    locks: tuple[HeldLock, ...] | None = None
    cni: CniDirectory | None = None
    descriptors: Descriptors | None = None
    ipvs: int | None = None
    self_calls: int | None = None
    declared: Declared | None = None
    unseen: tuple[Unseen, ...] = field(default=())

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        return (self.node, *self.pods)
