"""Agent and proxy with fewer descriptors than they would need: they say so, refuse what they have none for, live on
and take it up again by themselves (issue 5: RLIMIT_NOFILE budgeted; istio #56888, ztunnel #1585)."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.lab import namespaces
from agent.lab.node import Lab, headgate
from agent.lab.spec import NODE_ADDRESS4, LabSpec, PodSpec
from proxy.api.constants import AGENT_METRICS_PORT
from proxy.api.descriptor_needs import AGENT, SUPERVISOR
from tests.netns.life import kernel

_PODS = ("one", "two", "three")
_MESH = "headgate.io/mesh"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(LabSpec(tuple(PodSpec(name) for name in _PODS))) as made:
        yield made


@contextmanager
def _limited(pid: int, more: int) -> Iterator[None]:
    """The process may open so many files beside those that it has."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The limit bounds numbers, not how many there are.
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + more, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _states(lab: Lab) -> list[str]:
    return sorted(pod["state"] for pod in lab.agent_pods())


def _start_agent_with(lab: Lab, limit: int) -> None:
    files = ("--run-dir", str(lab.run_directory), "--pods-file", str(lab.pods_file), "--cleanup-on-exit")
    lab._start("agent", lab.node, ["prlimit", f"--nofile={limit}:{limit}", *headgate(), "agent", *files])


def test_pods_beyond_the_budget_are_refused_with_the_remedy_and_enrolled_when_there_is_room(lab: Lab) -> None:
    lab.start_proxy()
    _start_agent_with(lab, AGENT.of(2))
    lab.wait("two pods to be proved", lambda: _states(lab) == ["failed", "proved", "proved"])
    refused = next(pod for pod in lab.agent_pods() if pod["state"] == "failed")
    assert "the agent may open 264 files, which is enough for 2 pods: raise LimitNOFILE" in refused["reason"]
    assert kernel.rules(lab.pod(refused["name"]).netns) == kernel.NO_RULES, "as it was"
    problems = lab.agent_get("/pods")["problems"]
    assert [text for text in problems if "1 more are refused: raise LimitNOFILE" in text] == problems
    proved = next(pod["name"] for pod in lab.agent_pods() if pod["state"] == "proved")
    namespaces.delete(lab.pod(proved).netns)
    lab.wait("the third one to be proved", lambda: _states(lab) == ["proved", "proved"])
    assert lab.agent_get("/pods")["problems"] == []


def test_pods_beyond_the_proxys_budget_wait_with_the_remedy_and_work_unsteered(lab: Lab) -> None:
    files = ("--run-dir", str(lab.run_directory), "--config-dir", str(lab.config_directory), "--drain-s", "1")
    limit = SUPERVISOR.of(2)
    lab._start("proxy", lab.node, ["prlimit", f"--nofile={limit}:{limit}", *headgate(), "proxy", *files])
    lab.start_agent()
    lab.wait("two pods to be proved", lambda: _states(lab) == ["pending", "proved", "proved"])
    waiting = next(pod for pod in lab.agent_pods() if pod["state"] == "pending")
    assert "the proxy's descriptors are enough for 2 pods: raise LimitNOFILE" in waiting["reason"]
    assert kernel.rules(lab.pod(waiting["name"]).netns) == kernel.NO_RULES
    proved = next(pod["name"] for pod in lab.agent_pods() if pod["state"] == "proved")
    namespaces.delete(lab.pod(proved).netns)
    lab.wait("the third one to be proved", lambda: _states(lab) == ["proved", "proved"])


def test_the_agent_without_descriptors_lives_on_tells_and_takes_up_what_waited(lab: Lab) -> None:
    lab.set_label("three", _MESH, "disabled")
    lab.start()
    agent = lab.pid("agent")
    with _limited(agent, 0):
        lab.set_label("three", _MESH, "enabled")
        lab.wait("the file to be looked for", lambda: "Too many open files" in lab.log("agent"))
    lab.wait_proved(*_PODS)
    assert lab.pid("agent") == agent


def test_the_proxys_supervisor_without_descriptors_lives_on_and_serves_the_pod_afterwards(lab: Lab) -> None:
    lab.set_label("three", _MESH, "disabled")
    lab.start()
    supervisor = lab.pid("proxy")
    with _limited(supervisor, 0):
        lab.set_label("three", _MESH, "enabled")
        lab.wait("the pod to wait", lambda: kernel.pod_state(lab, "three")["state"] == "pending")
        assert kernel.rules(lab.pod("three").netns) == kernel.NO_RULES
        assert lab.workers()
    lab.wait_proved(*_PODS)
    assert lab.pid("proxy") == supervisor


def test_a_worker_whose_descriptors_connections_have_used_up_takes_the_next_pod_and_cuts_nobody(lab: Lab) -> None:
    """Descriptors that do not fit arrive cut off: the worker would end, and all connections of all pods with it."""
    lab.set_label("three", _MESH, "disabled")
    lab.start_proxy("--workers", "1")
    lab.start_agent()
    lab.wait_ready()
    lab.wait_proved("one", "two")
    (worker,) = lab.workers()
    with _limited(worker, 0):
        lab.set_label("three", _MESH, "enabled")
        lab.wait("rules of the pod", lambda: "not proved" in kernel.pod_state(lab, "three")["reason"])
        assert lab.workers() == (worker,)
    lab.wait_proved(*_PODS)
    assert lab.workers() == (worker,)


def test_rules_are_healed_while_a_thousand_connections_are_open_to_the_metrics_port(lab: Lab) -> None:
    """Anybody may open them; libnftables' socket then would have a number that ends the process."""
    lab.start()
    agent = lab.pid("agent")
    with ExitStack() as stack:
        for _ in range(1_050):
            stack.enter_context(lab.node.call(socket.create_connection, (str(NODE_ADDRESS4), AGENT_METRICS_PORT)))
        lab.wait("all to be accepted", lambda: len(os.listdir(f"/proc/{agent}/fd")) > 1_050)  # noqa: PTH208
        lab.pod("one").run(["nft", "delete", "table", "inet", "headgate"])
        lab.wait("the table to be there again", lambda: "table inet headgate {" in kernel.rules(lab.pod("one").netns))
    assert lab.pid("agent") == agent
    lab.wait_proved(*_PODS)
