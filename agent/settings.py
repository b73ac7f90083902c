"""What an operator sets for the agent; agent.cli.agent reads it from options and the environment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.chaining.node import NodeDirectories
from agent.kube.access import Access
from agent.kube.backoff import SPREAD_S
from agent.plan import OnUnsteered
from agent.pods.selection import Selection
from agent.pods.taint import Taint
from agent.reconcile import LifeSettings
from proxy.api.constants import (
    ADMIN_SOCKET,
    AGENT_METRICS_PORT,
    CNI_SOCKET,
    FDS_SOCKET,
    OBJECTS_SOCKET,
    RUN_DIRECTORY,
    ZDS_SOCKET,
)

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - Prometheus scrapes from outside; the addresses are the agent pod's
DEFAULT_DRAIN_S: Final = 30.0
"""Kubernetes' terminationGracePeriodSeconds: who holds connections longer has been told to let go."""


DEFAULT_PARK_TIMEOUT_S: Final = 30.0
"""DESIGN 6: clients and kubelets (probe time-outs of a second, thrice) are to fail fast once a proxy is not coming."""


NETNS_MOUNTS: Final = (Path("/run/netns"), Path("/run/docker/netns"))
"""What CNI (cri-o, containerd) and Docker bind pods' namespaces to."""

AUTO: Final = "auto"
"""The first backend that works here."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The API server, which node of it this is, and which of its pods are ours. `cni`: the node's directories in which
    our plugin is kept, None to leave them alone. `proc`: where the node's processes are
    seen; `netns_mounts`: where their namespaces may have names. `spread_s`: over which first lists of the objects are
    spread. `tells`: status and Events are written to the API server. `node_netns`: the node's own namespace, in which
    kubelet's probes are given an address; None leaves them as they are. `deletes_pods`: those that keep connections
    past the mesh. `taint`: to be taken from the node once the agent is ready."""

    access: Access
    node_name: str
    selection: Selection = field(default_factory=Selection)
    cni: NodeDirectories | None = None
    proc: Path = Path("/proc")
    spread_s: float = SPREAD_S
    netns_mounts: tuple[Path, ...] = NETNS_MOUNTS
    tells: bool = True
    node_netns: Path | None = None
    deletes_pods: bool = False
    taint: Taint | None = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """`cluster`: pods and objects are its own, but for what `pods_file` or `objects_dir` tell instead. Without: every
    named network namespace is a pod, and the proxy has its own source of policy. `metrics_port` 0: the kernel chooses.
    `backend`: a value of agent.kernel.backends.Backend, or AUTO."""

    run_dir: Path = Path(RUN_DIRECTORY)
    pods_file: Path | None = None
    metrics_port: int = AGENT_METRICS_PORT
    bind: tuple[str, ...] = WILDCARDS
    cleanup_on_exit: bool = False
    park_timeout_s: float = DEFAULT_PARK_TIMEOUT_S
    life: LifeSettings = field(default_factory=LifeSettings)
    objects_dir: Path | None = None
    cluster: ClusterSettings | None = None
    on_unsteered: OnUnsteered = OnUnsteered.REPORT
    backend: str = AUTO

    @property
    def proc(self) -> Path:
        """Where the node's processes are seen."""
        return Path("/proc") if self.cluster is None else self.cluster.proc

    @property
    def zds_socket(self) -> Path:
        return self.run_dir / ZDS_SOCKET

    @property
    def objects_socket(self) -> Path:
        return self.run_dir / OBJECTS_SOCKET

    @property
    def fds_socket(self) -> Path:
        return self.run_dir / FDS_SOCKET

    @property
    def cni_socket(self) -> Path:
        return self.run_dir / CNI_SOCKET

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / ADMIN_SOCKET
