"""The end: a pod's, the agent's, the whole lab's. What was there before is there after, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab import machine, namespaces, state
from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab, LabPod
from agent.lab.spec import NODE_ADDRESS4, NODE_ADDRESS6
from tests.netns.life import kernel
from tests.netns.life.talk import until

VIP = ["http://10.96.0.10/", "http://[fd96::10]/"]
FREE_WITHIN_S = 2.0
"""DESIGN 5."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def _links(lab: Lab) -> set[str]:
    return {link["ifname"] for link in json.loads(lab.node.run(["ip", "-j", "link", "show"]).stdout)}


def test_deleted_namespace_of_an_enrolled_pod_and_its_veth_are_free_within_2_s(lab: Lab) -> None:
    """After calls in both directions, so that the proxy has idle connections and listeners in there to let go."""
    lab.start()
    client, web = lab.pod("client"), lab.pod("web-v1")
    for url in VIP:
        client.run(["curl", "-sf", url])
    lab.node.run(["curl", "-sf", "--max-time", "2", f"http://{web.address4}:8080/"])
    with client.netns.listen(client.address4, 8080):
        lab.node.connect(client.address4, 8080).close()
    assert "veth0" in _links(lab)
    namespaces.delete(client.netns)
    until("the veth pair is free", lambda: "veth0" not in _links(lab), timeout_s=FREE_WITHIN_S)
    lab.wait("the agent to let go", lambda: {pod["name"] for pod in lab.agent_pods()} == {"web-v1", "web-v2"})
    lab.wait("the proxy to let go", lambda: {pod["name"] for pod in lab.proxy_get("/pods")} == {"web-v1", "web-v2"})
    assert "veth1" in _links(lab)
    verified = lab.agent_get("/pods/default/web-v1/verify", method="POST", timeout_s=20)
    assert verified["state"] == "proved"


def test_deleted_namespace_of_a_pod_that_waits_for_a_proxy_is_free_within_2_s(lab: Lab) -> None:
    lab.start_agent()
    kernel.wait_state(lab, "client", "pending")
    namespaces.delete(lab.pod("client").netns)
    until("the veth pair is free", lambda: "veth0" not in _links(lab), timeout_s=FREE_WITHIN_S)
    lab.wait("the agent to let go", lambda: kernel.pod_state(lab, "client")["state"] == "unknown")


def test_deleted_namespace_is_free_within_2_s_when_no_agent_is_there_and_living_pods_are_served_on(lab: Lab) -> None:
    """A pod that has lived for a second: the proxy must have seen its namespace in use before it can miss that."""
    lab.start()
    enrolled_s = time.monotonic()
    client, web = lab.pod("client"), lab.pod("web-v1")
    client.run(["curl", "-sf", VIP[0]])
    until("it has lived for a second", lambda: time.monotonic() > enrolled_s + 1)
    lab.kill_agent()
    namespaces.delete(client.netns)
    until("the veth pair is free", lambda: "veth0" not in _links(lab), timeout_s=FREE_WITHIN_S)
    assert {pod["name"] for pod in lab.proxy_get("/pods")} == {"web-v1", "web-v2"}
    answer = lab.node.run(["curl", "-sf", "--max-time", "5", f"http://{web.address4}:8080/"])
    assert json.loads(answer.stdout)["client"] == str(NODE_ADDRESS4)


def test_b48_pod_made_anew_under_its_name_is_proved_anew_as_soon_as_its_address_is_there(lab: Lab) -> None:
    """As `ip netns delete` and `add` would do it: for a moment the new namespace has neither link nor address."""
    lab.start()
    client = lab.pod("client")
    namespaces.delete(client.netns)
    until("the veth pair is free", lambda: "veth0" not in _links(lab), timeout_s=FREE_WITHIN_S)
    made_again = namespaces.create(client.netns.name)
    assert "does not hold the pod's address" in kernel.wait_state(lab, "client", "failed")["reason"]
    made_again.write_sysctl("net/ipv6/conf/default/accept_dad", "0")
    lab.node.run(["ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", made_again.name])
    lab.node.run(["ip", "link", "set", "veth0", "master", "br0", "up"])
    lab.node.run(["ip", "neigh", "flush", "dev", "br0"])  # its hardware address is another
    made_again.run(["ip", "-batch", "-"], stdin=_addresses(client))
    lab.wait_proved("client")
    assert "redirect to :15001" in kernel.rules(made_again)
    for url in VIP:
        assert made_again.run(["curl", "-sfg", "--max-time", "5", url]).returncode == 0


def _addresses(pod: LabPod) -> str:
    return f"""link set lo up
link set eth0 up
addr add {pod.address4}/24 dev eth0
addr add {pod.address6}/64 dev eth0 nodad
route add default via {NODE_ADDRESS4}
route add default via {NODE_ADDRESS6} dev eth0
"""


def test_agent_that_is_asked_to_end_leaves_its_rules_and_the_next_one_cleans_up(lab: Lab) -> None:
    """SIGTERM without --cleanup-on-exit under load: no request fails while no agent runs, nor when one comes."""
    pods = [pod.netns for pod in lab.pods]
    untouched = [(kernel.rules(netns), kernel.routing(netns)) for netns in pods]
    assert [rules for rules, _ in untouched] == [kernel.NO_RULES] * 3
    lab.start_proxy()
    lab.start_agent(cleanup_on_exit=False)
    lab.wait_ready()
    lab.wait_proved()
    in_force = [(kernel.rules(netns), kernel.routing(netns)) for netns in pods]
    with RunningLoad(lab.pod("client"), VIP, connections=4, seconds=60) as load:
        load.until(50, lambda _: None, timeout_s=10)
        assert lab.stop_agent() == 0
        assert [(kernel.rules(netns), kernel.routing(netns)) for netns in pods] == in_force
        load.begin("no agent")
        load.until(50, lambda _: None, timeout_s=10)
        lab.pod("client").run(["curl", "-sf", VIP[0]])  # new connections are steered as well
        lab.start_agent()
        lab.wait_proved()
        load.begin("another agent")
        load.until(50, lambda _: None, timeout_s=10)
        result = load.stop()
    assert result["all"]["failed"] == 0, result["all"]
    assert [(kernel.rules(netns), kernel.routing(netns)) for netns in pods] == in_force
    assert lab.stop_agent() == 0
    assert [(kernel.rules(netns), kernel.routing(netns)) for netns in pods] == untouched
    assert lab.proxy_get("/pods") == [], "withdrawn from the proxy as well"


def test_cleanup_leaves_what_somebody_else_put_there_byte_for_byte(lab: Lab) -> None:
    client = lab.pod("client")
    client.run(["nft", "add table inet theirs; add chain inet theirs c { type filter hook output priority 5; }"])
    client.run(["nft", "add rule inet theirs c tcp dport 9999 counter"])
    client.run(["ip", "rule", "add", "fwmark", "0x222", "lookup", "222"])
    before = kernel.rules(client.netns), kernel.routing(client.netns)
    lab.start()
    assert kernel.rules(client.netns) != before[0]
    assert lab.stop_agent() == 0
    assert (kernel.rules(client.netns), kernel.routing(client.netns)) == before


def test_a_whole_life_with_kills_leaves_the_machine_as_it_was() -> None:
    before = machine.read()
    with Lab() as lab:
        name = lab.paths.name
        lab.start()
        lab.pod("client").run(["curl", "-sf", VIP[0]])
        assert _processes_of(name), "agent, proxy, its worker and the servers"
        lab.kill_agent()
        lab.start_agent()
        lab.wait_proved()
    assert machine.leftovers(before, machine.read(), name) == []
    assert _processes_of(name) == []


def _processes_of(lab: str) -> list[str]:
    """Living processes that were started for this lab, and theirs."""
    wanted = f"{state.MARKER}={lab}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    found.append(f"{directory.name} {(directory / 'comm').read_text().strip()}")
            except OSError:
                continue  # it has ended meanwhile
    return found
