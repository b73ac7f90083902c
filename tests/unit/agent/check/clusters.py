"""Clusters as they were found: a healthy one, of which tests change a part."""

from dataclasses import replace
from typing import Any

from agent.check.facts import (
    Agent,
    AgentStatus,
    Cluster,
    ClusterPod,
    DaemonSet,
    Namespace,
    Node,
    OwnPod,
    Permission,
    PodState,
    Webhook,
)
from agent.sources.kinds import KINDS
from agent.sources.kube_pod import node_pod

NOW_S = 1_800_000_000.0
DAY_S = 86_400.0
_NODES = ("n1", "n2")
_CNI = {"HEADGATE_CNI_CONF_DIR": "/host/cni/net.d"}
_WORDS = ("agent", "--exclude-namespace=kube-system", "--exclude-namespace=headgate-system")


def daemonset(name: str, namespace: str = "headgate-system", **changes: Any) -> DaemonSet:
    of = DaemonSet(namespace, name, "headgate:0.1.0", 2, 2, 2, _CNI, _WORDS)
    return replace(of, **changes)


def own(component: str, node: str, **changes: Any) -> OwnPod:
    return replace(OwnPod(f"headgate-{component}-{node}", component, node, ready=True), **changes)


def pod(name: str, node: str = "n1", namespace: str = "shop", **labels: str) -> ClusterPod:
    metadata = {"uid": f"u-{name}", "namespace": namespace, "name": name, "labels": labels}
    return ClusterPod(
        node_pod({"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Running"}}), node
    )


def agent(node: str, *states: PodState, **changes: Any) -> Agent:
    told = replace(AgentStatus("0.1.0", proxy_connected=True, problems=(), pods=states), **changes)
    return Agent(f"headgate-agent-{node}", node, told)


def proved(name: str) -> PodState:
    return PodState("shop", name, "proved", "")


def cluster(**changes: Any) -> Cluster:
    """Two nodes, a pod on each, no other mesh, the webhook installed."""
    healthy = Cluster(
        server="https://10.96.0.1:443",
        namespace="headgate-system",
        now_s=NOW_S,
        client_version="0.1.0",
        version="v1.34.4",
        permissions=(Permission("create", "apps", "daemonsets", "headgate-system", allowed=True),),
        groups=frozenset(kind.group for kind in KINDS),
        namespaces=(Namespace("shop", {"headgate.io/mesh": "enabled"}), Namespace("kube-system", {})),
        nodes=tuple(Node(name, "linux", ready=True, kubelet_version="v1.34.4") for name in _NODES),
        daemonsets=(daemonset("headgate-agent"), daemonset("headgate-proxy")),
        mutating=frozenset({"headgate-webhook"}),
        cilium=None,
        own=tuple(own(which, node) for which in ("agent", "proxy") for node in _NODES),
        agents=(agent("n1", proved("web")), agent("n2", proved("db"))),
        pods=(pod("web"), pod("db", "n2")),
        webhook=Webhook(("Fail", "Fail"), (NOW_S + 300 * DAY_S,) * 2, 2),
    )
    return replace(healthy, **changes)
