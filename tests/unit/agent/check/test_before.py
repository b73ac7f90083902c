"""Before an installation, and who else is in the cluster."""

from typing import Any

import pytest
import yaml

from agent.check.before import before
from agent.check.facts import Cluster, Namespace, Node, Permission, Unseen
from agent.check.lines import Level, Line
from agent.check.needs import Need, needs_of
from tests.kube.manifests.rendered import ROOT
from tests.unit.agent.check.clusters import cluster, daemonset


def _wrong(found: Cluster) -> list[Line]:
    return [line for line in before(found) if line.level is not Level.OK]


def test_a_cluster_that_fits() -> None:
    assert _wrong(cluster(daemonsets=(), mutating=frozenset())) == []


_FORBIDDEN = (
    Permission("create", "apps", "daemonsets", "headgate-system", allowed=True),
    Permission("create", "", "namespaces", "", allowed=False),
    Permission("patch", "rbac.authorization.k8s.io", "clusterroles", "", allowed=False),
)


@pytest.mark.parametrize(
    ("changes", "identity", "level", "told"),
    [
        ({"version": "v1.27.3-gke.100"}, "api-version", Level.FAILED, "it runs v1.27.3-gke.100"),
        (
            {"permissions": _FORBIDDEN}, "permissions", Level.FAILED,
            "you may not create namespaces, patch clusterroles.rbac.authorization.k8s.io",
        ),
        (
            {"namespaces": (Namespace("headgate-system", {"pod-security.kubernetes.io/enforce": "restricted"}),)},
            "namespace", Level.WARNING, "pod-security.kubernetes.io/enforce=restricted refuses them",
        ),
        ({"nodes": (Node("w1", "windows", True, "v1.34.4"),)}, "nodes", Level.FAILED, "none of 1 nodes runs Linux"),
        ({"nodes": ()}, "nodes", Level.FAILED, "none of 0 nodes runs Linux"),
        ({"nodes": (Node("n1", "linux", False, "v1.34.4"),)}, "nodes", Level.WARNING, "not ready: n1"),
        (
            {"daemonsets": (daemonset("istio-cni-node", "istio-system"), daemonset("ztunnel", "istio-system"))},
            "other-mesh", Level.WARNING, "Istio's CNI node agent (istio-system/istio-cni-node)",
        ),
        ({"daemonsets": (daemonset("linkerd-cni", "x"),)}, "other-mesh", Level.WARNING, "Linkerd's CNI plugin"),
        (
            {"mutating": frozenset({"istio-sidecar-injector-stable"})},
            "other-injector", Level.WARNING, "Istio's sidecar injector",
        ),
        (
            {"namespaces": (Namespace("shop", {"headgate.io/mesh": "enabled", "istio-injection": "enabled"}),)},
            "two-meshes", Level.FAILED, "shop (istio-injection=enabled)",
        ),
        (
            {"namespaces": (Namespace("jobs", {"headgate.io/inject": "enabled",
                                               "pod-security.kubernetes.io/enforce": "baseline"}),)},
            "inject-pod-security", Level.FAILED, "jobs (baseline): the level of pod security refuses NET_ADMIN",
        ),
        (
            {"cilium": {"kube-proxy-replacement": "true", "bpf-lb-sock": "true", "cni-exclusive": "false"}},
            "cilium-socket-lb", Level.WARNING, "the proxy never sees the Service",
        ),
        (
            {"cilium": {"kube-proxy-replacement": "true", "cni-exclusive": "false"}},
            "cilium-socket-lb", Level.WARNING, "the proxy never sees the Service",
        ),
        ({"cilium": {"kube-proxy-replacement": "false"}}, "cilium-cni-exclusive", Level.WARNING, "cni-exclusive is on"),
    ],
)  # fmt: skip
def test_one_thing_wrong_is_one_line(changes: dict[str, Any], identity: str, level: Level, told: str) -> None:
    (line,) = _wrong(cluster(**changes))
    assert (line.id, line.level) == (identity, level)
    assert told in line.why
    assert line.remedy


@pytest.mark.parametrize(
    "config",
    [
        {"bpf-lb-sock": "false", "cni-exclusive": "false"},
        {"bpf-lb-sock": "true", "bpf-lb-sock-hostns-only": "true", "cni-exclusive": "false"},
    ],
)
def test_cilium_set_up_for_a_mesh_is_fine(config: dict[str, str]) -> None:
    lines = before(cluster(cilium=config))
    assert [line.level for line in lines if line.id == "cilium"] == [Level.OK]


def test_a_namespace_that_admits_sidecars_is_fine() -> None:
    lines = before(cluster(namespaces=(Namespace("jobs", {"headgate.io/inject": "enabled"}),)))
    assert [line.level for line in lines if line.id == "inject-pod-security"] == [Level.OK]


def test_another_meshs_label_may_be_what_selects() -> None:
    words = ("agent", "--select=istio-injection=enabled")
    spaces = (Namespace("shop", {"headgate.io/mesh": "enabled", "istio-injection": "enabled"}),)
    found = cluster(daemonsets=(daemonset("headgate-agent", arguments=words),), namespaces=spaces)
    assert _wrong(found) == []


def test_kinds_that_are_not_there_are_told_and_no_fault() -> None:
    (line,) = (one for one in before(cluster(groups=frozenset({"networking.istio.io"}))) if one.id == "policy-kinds")
    assert line.level is Level.OK
    assert line.what.startswith("definitions there: networking.istio.io; not there: gateway.networking.k8s.io")


def test_what_may_not_be_asked_is_told() -> None:
    no = Unseen("403 Forbidden: no")
    found = cluster(permissions=no, groups=no, namespaces=no, nodes=no, daemonsets=no, mutating=no, cilium=no)
    lines = [line for line in before(found) if line.section != "kubernetes-api"]
    assert all(line.level is Level.WARNING and "403 Forbidden: no" in line.why for line in lines)


# ── What an installation needs ─────────────────────────────────────────────────────────────────────────────────────
def test_every_kind_that_is_installed_has_its_resource() -> None:
    for path in sorted((ROOT / "agent/manifests").glob("*.yaml")):
        assert needs_of(yaml.safe_load_all(path.read_text()))


def test_a_need_is_a_verb_of_kubectl_apply() -> None:
    body = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "x", "namespace": "mesh"}}
    assert needs_of([body, body]) == (
        Need("apps", "daemonsets", "create", "mesh"),
        Need("apps", "daemonsets", "patch", "mesh"),
    )
