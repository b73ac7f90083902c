"""What `headgate install` prints, given to a real server: every object taken, nothing unknown in it, no warning."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.apiserver.caller import Answer
from tests.apiserver.customs import Custom
from tests.apiserver.servers import Server
from tests.kube.manifests.rendered import ROOT, daemonset, documents

_ALL = sorted(path.stem for path in (ROOT / "agent/manifests").glob("*.yaml"))
_NAMESPACE = "headgate-system"
_OTHERS = (
    Custom("monitoring.coreos.com", "podmonitors", "PodMonitor"),
    Custom("security.openshift.io", "securitycontextconstraints", "SecurityContextConstraints"),
)
"""Kinds of the Prometheus operator and of OpenShift, whose schemas are theirs."""


@pytest.fixture(scope="module")
def cluster(server: Server) -> Iterator[Server]:
    """With the namespace, as the base labels it, for dry runs of what lies in it."""
    (namespace,) = (one for one in documents("base") if one["kind"] == "Namespace")
    answer = server.admin.post("/api/v1/namespaces", namespace, fieldValidation="Strict")
    assert (answer.status, answer.warnings) in ((201, ()), (409, ())), answer
    labels = {"metadata": {"labels": namespace["metadata"]["labels"]}}
    assert server.admin.patch(f"/api/v1/namespaces/{_NAMESPACE}", labels).status == 200
    for kind in _OTHERS:
        kind.define(server, scope="Cluster" if kind.kind == "SecurityContextConstraints" else "Namespaced")
    yield server
    for kind in _OTHERS:
        kind.forget(server)


def _path(server: Server, body: dict[str, Any]) -> str:
    """Where objects of its kind are made, by discovery."""
    root, resource = _found(server, body["apiVersion"], body["kind"])
    within = f"namespaces/{body['metadata'].get('namespace', 'default')}/" if resource["namespaced"] else ""
    return f"{root}/{within}{resource['name']}"


@cache
def _discovered(caller: Any, root: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = caller.get(root).body["resources"]
    return listed


def _found(server: Server, version: str, kind: str) -> tuple[str, dict[str, Any]]:
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    (found,) = (one for one in _discovered(server.admin, root) if one["kind"] == kind and "/" not in one["name"])
    return root, found


@pytest.mark.parametrize("name", _ALL)
def test_every_object_is_taken_as_it_is(cluster: Server, name: str) -> None:
    answers: list[tuple[str, Answer]] = []
    for body in documents(name):
        if body["kind"] != "Namespace":
            answer = cluster.admin.post(_path(cluster, body), body, dryRun="All", fieldValidation="Strict")
            answers.append((f"{body['kind']} {body['metadata']['name']}", answer))
    wrong = {what: (one.status, one.warnings, one.body) for what, one in answers if one.status != 201 or one.warnings}
    assert wrong == {}
    assert answers


@pytest.mark.parametrize("name", _ALL)
def test_the_pods_that_come_of_it_are_admitted(cluster: Server, name: str) -> None:
    """By Pod Security, priorities and accounts, which look at pods only. Real ones: their accounts must be there."""
    made = []
    bodies = documents(name)
    workloads = [body for body in bodies if body["kind"] in ("DaemonSet", "Deployment")]
    accounts = {body["spec"]["template"]["spec"].get("serviceAccountName", "default") for body in workloads}
    try:
        for account in sorted(accounts):
            path = f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts"
            if cluster.admin.get(f"{path}/{account}").status == 404:
                cluster.admin.made(path, {"metadata": {"name": account}})
                made.append(f"{path}/{account}")
        for body in (one for one in bodies if one["kind"] == "PriorityClass"):
            path = _path(cluster, body)
            cluster.admin.made(path, body)
            made.append(f"{path}/{body['metadata']['name']}")
        for body in workloads:
            template = body["spec"]["template"]
            metadata = {**template["metadata"], "name": f"{body['metadata']['name']}-of-a-test"}
            pod = {"metadata": metadata, "spec": template["spec"]}
            answer = cluster.admin.post(f"/api/v1/namespaces/{_NAMESPACE}/pods", pod, dryRun="All")
            assert (answer.status, answer.warnings) == (201, ()), (metadata["name"], answer.message)
    finally:
        for path in reversed(made):
            cluster.admin.delete(path)


def test_the_agents_pod_would_be_refused_in_a_namespace_without_its_label(cluster: Server) -> None:
    """Else the label above were there for nothing."""
    namespace = cluster.namespace({"pod-security.kubernetes.io/enforce": "baseline"})
    template = daemonset("base", "agent")["spec"]["template"]
    spec = {
        key: value for key, value in template["spec"].items() if key not in ("serviceAccountName", "priorityClassName")
    }
    answer = cluster.admin.post(
        f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "agent"}, "spec": spec}, dryRun="All"
    )
    assert (answer.status, "violates PodSecurity" in answer.message) == (403, True)
