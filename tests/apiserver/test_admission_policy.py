"""What the agent's token may write, by the manifests' roles and admission policies: CEL, so the real server only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml

from agent.events import EventType, PodEvent, Reason
from agent.kube.client import ApiClient
from agent.kube.errors import ApiRefused
from agent.kube.watch import Pace
from agent.manifests.documents import Choice, installed
from agent.pods import PodRef
from agent.pods.told import REASON, STATUS
from agent.telling.event_objects import event_name, event_object, event_patch
from agent.telling.lease_holder import NAME, LeaseHolder
from agent.telling.outcomes import Outcome, outcome_of
from agent.telling.pod_status import patch
from agent.telling.route_status import CONTROLLER, status_patch
from tests.apiserver.bodies import leases, pod, pods
from tests.apiserver.caller import Answer, Caller, until
from tests.apiserver.servers import Server
from tests.kube.manifests.rendered import ROOT

_HOME = "mesh-policies"
_KINDS = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}
_ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces"
_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "tcproutes.gateway.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "tcproutes", "singular": "tcproute", "kind": "TCPRoute", "listKind": "TCPRouteList"},
        "versions": [
            {
                "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}  # fmt: skip


@dataclass
class Cluster:
    """`agent`: as the agent on node-1. `shop`: a namespace with the pods `here` on node-1 and `there` on node-2."""

    server: Server
    agent: Caller
    token: str
    shop: str

    def annotate(self, name: str, annotations: dict[str, str | None], subresource: str = "status") -> Answer:
        return self.agent.patch(pods(self.shop, name, subresource), {"metadata": {"annotations": annotations}})

    def uid(self, name: str) -> str:
        return str(self.server.admin.get(pods(self.shop, name)).body["metadata"]["uid"])

    def event(self, name: str = "here") -> PodEvent:
        now_s = time.time()
        return PodEvent(self.shop, name, self.uid(name), EventType.WARNING, Reason.DRIFTED, "gone", 1, now_s, now_s)


@pytest.fixture(scope="module")
def cluster(server: Server) -> Iterator[Cluster]:
    admin, made = server.admin, []
    admin.made("/api/v1/namespaces", {"metadata": {"name": _HOME}})
    rendered = (ROOT / "agent/manifests/base.yaml").read_text()
    try:
        for one in yaml.safe_load_all(installed(rendered, Choice(namespace=_HOME))):
            if one["kind"] in _KINDS:
                path = _KINDS[one["kind"]].format(namespace=_HOME)
                answer = admin.post(path, one)
                assert (answer.status, answer.warnings) == (201, ()), answer
                made.append(f"{path}/{one['metadata']['name']}")
        shop = server.namespace()
        for name, node in (("here", "node-1"), ("there", "node-2")):
            admin.made(pods(shop), pod(name, node))
        agents = pod("agent", "node-1")
        agents["spec"]["serviceAccountName"] = "headgate-agent"
        admin.made(pods(_HOME), agents)
        token = server.token(_HOME, "headgate-agent", pod="agent")
        found = Cluster(server, server.by_token(token), token, shop)
        # Policies are compiled a moment after they were made; roles are heeded a moment later, too.
        until(lambda: found.annotate("here", {STATUS: None}).status == 200, "the role to be heeded")
        until(lambda: found.annotate("there", {STATUS: "x"}).status == 403, "the policies to be heeded")
        yield found
    finally:
        for path in reversed(made):
            admin.delete(path)


def _denied(answer: Answer, why: str) -> None:
    assert answer.status == 403, answer
    assert "denied request" in answer.message
    assert why in answer.message
    assert outcome_of(ApiRefused(403, answer.reason, answer.message)) is Outcome.REFUSED  # not a missing rule


# ── Pods ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_it_says_what_it_has_to_on_its_own_nodes_pods_through_the_status_subresource(cluster: Cluster) -> None:
    here = PodRef(cluster.uid("here"), cluster.shop, "here")
    for said in ({STATUS: "failed", REASON: "for a reason"}, {STATUS: "enrolled"}, {}):
        answer = cluster.agent.patch(pods(cluster.shop, "here", "status"), patch(here, tuple(said.items())))
        assert (answer.status, answer.body["metadata"].get("annotations", {})) == (200, said)


def test_another_nodes_pods_are_not_its_own(cluster: Cluster) -> None:
    _denied(cluster.annotate("there", {STATUS: "enrolled"}), "of its own node only")


def test_other_annotations_are_not_its_own_whether_set_changed_or_taken_away(cluster: Cluster) -> None:
    path = pods(cluster.shop, "here")
    cluster.server.admin.patch(path, {"metadata": {"annotations": {"note": "a", "headgate.io/opaque-ports": "1"}}})
    why = "annotations headgate.io/status"
    _denied(cluster.annotate("here", {"note": "b"}), why)
    _denied(cluster.annotate("here", {"note": None}), why)
    _denied(cluster.annotate("here", {"other": "a"}), why)
    _denied(cluster.annotate("here", {"headgate.io/opaque-ports": "2"}), why)
    assert cluster.annotate("here", {STATUS: "enrolled"}).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"app": "other"}}},
        {"metadata": {"finalizers": ["example.com/stay"]}},
        {"status": {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}},
        {"status": {"phase": "Succeeded"}},
        {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    ],
)
def test_nothing_else_of_a_pod_is_its_own(cluster: Cluster, change: dict[str, Any]) -> None:
    _denied(cluster.agent.patch(pods(cluster.shop, "here", "status"), change), "annotations of pods only")


def test_what_its_role_does_not_permit_is_said_in_words_that_are_known_for_that(cluster: Cluster) -> None:
    tried = [
        cluster.annotate("here", {STATUS: "x"}, subresource=""),
        cluster.agent.delete(pods(cluster.shop, "here")),
        cluster.agent.get(f"/api/v1/namespaces/{_HOME}/secrets"),
        cluster.agent.get(leases("default", "other")),
    ]
    for answer in tried:
        assert answer.status == 403
        assert outcome_of(ApiRefused(403, answer.reason, answer.message)) is Outcome.FORBIDDEN


def test_a_token_that_names_no_node_writes_on_no_pod(cluster: Cluster) -> None:
    unbound = cluster.server.by_token(cluster.server.token(_HOME, "headgate-agent"))
    other = replace(cluster, agent=unbound)
    _denied(other.annotate("here", {STATUS: "enrolled"}), "of its own node only")


def test_others_write_as_before(cluster: Cluster) -> None:
    answer = cluster.server.admin.patch(pods(cluster.shop, "there"), {"metadata": {"labels": {"app": "x"}}})
    assert answer.status == 200


def test_a_pod_of_the_same_name_made_anew_is_not_written_on(cluster: Cluster) -> None:
    gone = PodRef("0f0f0f0f-0000-4000-8000-000000000000", cluster.shop, "here")
    answer = cluster.agent.patch(pods(cluster.shop, "here", "status"), patch(gone, ((STATUS, "enrolled"),)))
    assert outcome_of(ApiRefused(answer.status, answer.reason, answer.message)) is Outcome.CONFLICT, answer


# ── Events ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_its_events_are_taken_and_counted(cluster: Cluster) -> None:
    event = cluster.event()
    path = f"/api/v1/namespaces/{cluster.shop}/events"
    assert cluster.agent.post(path, event_object(event, "node-1")).status == 201
    again = replace(event, count=7, message="swapped", last_s=event.last_s + 60)
    assert cluster.agent.patch(f"{path}/{event_name(event)}", event_patch(again)).status == 200
    found = cluster.server.admin.get(path, fieldSelector="involvedObject.name=here").body["items"]
    assert [(one["count"], one["message"], one["source"]["host"]) for one in found] == [(7, "swapped", "node-1")]


def test_events_in_anothers_name_are_not_its_own(cluster: Cluster) -> None:
    path = f"/api/v1/namespaces/{cluster.shop}/events"
    _denied(cluster.agent.post(path, event_object(cluster.event("there"), "node-2")), "the node that its token names")
    scheduler = {**event_object(cluster.event(), "node-1"), "source": {"component": "scheduler", "host": "node-1"}}
    _denied(cluster.agent.post(path, scheduler), "Events name it")
    kubelets = {**event_object(cluster.event(), "node-2"), "source": {"component": "kubelet", "host": "node-2"}}
    kubelets["metadata"]["name"] = "theirs"
    cluster.server.admin.made(path, kubelets)
    _denied(cluster.agent.patch(f"{path}/theirs", {"message": "all is well"}), "")
    node = event_object(cluster.event(), "node-1")
    node["involvedObject"] = {"kind": "Node", "name": "node-1", "namespace": cluster.shop}
    _denied(cluster.agent.post(path, node), "are about pods")


def test_a_namespace_that_ends_takes_none_and_that_is_no_problem(cluster: Cluster) -> None:
    ending = cluster.server.namespace()
    cluster.server.admin.delete(f"/api/v1/namespaces/{ending}")
    event = event_object(replace(cluster.event(), namespace=ending), "node-1")
    answer = cluster.agent.post(f"/api/v1/namespaces/{ending}/events", event)
    assert answer.status == 403
    assert "because it is being terminated" in answer.message


# ── Routes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _entry(controller: str) -> dict[str, Any]:
    return {"parentRef": {"name": "cart"}, "controllerName": controller, "conditions": []}


def test_of_a_routes_status_its_own_entries_only(cluster: Cluster) -> None:
    admin = cluster.server.admin
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    admin.made(crds, _CRD)
    path = f"{_ROUTES}/{cluster.shop}/tcproutes"
    try:
        until(lambda: admin.get(path).status == 200, "the kind to be served")
        admin.made(
            path, {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": {"name": "cart"}}
        )
        theirs, ours = _entry("example.com/gateway"), _entry(CONTROLLER)
        admin.patch(f"{path}/cart/status", {"status": {"parents": [theirs]}})

        def says(*parents: dict[str, Any]) -> Answer:
            return cluster.agent.patch(f"{path}/cart/status", {"status": {"parents": list(parents)}})

        until(lambda: says(ours).status == 403, "the policy to know of the kind")
        assert says(theirs, ours).status == 200
        _denied(says({**theirs, "conditions": [{"type": "Accepted"}]}, ours), "its own entries")
        _denied(says(ours), "its own entries")
        _denied(says(theirs, ours, _entry("example.com/other")), "its own entries")
        assert says(theirs).status == 200
        before = admin.get(f"{path}/cart").body
        done = cluster.agent.patch(f"{path}/cart/status", status_patch(before, [theirs, ours]))
        assert (done.status, done.body["status"]["parents"]) == (200, [theirs, ours])
        late = cluster.agent.patch(f"{path}/cart/status", status_patch(before, [theirs]))
        assert outcome_of(ApiRefused(late.status, late.reason, late.message)) is Outcome.CONFLICT, late
    finally:
        admin.delete(f"{crds}/{_CRD['metadata']['name']}")


# ── The Lease ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _with_client(cluster: Cluster, scenario: Callable[[ApiClient], Any]) -> None:
    async def whole() -> None:
        client = ApiClient(cluster.server.access(token=cluster.token), time.monotonic, time.time)
        try:
            await scenario(client)
        finally:
            await client.close()

    asyncio.run(whole())


def test_two_agents_never_hold_the_lease_together_and_the_second_has_it_when_the_first_lets_go(
    cluster: Cluster,
) -> None:
    async def scenario(client: ApiClient) -> None:
        counts: list[tuple[str, Outcome]] = []
        clock = [100.0]

        def holder(name: str) -> LeaseHolder:
            pace = Pace(asyncio.sleep, lambda: 0.0, lambda: clock[0])
            return LeaseHolder(
                client, _HOME, name, pace, time.time,
                wanted=lambda: True, count=lambda kind, outcome: counts.append((kind, outcome)), spread_s=0.0,
            )  # fmt: skip

        first, second = holder("a"), holder("b")
        await first.look()
        await second.look()
        assert (first.holds, second.holds) == (True, False)
        clock[0] += 2
        await first.look()
        await second.look()
        assert (first.holds, second.holds) == (True, False)
        assert first.problems == second.problems == ()
        found = cluster.server.admin.get(leases(_HOME, NAME)).body["spec"]
        assert (found["holderIdentity"], found["leaseDurationSeconds"]) == ("a", 15)
        await first.release()
        await second.look()
        assert (first.holds, second.holds) == (False, True)
        clock[0] += 16
        third = holder("c")
        await third.look()
        assert not third.holds  # seen for the first time: since when it was not renewed, nobody can tell
        clock[0] += 16
        await third.look()
        await second.look()
        assert (second.holds, third.holds) == (False, True)
        assert counts.count(("lease", Outcome.DONE)) == 4

    _with_client(cluster, scenario)


# ── What an overlay's role may add ─────────────────────────────────────────────────────────────────────────────────
def test_with_a_role_to_delete_pods_it_deletes_those_of_its_own_node_only(cluster: Cluster) -> None:
    """The last test: who may delete may from now on."""
    server = cluster.server
    for name, node in (("doomed", "node-1"), ("safe", "node-2")):
        server.admin.made(pods(cluster.shop), pod(name, node))
    server.permits(_HOME, "headgate-agent", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}])
    until(lambda: cluster.agent.delete(pods(cluster.shop, "doomed")).status == 200, "the role to be heeded")
    _denied(cluster.agent.delete(pods(cluster.shop, "safe")), "of its own node only")
