"""What the kubelet is answered, from the first moment."""

from __future__ import annotations

from agent.lab.spec import NODE_ADDRESS4
from proxy.api.constants import AGENT_METRICS_PORT
from tests.netns.kubernetes.conftest import Cluster


def asked(cluster: Cluster, what: str) -> str:
    url = f"http://{NODE_ADDRESS4}:{AGENT_METRICS_PORT}/healthz/{what}"
    return cluster.lab.node.run(["curl", "-s", "-w", "%{http_code}", url], check=False).stdout


def test_not_ready_without_an_api_server_at_the_start_ready_without_it_afterwards(cluster: Cluster) -> None:
    cluster.stop()
    cluster.api.down()
    cluster.start_agent()
    cluster.lab.wait("the agent to say what it waits for", lambda: "pods: " in asked(cluster, "ready"))
    assert asked(cluster, "ready").startswith("not ready: pods are not known yet: pods: ")
    assert asked(cluster, "ready").endswith("503")
    assert asked(cluster, "live") == "live\n200", "to start it anew would mend nothing"
    cluster.serve()
    cluster.lab.wait("the agent to be ready", lambda: asked(cluster, "ready") == "ready\n200")
    assert cluster.cni_socket.exists()
    cluster.api.down()
    cluster.lab.wait("the agent to notice", lambda: any("pods: " in one for one in cluster.problems()))
    assert asked(cluster, "ready") == "ready\n200"
    cluster.serve()


def test_a_nodes_taint_goes_when_a_proxy_is_there_too(cluster: Cluster) -> None:
    cluster.stop()
    ours = {"key": "headgate.io/agent-not-ready", "effect": "NoSchedule"}
    other = {"key": "example.org/special", "effect": "NoSchedule"}
    cluster.api.put("Node", {"metadata": {"name": "node-1"}, "spec": {"taints": [other, ours]}}, "")
    node = cluster.api.server.store.resources["", "nodes"].objects["", "node-1"]
    cluster.start_agent("--taint", "headgate.io/agent-not-ready:NoSchedule")
    cluster.lab.wait("the agent to be ready", lambda: asked(cluster, "ready") == "ready\n200")
    assert node["spec"]["taints"] == [other, ours], "no pod could start yet"
    cluster.lab.start_proxy(own_objects=False)
    nodes = cluster.api.server.store.resources["", "nodes"].objects
    cluster.lab.wait("the taint to go", lambda: nodes["", "node-1"]["spec"]["taints"] == [other])
    cluster.stop()
