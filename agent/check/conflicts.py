"""What else is in the cluster that wants the same pods, ports or connections. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from agent.check.common import shown, unseen
from agent.check.facts import Cluster, DaemonSet, Unseen
from agent.check.lines import Level, Line
from agent.inject.fitting import INJECT
from agent.inject.pod_security import ENFORCED, refusal
from agent.pods.enrolment import MESH_LABEL

SECTION: Final = "conflicts"

_MESHES: Final = {
    "istio-cni-node": "Istio's CNI node agent",
    "ztunnel": "Istio ambient's node proxy",
    "linkerd-cni": "Linkerd's CNI plugin",
    "kuma-cni-node": "Kuma's CNI plugin",
    "consul-cni": "Consul's CNI plugin",
}
"""DaemonSets by the names that the meshes' own charts give them."""
_INJECTORS: Final = {
    "istio-sidecar-injector": "Istio's sidecar injector",
    "linkerd-proxy-injector-webhook-config": "Linkerd's proxy injector",
    "kuma-admission-mutating-webhook-configuration": "Kuma's sidecar injector",
    "consul-connect-injector": "Consul's sidecar injector",
}
_LABELS: Final = (
    ("istio-injection", "enabled"),
    ("istio.io/dataplane-mode", "ambient"),
    ("linkerd.io/inject", "enabled"),
    ("kuma.io/sidecar-injection", "enabled"),
)
"""On namespaces: another mesh takes their pods."""
_DOC: Final = "docs/kubernetes.md, Which pods"


def conflicts(cluster: Cluster) -> Iterator[Line]:
    yield _meshes(cluster)
    yield _injectors(cluster)
    yield _namespaces(cluster)
    yield from _pod_security(cluster)
    yield from _cilium(cluster)


def _meshes(cluster: Cluster) -> Line:
    what = "no other mesh's node agents"
    if isinstance(cluster.daemonsets, Unseen):
        return unseen(SECTION, "other-mesh", what, cluster.daemonsets)
    found = [one for one in cluster.daemonsets if _mesh_of(one)]
    if not found:
        return Line(SECTION, "other-mesh", Level.OK, what)
    return Line(
        SECTION, "other-mesh", Level.WARNING, what,
        f"{shown(f'{_mesh_of(one)} ({one.namespace}/{one.name})' for one in found)}: two meshes in one pod redirect "
        "the same connections, and only one of them can be first",
        f"see that no pod is in both: namespaces have labels of one mesh only ({_DOC})",
    )  # fmt: skip


def _mesh_of(daemonset: DaemonSet) -> str:
    return next((mesh for name, mesh in _MESHES.items() if daemonset.name.startswith(name)), "")


def _injectors(cluster: Cluster) -> Line:
    what = "no other mesh's sidecar injectors"
    if isinstance(cluster.mutating, Unseen):
        return unseen(SECTION, "other-injector", what, cluster.mutating)
    found = sorted({kind for name in cluster.mutating for start, kind in _INJECTORS.items() if name.startswith(start)})
    if not found:
        return Line(SECTION, "other-injector", Level.OK, what)
    return Line(
        SECTION, "other-injector", Level.WARNING, what,
        f"{shown(found)}: pods that have its sidecar are left alone by headgate",
        "none needed where that is meant; else take its labels off the namespaces",
    )  # fmt: skip


def _namespaces(cluster: Cluster) -> Line:
    what = "no namespace is in two meshes"
    if isinstance(cluster.namespaces, Unseen):
        return unseen(SECTION, "two-meshes", what, cluster.namespaces)
    chosen = _chosen_labels(cluster)
    found = []
    for one in cluster.namespaces:
        others = [f"{key}={value}" for key, value in _LABELS if one.labels.get(key) == value and key not in chosen]
        if one.labels.get(MESH_LABEL) == "enabled" and others:
            found.append(f"{one.name} ({', '.join(others)})")
    if not found:
        return Line(SECTION, "two-meshes", Level.OK, what)
    return Line(
        SECTION, "two-meshes", Level.FAILED, what,
        f"{shown(found)}: has the label {MESH_LABEL}=enabled, too",
        "take one of the labels off; its pods change when they are made anew",
    )  # fmt: skip


def _pod_security(cluster: Cluster) -> Iterator[Line]:
    """Told only where somebody wants sidecars."""
    if isinstance(cluster.namespaces, Unseen):
        return
    wanting = [one for one in cluster.namespaces if one.labels.get(INJECT) == "enabled"]
    refusing = [f"{one.name} ({one.labels[ENFORCED]})" for one in wanting if refusal("", one.labels.get(ENFORCED, ""))]
    what = "namespaces that want sidecars admit them"
    if refusing:
        yield Line(
            SECTION, "inject-pod-security", Level.FAILED, what,
            f"{shown(refusing)}: the level of pod security refuses NET_ADMIN, which the init container needs",
            f"label them {ENFORCED}=privileged, or use the node agent, for which pods need no rights",
        )  # fmt: skip
    elif wanting:
        yield Line(SECTION, "inject-pod-security", Level.OK, what)


def _chosen_labels(cluster: Cluster) -> frozenset[str]:
    """By --select another mesh's label may be what chooses pods for us."""
    if isinstance(cluster.daemonsets, Unseen):
        return frozenset()
    words = [word for one in cluster.daemonsets if one.namespace == cluster.namespace for word in one.arguments]
    return frozenset(word.removeprefix("--select=").partition("=")[0] for word in words if word.startswith("--select="))


def _cilium(cluster: Cluster) -> Iterator[Line]:
    what = "Cilium leaves connections and the CNI chain to others"
    if isinstance(cluster.cilium, Unseen):
        yield unseen(SECTION, "cilium", what, cluster.cilium)
        return
    if cluster.cilium is None:
        return
    problems = [problem for problem in (_socket_lb(cluster.cilium), _exclusive(cluster.cilium)) if problem is not None]
    yield from problems
    if not problems:
        yield Line(SECTION, "cilium", Level.OK, what)


def _socket_lb(config: Mapping[str, str]) -> Line | None:
    """cilium Documentation/network/kubernetes/kubeproxy-free.rst, "Socket LoadBalancer Bypass in Pod Namespace"."""
    replaces = config.get("kube-proxy-replacement", "false") in ("true", "strict")
    in_sockets = config.get("bpf-lb-sock", "true" if replaces else "false") == "true"
    if not in_sockets or config.get("bpf-lb-sock-hostns-only", "false") == "true":
        return None
    return Line(
        SECTION, "cilium-socket-lb", Level.WARNING, "Cilium leaves pods' connections to Services as they are",
        "it exchanges a Service's address within connect(2), so that the proxy never sees the Service, and routes, "
        "splits and retries of it do not apply (cilium #13882, #16583)",
        "helm upgrade cilium --set socketLB.hostNamespaceOnly=true, and restart Cilium's pods",
    )  # fmt: skip


def _exclusive(config: Mapping[str, str]) -> Line | None:
    if config.get("cni-exclusive", "true") != "true":
        return None
    return Line(
        SECTION, "cilium-cni-exclusive", Level.WARNING, "Cilium lets others chain CNI plugins",
        "cni-exclusive is on: it renames other CNI configurations and writes its own anew; the agent chains its plugin "
        "again within a second, in which pods may start unsteered",
        "helm upgrade cilium --set cni.exclusive=false",
    )  # fmt: skip
