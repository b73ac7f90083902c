"""kubelet's probes of pods that an agent serves: by every means of its own, without a proxy, and where nothing passes.

A process of the node's network stands in for kubelet: what it sends is what kubelet's would be.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.lab.node import LabPod
from agent.plan import ProbeSettings
from tests.netns.kubernetes.conftest import ENABLED, Cluster
from tests.netns.life import kernel
from tests.netns.life.talk import address

PROBES = ProbeSettings()
HTTP_PORT, GRPC_PORT = 8080, 9090
FAMILIES = (4, 6)
SOURCES = {4: str(PROBES.source4), 6: str(PROBES.source6)}
HTTP_SERVER = f"""
import http.server, socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].removeprefix("::ffff:").encode())
    def log_message(self, *words):
        pass
Server(("::", {HTTP_PORT}), Handler).serve_forever()
"""
GRPC_SERVER = f"""
import concurrent.futures, grpc
def check(request, context):
    return b"\\x08\\x01"  # HealthCheckResponse: status 1, SERVING (grpc/health/v1/health.proto)
handlers = grpc.method_handlers_generic_handler(
    "grpc.health.v1.Health", {{"Check": grpc.unary_unary_rpc_method_handler(check)}}
)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=(handlers,))
assert server.add_insecure_port("[::]:{GRPC_PORT}")
server.start()
server.wait_for_termination()
"""
GRPC_PROBE = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    print(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10).hex())
"""


@contextmanager
def serving(cluster: Cluster, pod: LabPod, program: str, port: int) -> Iterator[None]:
    child = pod.popen([sys.executable, "-c", program])
    try:
        cluster.lab.wait(f"port {port} to be listened on", lambda: not is_refused(pod, "127.0.0.1", port))
        yield
    finally:
        child.kill()
        child.wait()


def served(cluster: Cluster, *, options: tuple[str, ...] = ()) -> tuple[LabPod, str]:
    """The pod `server`, enrolled by an agent that keeps the node's rules; its uid."""
    cluster.stop()
    pod = cluster.lab.pod("server")
    uid = cluster.apply(pod, ENABLED)
    cluster.run_in(pod, uid, 71)
    cluster.lab.start_proxy(own_objects=False)
    cluster.start_agent("--node-netns", str(cluster.lab.node.path), *options)
    cluster.lab.wait_proved("server")
    cluster.lab.wait("the node to know the pod", lambda: listed(cluster, "server"))
    return pod, uid


def told(cluster: Cluster, name: str) -> dict[str, Any]:
    probes: dict[str, Any] | None = kernel.pod_state(cluster.lab, name).get("probes")
    return probes or {"listed": False, "paths": []}


def listed(cluster: Cluster, name: str) -> bool:
    return bool(told(cluster, name)["listed"])


def statuses(cluster: Cluster, name: str) -> set[str]:
    return {path["status"] for path in told(cluster, name)["paths"]}


def node_table(cluster: Cluster) -> str:
    return cluster.lab.node.run(["nft", "list", "table", "inet", "headgate-node"], check=False).stdout


def http_probe(cluster: Cluster, pod: LabPod, family: int) -> str:
    """Who the application takes the prober for."""
    with cluster.lab.node.connect(address(pod, family), HTTP_PORT) as kubelet:
        kubelet.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while more := kubelet.recv(4096):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200"), answer
    return body.decode()


def is_refused(pod: LabPod, to: object, port: int) -> bool:
    try:
        pod.netns.connect(to, port).close()
    except ConnectionRefusedError:
        return True
    return False


# ── Every kind ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_b27_b28_http_tcp_and_grpc_probes_reach_the_application_past_the_proxy(cluster: Cluster) -> None:
    pod, _ = served(cluster)
    with serving(cluster, pod, HTTP_SERVER, HTTP_PORT), serving(cluster, pod, GRPC_SERVER, GRPC_PORT):
        for family in FAMILIES:
            assert http_probe(cluster, pod, family) == SOURCES[family]
            target = f"[{address(pod, 6)}]" if family == 6 else str(address(pod, 4))
            done = cluster.lab.node.run([sys.executable, "-c", GRPC_PROBE, f"{target}:{GRPC_PORT}"])
            assert done.stdout.strip() == "0801"
            with pytest.raises(ConnectionRefusedError):  # a tcp probe of what does not listen is to fail
                cluster.lab.node.connect(address(pod, family), HTTP_PORT + 1)
        # Who is no kubelet meets the proxy still: it calls the application with the neighbour's own address.
        client = cluster.lab.pod("client")
        with client.netns.connect(address(pod, 4), HTTP_PORT) as neighbour:
            neighbour.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert neighbour.recv(4096).startswith(b"HTTP/1.")
    proofs = kernel.pod_state(cluster.lab, "server")["proofs"]
    assert {name: proofs[name]["result"] for name in ("in4", "in6")} == {"in4": "ok", "in6": "ok"}
    cluster.lab.wait("the way to be tried", lambda: statuses(cluster, "server") == {"open"})


def test_b27_with_the_proxy_away_probes_are_answered_and_the_pod_is_not_ended_for_it(cluster: Cluster) -> None:
    pod, _ = served(cluster, options=("--park-timeout", "0"))
    with serving(cluster, pod, HTTP_SERVER, HTTP_PORT):
        cluster.lab.kill("proxy")
        neighbour = cluster.lab.pod("client")
        cluster.lab.wait("others to be refused", lambda: is_refused(neighbour, address(pod, 4), HTTP_PORT))
        for family in FAMILIES:
            assert http_probe(cluster, pod, family) == SOURCES[family]


# ── Kept in force ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_b27_the_nodes_rules_come_back_and_go_with_the_last_agent(cluster: Cluster) -> None:
    """What else may become of them: tests/netns/kernel/test_node_rules.py."""
    pod, uid = served(cluster)
    whole = node_table(cluster)
    assert f'{address(pod, 4)} comment "{uid}"' in whole
    assert str(address(pod, 6)) in whole
    cluster.lab.node.run(["nft", "flush", "ruleset"])
    cluster.lab.wait("the rules to be put back", lambda: uid in node_table(cluster))
    cluster.lab.wait("that to be told", lambda: "the node's rules for probes were gone" in cluster.lab.log("agent"))
    cluster.lab.stop_agent()
    assert node_table(cluster) == ""


def test_b52_an_agent_that_begins_keeps_what_it_finds_and_a_pod_that_leaves_takes_its_own_alone(
    cluster: Cluster,
) -> None:
    pod, uid = served(cluster)
    before = node_table(cluster)
    cluster.lab.kill_agent()
    assert node_table(cluster) == before
    cluster.start_agent("--node-netns", str(cluster.lab.node.path))
    cluster.lab.wait_proved("server")
    assert uid in node_table(cluster)
    cluster.apply(pod, {})
    cluster.lab.wait("the pod to be let go", lambda: uid not in node_table(cluster))
    assert "set pods4" in node_table(cluster)


# ── Where nothing passes ───────────────────────────────────────────────────────────────────────────────────────────
def test_b29_a_policy_that_drops_probes_and_a_pod_without_a_way_back_are_found_and_told(cluster: Cluster) -> None:
    lab = cluster.lab
    client, server = lab.pod("client"), lab.pod("server")
    cluster.stop()
    with dropped(cluster, f"ip saddr 169.254.7.127 ip daddr {server.address4} drop"), without_default_route(client):
        cluster.run_in(client, cluster.apply(client, ENABLED), 70)
        served(cluster)
        for pod in (client, server):
            both_tried = functools.partial(is_tried, cluster, pod)
            lab.wait(f"{pod.name}'s ways to be tried", both_tried)
        shut, open_ = (path_to(cluster, server, family) for family in FAMILIES)
        assert (shut["status"], open_["status"]) == ("shut", "open")
        assert "169.254.7.127 is dropped on the way" in shut["reason"]
        assert "NetworkPolicy" in shut["remedy"]
        state = kernel.pod_state(lab, "server")
        assert (state["state"], state["reason"]) == ("proved", ""), "the pod itself is well"
        events = lab.agent_get("/events/default/server")["items"]
        assert [event["type"] for event in events if event["reason"] == "ProbesBlocked"] == ["Warning"]
        one_way, open_ = (path_to(cluster, client, family) for family in FAMILIES)
        assert (one_way["status"], open_["status"]) == ("one-way", "open")
        assert "no route back" in one_way["reason"]
        assert "default route" in one_way["remedy"]


# ── Pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def is_tried(cluster: Cluster, pod: LabPod) -> bool:
    return len(told(cluster, pod.name)["paths"]) == len(FAMILIES)


def path_to(cluster: Cluster, pod: LabPod, family: int) -> dict[str, Any]:
    return next(path for path in told(cluster, pod.name)["paths"] if path["address"] == str(address(pod, family)))


@contextmanager
def dropped(cluster: Cluster, rule: str) -> Iterator[None]:
    """Behind translation, as what stands at a pod's own interface sees it."""
    cluster.lab.node.run(
        ["nft", "-f", "-"],
        stdin=f"table inet rules {{ chain c {{ type filter hook postrouting priority 200;\n{rule}\n}}\n}}\n",
    )
    try:
        yield
    finally:
        cluster.lab.node.run(["nft", "delete", "table", "inet", "rules"])


@contextmanager
def without_default_route(pod: LabPod) -> Iterator[None]:
    route = pod.run(["ip", "-4", "route", "show", "default"]).stdout.split()
    pod.run(["ip", "-4", "route", "del", *route])
    try:
        yield
    finally:
        pod.run(["ip", "-4", "route", "add", *route])
