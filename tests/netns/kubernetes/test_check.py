"""`headgate check` of a cluster whose agent and pods are real: proofs as the agent has taken them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiohttp import web

from agent.lab.spec import NODE_ADDRESS4
from proxy.api.constants import AGENT_METRICS_PORT
from tests.kube.manifests.rendered import container, daemonset
from tests.netns.kubernetes.conftest import ENABLED, Cluster

_OURS = "headgate-system"


def _checked(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """By id; as the command says it, run within the node's network."""
    words = [sys.executable, "-m", "agent", "check", "--kubeconfig", str(cluster.kubeconfig), "-o", "json"]
    return {line["id"]: line for line in json.loads(cluster.lab.node.run(words, check=False).stdout)["checks"]}


def _installed(cluster: Cluster) -> None:
    """One node, and on it agent and proxy, which keep no CNI chain."""
    info, ready = {"operatingSystem": "linux"}, [{"type": "Ready", "status": "True"}]
    cluster.api.put("Node", {"metadata": {"name": "node-1"}, "status": {"nodeInfo": info, "conditions": ready}}, "")
    for which in ("agent", "proxy"):
        all_of_it = {"desiredNumberScheduled": 1, "numberReady": 1, "updatedNumberScheduled": 1}
        words = {"name": which, "image": "headgate:0.1.0", "args": container("base", which)["args"]}
        template = {"spec": {"containers": [words]}}
        metadata = daemonset("base", which)["metadata"]
        body = {"metadata": metadata, "spec": {"template": template}, "status": all_of_it}
        cluster.api.put("DaemonSet", body, _OURS)
        labels = {"app.kubernetes.io/name": "headgate", "app.kubernetes.io/component": which}
        pod = {"metadata": {"name": which, "namespace": _OURS, "labels": labels}, "spec": {"nodeName": "node-1"}}
        cluster.api.put("Pod", {**pod, "status": {"phase": "Running", "conditions": ready}}, _OURS)


def _proxied(cluster: Cluster) -> Any:
    """What the API server does for `pods/NAME:PORT/proxy/PATH`."""

    async def answer(request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        assert (namespace, name) == (_OURS, f"agent:{AGENT_METRICS_PORT}")
        url = f"http://{NODE_ADDRESS4}:{AGENT_METRICS_PORT}/{path.lstrip('/')}"
        told = await asyncio.to_thread(cluster.lab.node.run, ["curl", "-sf", url])
        return web.Response(text=told.stdout, content_type="application/json")

    return answer


def test_every_pods_proofs_are_told_and_a_pod_that_fails_is_named(cluster: Cluster) -> None:
    cluster.stop()
    lab = cluster.lab
    client, server = lab.pod("client"), lab.pod("server")
    _installed(cluster)
    cluster.api.server.pod_proxy = _proxied(cluster)
    cluster.run_in(client, cluster.apply(client, ENABLED), 70)
    cluster.start()
    lab.wait_proved("client")
    found = _checked(cluster)
    assert {identity for identity, line in found.items() if line["result"] == "failed"} == set()
    assert found["pods-proved"]["what"].endswith("(1)")
    assert (found["agent-answers"]["result"], found["version-skew"]["result"]) == ("ok", "ok")

    with server.netns.listen("0.0.0.0", 15001):  # a pod that holds the proxy's port
        cluster.run_in(server, cluster.apply(server, ENABLED), 71)
        lab.wait("the second pod to fail", lambda: cluster.states().get("server") == "failed")
        told = _checked(cluster)["pods-proved"]
    assert told["result"] == "failed"
    assert "default/server: failed: " in told["why"]
    assert "15001" in told["why"]
    cluster.stop()
