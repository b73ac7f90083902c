"""What `headgate install --with repair --with taint` lets the agent's token do: CEL, so the real server only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from agent.kube.client import ApiClient
from agent.manifests.documents import Choice, installed
from agent.pods.taint import Taint
from agent.supervisor.untainting import Untainting
from tests.apiserver.bodies import pod, pods
from tests.apiserver.caller import Answer, Caller, until
from tests.apiserver.servers import Server
from tests.apiserver.test_admission_policy import _KINDS, _denied
from tests.kube.heard import Naps
from tests.kube.manifests.rendered import ROOT

_HOME = "mesh-duties"
_NODES = "/api/v1/nodes"
OURS = {"key": "headgate.io/agent-not-ready", "effect": "NoSchedule"}
OTHER = {"key": "example.org/special", "effect": "NoSchedule", "value": "gpu"}


@dataclass
class Cluster:
    """`agent`: as the agent on node-1."""

    server: Server
    agent: Caller
    token: str
    shop: str

    def node(self, name: str, *taints: dict[str, str]) -> str:
        """As it is registered, and has become ready: the server itself taints one that is made."""
        self.server.admin.delete(f"{_NODES}/{name}")
        self.server.admin.made(_NODES, {"metadata": {"name": name, "labels": {"zone": "a"}}, "spec": {}})
        path = f"{_NODES}/{name}"
        assert self.server.admin.patch(path, {"spec": {"taints": list(taints)}}).status == 200
        return path

    def spec(self, path: str) -> dict[str, Any]:
        return dict(self.server.admin.get(path).body["spec"])


@pytest.fixture(scope="module")
def cluster(server: Server) -> Iterator[Cluster]:
    admin, made = server.admin, []
    admin.made("/api/v1/namespaces", {"metadata": {"name": _HOME}})
    rendered = "---\n".join((ROOT / f"agent/manifests/{name}.yaml").read_text() for name in ("base", "repair", "taint"))
    try:
        for one in yaml.safe_load_all(installed(rendered, Choice(namespace=_HOME))):
            if one["kind"] in _KINDS:
                path = _KINDS[one["kind"]].format(namespace=_HOME)
                answer = admin.post(path, one)
                assert (answer.status, answer.warnings) == (201, ()), answer
                made.append(f"{path}/{one['metadata']['name']}")
        shop = server.namespace()
        agents = pod("agent", "node-1")
        agents["spec"]["serviceAccountName"] = "headgate-agent"
        admin.made(pods(_HOME), agents)
        token = server.token(_HOME, "headgate-agent", pod="agent")
        found = Cluster(server, server.by_token(token), token, shop)
        # Policies are compiled a moment after they were made; roles are heeded a moment later, too.
        foreign = found.node("node-2", OURS)
        until(lambda: found.agent.get(foreign).status == 200, "the role to be heeded")
        changed = {"spec": {"taints": None}}
        until(lambda: "denied request" in found.agent.patch(foreign, changed).message, "the policy to be heeded")
        yield found
    finally:
        for path in reversed(made):
            admin.delete(path)


def test_the_agent_takes_the_taint_from_its_own_node(cluster: Cluster) -> None:
    path = cluster.node("node-1", OTHER, OURS)

    async def run() -> None:
        client = ApiClient(cluster.server.access(token=cluster.token), lambda: 0.0, lambda: 0.0)
        taint = Taint.read("headgate.io/agent-not-ready:NoSchedule")
        untainting = Untainting(client, Naps().pace(), "node-1", taint, lambda: True)
        running = asyncio.create_task(untainting.run())
        try:
            async with asyncio.timeout(10):
                while OURS in (await asyncio.to_thread(cluster.spec, path))["taints"] and not untainting.problem:
                    await asyncio.sleep(0.02)
            assert untainting.problem == ""
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.close()

    asyncio.run(run())
    assert cluster.spec(path)["taints"] == [OTHER]


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"taints": None}},
        {"spec": {"taints": [OTHER, {**OURS, "effect": "NoExecute"}]}},
        {"spec": {"taints": [OTHER, OURS, {"key": "mine", "effect": "NoSchedule"}]}},
        {"spec": {"taints": [{**OTHER, "value": "none"}]}},
        {"spec": {"taints": [OTHER], "unschedulable": True}},
        {"spec": {"taints": [OTHER]}, "metadata": {"labels": {"zone": "b"}}},
        {"spec": {"taints": [OTHER]}, "metadata": {"annotations": {"x": "y"}}},
        {"spec": {"taints": [OTHER], "providerID": "x://y"}},
    ],
    ids=[
        "another taint too",
        "another effect",
        "one more",
        "changed",
        "unschedulable",
        "label",
        "annotation",
        "provider",
    ],
)
def test_and_nothing_else_of_it(cluster: Cluster, change: dict[str, Any]) -> None:
    path = cluster.node("node-1", OTHER, OURS)
    _denied(cluster.agent.patch(path, change), "the agent ")
    assert cluster.spec(path)["taints"] == [OTHER, OURS]


def test_nor_from_another_node(cluster: Cluster) -> None:
    path = cluster.node("node-2", OURS)
    _denied(cluster.agent.patch(path, {"spec": {"taints": None}}), "its own node only")
    for refused in (cluster.agent.delete(path), cluster.agent.patch(f"{path}/status", {"status": {"phase": "x"}})):
        assert refused.status == 403


def _delete(cluster: Cluster, name: str, uid: str) -> Answer:
    return cluster.agent.delete(pods(cluster.shop, name), {"preconditions": {"uid": uid}})


def test_the_agent_deletes_pods_of_its_own_node_only_and_only_the_one_that_it_means(cluster: Cluster) -> None:
    admin = cluster.server.admin
    for name, node in (("here", "node-1"), ("there", "node-2")):
        admin.made(pods(cluster.shop), pod(name, node))
    uids = {name: admin.get(pods(cluster.shop, name)).body["metadata"]["uid"] for name in ("here", "there")}
    _denied(_delete(cluster, "there", uids["there"]), "of its own node only")
    assert _delete(cluster, "here", uids["there"]).status == 409
    assert admin.get(pods(cluster.shop, "here")).body["metadata"].get("deletionTimestamp") is None
    assert _delete(cluster, "here", uids["here"]).status == 200
