"""What must hold of every manifest, whichever overlay."""

import re
from configparser import ConfigParser
from typing import Any

import pytest
import yaml

from agent.events import COMPONENT
from agent.pods.told import TOLD
from agent.sources.kinds import KINDS
from agent.supervisor.cluster_telling import LEAVE_S
from agent.supervisor.service import CLEANUP_S
from agent.telling import lease_holder, route_status
from agent.telling.event_objects import CONTROLLER
from agent.telling.route_teller import ROUTES
from proxy.api import constants
from tests.kube.manifests.rendered import CLUSTERS, ROOT, container, daemonset, documents, of_kind, pod

_BOTH = ("agent", "proxy")
every = pytest.mark.parametrize("cluster", CLUSTERS)
each = pytest.mark.parametrize("which", _BOTH)


@every
@each
def test_nothing_of_the_nodes_namespaces_is_shared(cluster: str, which: str) -> None:
    spec = pod(cluster, which)
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
    assert not any("hostPort" in port for port in container(cluster, which)["ports"])


@every
def test_the_proxy_has_no_credentials(cluster: str) -> None:
    assert pod(cluster, "proxy")["automountServiceAccountToken"] is False
    assert all("projected" not in volume and "secret" not in volume for volume in pod(cluster, "proxy")["volumes"])
    accounts = {one["metadata"]["name"]: one for one in of_kind(documents(cluster), "ServiceAccount")}
    assert pod(cluster, "proxy")["serviceAccountName"] == "headgate-proxy"
    assert accounts["headgate-proxy"]["automountServiceAccountToken"] is False
    bindings = [
        *of_kind(documents(cluster), "ClusterRoleBinding"), *of_kind(documents(cluster), "RoleBinding"),
    ]  # fmt: skip
    assert {subject["name"] for one in bindings for subject in one["subjects"]} == {"headgate-agent"}


_Granted = dict[tuple[str, str], list[str]]


def _granted(cluster: str) -> _Granted:
    """Of the cluster's role: verbs by group and resource."""
    (role,) = of_kind(documents(cluster), "ClusterRole")
    assert all(rule.keys() == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    return {
        (group, name): rule["verbs"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
    }


def _read(granted: _Granted) -> set[tuple[str, str]]:
    return {key for key, verbs in granted.items() if verbs == ["get", "list", "watch"]}


@every
def test_the_role_allows_what_the_agent_watches_and_writes_and_no_more(cluster: str) -> None:
    granted = _granted(cluster)
    watched = {(kind.group, kind.plural) for kind in KINDS}
    assert _read(granted) == watched
    assert {key: verbs for key, verbs in granted.items() if key not in watched} == {
        ("", "pods/status"): ["patch"],
        ("", "events"): ["create", "patch"],
        **{(kind.group, f"{kind.plural}/status"): ["patch"] for kind in ROUTES},
    }


@every
def test_one_lease_of_our_own_namespace_is_the_agents(cluster: str) -> None:
    (role,) = of_kind(documents(cluster), "Role")
    making, keeping = role["rules"]
    assert (making["resources"], making["verbs"]) == (["leases"], ["create"])
    assert (keeping["resourceNames"], keeping["verbs"]) == ([lease_holder.NAME], ["get", "update"])
    assert role["metadata"]["namespace"] == "headgate-system"


@every
def test_the_admission_policies_name_what_is_written_and_by_whom(cluster: str) -> None:
    policies = of_kind(documents(cluster), "ValidatingAdmissionPolicy")
    bound = {one["spec"]["policyName"] for one in of_kind(documents(cluster), "ValidatingAdmissionPolicyBinding")}
    assert bound == {one["metadata"]["name"] for one in policies}
    for policy in policies:
        (condition,) = policy["spec"]["matchConditions"]
        assert "'system:serviceaccount:headgate-system:headgate-agent'" in condition["expression"]
        assert policy["spec"]["failurePolicy"] == "Fail"
    text = yaml.safe_dump_all(policies)
    for word in (*TOLD, CONTROLLER, route_status.CONTROLLER, COMPONENT, *(f"{kind.plural}/status" for kind in ROUTES)):
        assert word in text, word


def test_the_role_is_the_documents_table() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    table = page.partition("| group | resources |\n|---|---|\n")[2].partition("\n\n")[0]
    told = set()
    for row in table.splitlines():
        groups, resources = (cell.strip() for cell in row.strip("|").split("|"))
        for group, names in zip(groups.split(", "), resources.split("; "), strict=True):
            told |= {(group.replace("(core)", ""), name) for name in names.split(", ")}
    assert told == _read(_granted("base"))


@every
@each
def test_the_image_is_pinned_to_the_version_that_prints_it(cluster: str, which: str) -> None:
    setup = ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    assert container(cluster, which)["image"] == f"headgate:{setup['metadata']['version']}"


@every
@each
def test_a_container_may_do_what_it_says_only(cluster: str, which: str) -> None:
    context = container(cluster, which)["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    assert "privileged" not in context
    assert pod(cluster, which)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@each
def test_every_capability_says_what_for(which: str) -> None:
    text = (ROOT / f"daemonset/base/{which}.yaml").read_text()
    told = re.findall(r"^            - ([A-Z_]+) # \S.{15,}$", text, re.MULTILINE)
    assert told == container("base", which)["securityContext"]["capabilities"]["add"]


def test_openshift_allows_the_capabilities_and_volumes_that_are_asked_for() -> None:
    (found,) = of_kind(documents("openshift"), "SecurityContextConstraints")
    asked = {
        name for which in _BOTH for name in container("openshift", which)["securityContext"]["capabilities"]["add"]
    }
    assert set(found["allowedCapabilities"]) == asked
    allowed = found["allowPrivilegeEscalation"]
    assert all(
        container("openshift", which)["securityContext"]["allowPrivilegeEscalation"] is allowed for which in _BOTH
    )
    accounts = [f"system:serviceaccount:headgate-system:headgate-{which}" for which in _BOTH]
    assert found["users"] == accounts


@every
def test_the_agent_writes_only_where_it_must(cluster: str) -> None:
    writable = {one["mountPath"] for one in container(cluster, "agent")["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"/var/run/headgate"} | (
        {"/host/cni/net.d", "/host/cni/bin"} if cluster != "openshift" else set()
    )
    netns = {one["mountPath"]: one for one in container(cluster, "agent")["volumeMounts"]}["/var/run/netns"]
    assert netns["mountPropagation"] == "HostToContainer"


@every
def test_agent_and_proxy_meet_in_one_directory_of_the_node(cluster: str) -> None:
    for which in _BOTH:
        mounts = {one["mountPath"]: one["name"] for one in container(cluster, which)["volumeMounts"]}
        volumes = {one["name"]: one["hostPath"]["path"] for one in pod(cluster, which)["volumes"]}
        assert volumes[mounts[constants.RUN_DIRECTORY]] == constants.RUN_DIRECTORY
        assert mounts.keys() == {one["mountPath"] for one in container(cluster, which)["volumeMounts"]}
        assert set(mounts.values()) == volumes.keys()


@every
@each
def test_selectors_find_the_pods_of_their_own(cluster: str, which: str) -> None:
    found = daemonset(cluster, which)
    labels = found["spec"]["template"]["metadata"]["labels"]
    wanted = found["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= labels.items()
    other = daemonset(cluster, "proxy" if which == "agent" else "agent")
    assert not wanted.items() <= other["spec"]["template"]["metadata"]["labels"].items()
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(documents(cluster), "NetworkPolicy")}
    assert policies[f"headgate-{which}"]["podSelector"]["matchLabels"] == wanted


@every
@each
def test_what_is_bound_is_there(cluster: str, which: str) -> None:
    found = documents(cluster)
    accounts = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in of_kind(found, "ServiceAccount")}
    assert (daemonset(cluster, which)["metadata"]["namespace"], pod(cluster, which)["serviceAccountName"]) in accounts
    (binding,) = of_kind(found, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] in {one["metadata"]["name"] for one in of_kind(found, "ClusterRole")}
    assert all((one["namespace"], one["name"]) in accounts for one in binding["subjects"])
    namespaced = {one["metadata"]["namespace"] for one in found if "namespace" in one["metadata"]}
    assert namespaced == {one["metadata"]["name"] for one in of_kind(found, "Namespace")}


_PORTS = {
    "agent": {constants.AGENT_METRICS_PORT},
    "proxy": {constants.PROXY_METRICS_PORT, constants.PROXY_READY_PORT},
}


@every
@each
def test_ports_are_the_programs_own_and_the_only_open_ones(cluster: str, which: str) -> None:
    ports = {one["name"]: one["containerPort"] for one in container(cluster, which)["ports"]}
    assert set(ports.values()) == _PORTS[which]
    policy = {one["metadata"]["name"]: one["spec"] for one in of_kind(documents(cluster), "NetworkPolicy")}[
        f"headgate-{which}"
    ]
    assert {one["port"] for rule in policy["ingress"] for one in rule["ports"]} == _PORTS[which]
    annotations = daemonset(cluster, which)["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    probe = container(cluster, which)["readinessProbe"]["httpGet"]
    assert probe["port"] in ports


@every
def test_one_agent_a_node_and_never_none_of_the_proxies(cluster: str) -> None:
    agent, proxy = (daemonset(cluster, which)["spec"]["updateStrategy"]["rollingUpdate"] for which in _BOTH)
    assert agent == {"maxSurge": 0, "maxUnavailable": 1}
    assert proxy == {"maxSurge": 1, "maxUnavailable": 0}
    assert "--take-over" in container(cluster, "proxy")["args"]


@every
def test_who_drains_is_not_killed_meanwhile(cluster: str) -> None:
    (drain,) = (one for one in container(cluster, "proxy")["args"] if one.startswith("--drain-s="))
    assert pod(cluster, "proxy")["terminationGracePeriodSeconds"] >= int(drain.removeprefix("--drain-s=")) + 15
    assert pod(cluster, "agent")["terminationGracePeriodSeconds"] > CLEANUP_S + LEAVE_S + 15
    assert "livenessProbe" not in container(cluster, "proxy")


@every
@each
def test_on_every_node_and_the_last_to_go(cluster: str, which: str) -> None:
    assert pod(cluster, which)["tolerations"] == [{"operator": "Exists"}]
    assert pod(cluster, which)["priorityClassName"] == "system-node-critical"


@every
def test_the_namespace_admits_them(cluster: str) -> None:
    (namespace,) = of_kind(documents(cluster), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_gke_has_the_quota_that_its_priority_needs() -> None:
    (quota,) = of_kind(documents("gke"), "ResourceQuota")
    (matched,) = quota["spec"]["scopeSelector"]["matchExpressions"]
    critical = ["system-node-critical", "system-cluster-critical"]  # daemons; the webhook
    assert matched == {"scopeName": "PriorityClass", "operator": "In", "values": critical}


def _directories(cluster: str) -> dict[str, Any]:
    return {one["name"]: one["hostPath"]["path"] for one in pod(cluster, "agent")["volumes"]}


@pytest.mark.parametrize(
    ("cluster", "conf", "programs"),
    [
        ("base", "/etc/cni/net.d", "/opt/cni/bin"),
        ("gke", "/etc/cni/net.d", "/home/kubernetes/bin"),
        ("k3s", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/lib/rancher/k3s/data/cni"),
    ],
)
def test_the_clusters_own_cni_directories(cluster: str, conf: str, programs: str) -> None:
    found = _directories(cluster)
    assert (found["cni-conf"], found["cni-bin"]) == (conf, programs)


def test_openshifts_configuration_is_left_alone() -> None:
    assert _directories("openshift").keys() == {"run", "proc", "netns"}
    assert not any(one["name"].startswith("HEADGATE_CNI_") for one in container("openshift", "agent")["env"])
