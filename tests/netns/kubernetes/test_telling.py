"""What a node's agent says at the API server of what it has proved, and what it takes back."""

from __future__ import annotations

import copy
from typing import Any

from agent.pods.told import REASON, STATUS
from agent.telling.lease_holder import NAME
from agent.telling.route_status import CONTROLLER
from tests.netns.kubernetes.conftest import ENABLED, Cluster

GATEWAY = "gateway.networking.k8s.io"


def _object(cluster: Cluster, group: str, plural: str, name: str) -> dict[str, Any]:
    return cluster.api.server.store.resources[group, plural].objects["default", name]


def _said(cluster: Cluster, name: str) -> dict[str, str]:
    return dict(_object(cluster, "", "pods", name)["metadata"].get("annotations") or {})


def _events(cluster: Cluster, name: str) -> list[tuple[str, str, str]]:
    found = list(cluster.api.server.store.resources["", "events"].objects.values())
    return [
        (one["reason"], one["type"], one["source"]["host"]) for one in found if one["involvedObject"]["name"] == name
    ]


def _patches(cluster: Cluster) -> list[str]:
    return [path for method, path, _ in list(cluster.api.server.asked) if method == "PATCH"]


def test_an_enrolled_pod_says_so_until_its_label_goes_and_a_restart_says_nothing_twice(cluster: Cluster) -> None:
    cluster.stop()
    lab = cluster.lab
    client, server = lab.pod("client"), lab.pod("server")
    cluster.run_in(client, cluster.apply(client, ENABLED), 70)
    cluster.run_in(server, cluster.apply(server, {}), 71)
    cluster.start()
    lab.wait_proved("client")
    lab.wait("the pod to say that it is enrolled", lambda: _said(cluster, "client") == {STATUS: "enrolled"})
    lab.wait(
        "an Event to say so too",
        lambda: _events(cluster, "client") == [("RedirectionEnrolled", "Normal", "node-1")],
    )
    assert _said(cluster, "server") == {}
    assert cluster.problems() == []

    before = _patches(cluster)
    lab.stop_agent()
    cluster.start()
    lab.wait_proved("client")
    body = copy.deepcopy(_object(cluster, "", "pods", "client"))
    body["metadata"]["labels"] = {}
    cluster.api.put("Pod", body)
    lab.wait("the pod to say nothing any more", lambda: _said(cluster, "client") == {})
    assert _patches(cluster) == [*before, "/api/v1/namespaces/default/pods/client/status"]
    assert _events(cluster, "client") == [("RedirectionEnrolled", "Normal", "node-1")]


def test_a_pod_whose_namespace_is_not_found_says_that_it_waits(cluster: Cluster) -> None:
    cluster.running()
    lab = cluster.lab
    client = lab.pod("client")
    uid = cluster.apply(client, ENABLED)
    lab.wait("the pod to say what it waits for", lambda: _said(cluster, "client").get(STATUS) == "pending")
    assert _said(cluster, "client")[REASON].startswith("its network namespace is not found yet")
    cluster.run_in(client, uid, 70)
    lab.wait("the pod to be enrolled", lambda: _said(cluster, "client") == {STATUS: "enrolled"})
    assert cluster.problems() == []


def test_what_the_nodes_proxy_does_not_understand_stands_in_the_routes_status(cluster: Cluster) -> None:
    cluster.running()
    lab = cluster.lab
    cluster.api.apply(
        f"""
        apiVersion: {GATEWAY}/v1
        kind: HTTPRoute
        metadata: {{name: cart, namespace: default, generation: 1}}
        spec: {{parentRefs: [{{group: "", kind: Service, name: cart}}, {{name: edge}}]}}
        """
    )

    def entries() -> list[dict[str, Any]]:
        return list(_object(cluster, GATEWAY, "httproutes", "cart").get("status", {}).get("parents", []))

    try:
        lab.wait("the route to be told of", lambda: len(entries()) == 1)
        (entry,) = entries()
        assert entry["controllerName"] == CONTROLLER
        assert entry["parentRef"] == {"group": "", "kind": "Service", "name": "cart"}
        accepted = next(one for one in entry["conditions"] if one["type"] == "Accepted")
        assert (accepted["status"], accepted["observedGeneration"]) == ("False", 1)
        assert "HTTPRoute is not supported by this version" in accepted["message"]
        assert str(_object(cluster, "coordination.k8s.io", "leases", NAME)["spec"]["holderIdentity"]).startswith(
            "node-1_"
        )
        lab.stop_agent()
        assert _object(cluster, "coordination.k8s.io", "leases", NAME)["spec"]["holderIdentity"] == ""
    finally:
        cluster.api.delete("HTTPRoute", "cart")


def test_an_agent_that_leaves_for_good_leaves_nothing_on_its_pods(cluster: Cluster) -> None:
    """And says which rule its role lacks."""
    cluster.stop()
    lab = cluster.lab
    client = lab.pod("client")
    cluster.run_in(client, cluster.apply(client, ENABLED), 70)
    faults = cluster.api.server.faults
    faults.refuse["create events"] = 403
    try:
        cluster.start_agent("--cleanup-on-exit")
        cluster.start()
        lab.wait("the pod to be enrolled", lambda: _said(cluster, "client") == {STATUS: "enrolled"})
        lab.wait(
            "the missing rule to be named",
            lambda: any("create and patch of events" in one for one in cluster.problems()),
        )
    finally:
        faults.refuse.clear()
    assert lab.stop_agent() == 0
    assert _said(cluster, "client") == {}


def test_an_agent_that_is_to_say_nothing_says_nothing(cluster: Cluster) -> None:
    cluster.stop()
    lab = cluster.lab
    client = lab.pod("client")
    cluster.run_in(client, cluster.apply(client, ENABLED), 70)
    before = len(cluster.api.server.writes())
    cluster.start_agent("--no-status")
    cluster.start()
    lab.wait_proved("client")
    assert lab.stop_agent() == 0
    assert len(cluster.api.server.writes()) == before
