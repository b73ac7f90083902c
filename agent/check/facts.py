"""What was found in a cluster. Values; what could not be asked for is an Unseen in its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.sources.kube_pod import NodePod


@dataclass(frozen=True, slots=True)
class Unseen:
    """`reason`: the API server's word, or why it could not be asked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Permission:
    """Of whoever checks. `group` is empty for core, `namespace` for all of them."""

    verb: str
    group: str
    resource: str
    namespace: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    os: str
    ready: bool
    kubelet_version: str


@dataclass(frozen=True, slots=True)
class DaemonSet:
    """Of any namespace. `variables`, `arguments`: of its first container."""

    namespace: str
    name: str
    image: str
    desired: int
    ready: int
    updated: int
    variables: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnPod:
    """One of ours. `waiting`: why it is not ready, in the kubelet's words. `leaving`: it is being deleted."""

    name: str
    component: str
    node: str
    ready: bool
    waiting: str = ""
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class PodState:
    """As its agent tells."""

    namespace: str
    name: str
    state: str
    reason: str
    failed_proofs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentStatus:
    version: str
    proxy_connected: bool
    problems: tuple[str, ...]
    pods: tuple[PodState, ...]


@dataclass(frozen=True, slots=True)
class Agent:
    """`told`: its own word, through the API server's proxy."""

    pod: str
    node: str
    told: AgentStatus | Unseen


@dataclass(frozen=True, slots=True)
class ClusterPod:
    """A pod that may be selected, and the node that it is on; empty for none yet."""

    pod: NodePod
    node: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """`authorities_end_s`: of each webhook the latest end in its caBundle, seconds since the epoch; None where there is
    no bundle that can be read. `ready`: replicas of its Deployment, None for no Deployment."""

    failure_policies: tuple[str, ...]
    authorities_end_s: tuple[float | None, ...]
    ready: int | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """`version`: as the server has it, v1.31.2. `groups`: API groups that it serves. `mutating`: names of
    MutatingWebhookConfigurations. `cilium`: of kube-system's cilium-config, None where there is none. `pods`: of
    namespaces and labels that select. `webhook` None: none is installed."""

    server: str
    namespace: str
    now_s: float
    client_version: str
    version: str | Unseen
    permissions: tuple[Permission, ...] | Unseen
    groups: frozenset[str] | Unseen
    namespaces: tuple[Namespace, ...] | Unseen
    nodes: tuple[Node, ...] | Unseen
    daemonsets: tuple[DaemonSet, ...] | Unseen
    mutating: frozenset[str] | Unseen
    cilium: Mapping[str, str] | Unseen | None
    own: tuple[OwnPod, ...] | Unseen = ()
    agents: tuple[Agent, ...] = ()
    pods: tuple[ClusterPod, ...] | Unseen = ()
    webhook: Webhook | Unseen | None = None
