"""A full node of a large cluster: 250 pods here, and what the API server tells of 10,000 elsewhere. How soon agent and
proxy are up, what they hold, and what they do when nothing happens."""

import time
from collections.abc import Callable
from typing import Final

from tests.bench import meter, pod_wires
from tests.bench.cluster_node import PROVED, ClusterNode, cluster_node
from tests.bench.cluster_objects import fill
from tests.bench.results import Fact

PODS: Final = 250
_SETTLE_S: Final = 30.0
"""First proofs are taken, each pod's status is written (twenty a second: agent.telling), memory is given back, the
proxy has compiled its policy."""
_WITHIN_S: Final = 120.0

Say = Callable[[str], None]


def measure(seconds: int, say: Say) -> tuple[Fact, ...]:
    """Raises LabError."""
    say(f"{PODS} running pods, and nothing else in the cluster")
    with cluster_node() as node:
        alone_s = _started(node, _run(node))
    say("an API server with 10,000 pods, 10,000 Services, 50,000 endpoints")
    with cluster_node(fill) as node:
        say(f"{PODS} running pods")
        names = _run(node)
        say("agent and proxy, from cold")
        cold_s = _started(node, names)
        time.sleep(_SETTLE_S)
        memory = _memory(node)
        say(f"idle for {seconds} s")
        idle = _idle(node, seconds)
        say("another agent")
        node.lab.stop_agent()
        again_s = _again(node, names)
    return (
        Fact("alone_cold_s", f"agent and proxy started with {PODS} running pods, to all proved", alone_s, "s", 3),
        Fact("cluster_cold_s", "the same in that cluster, all its lists at once", cold_s, "s"),
        Fact("cluster_again_s", "there the agent alone started anew, to all proved", again_s, "s", 3),
        *memory,
        *idle,
    )


def _run(node: ClusterNode) -> set[str]:
    pods = [node.make(number) for number in range(PODS)]
    addresses = ((pod.netns, (pod_wires.address4(pod.number), pod_wires.address6(pod.number))) for pod in pods)
    pod_wires.introduce(node.lab.node, pod_wires.GATEWAYS, addresses)
    for pod in pods:
        node.begin(pod)
        node.tell(pod)
    return {pod.name for pod in pods}


def _started(node: ClusterNode, names: set[str]) -> float:
    began_s = time.monotonic()
    node.start_agent()
    node.lab.start_proxy(own_objects=False)
    node.wait_all(names, PROVED, _WITHIN_S)
    return time.monotonic() - began_s


def _again(node: ClusterNode, names: set[str]) -> float:
    began_s = time.monotonic()
    node.start_agent()
    node.wait_all(names, PROVED, _WITHIN_S)
    return time.monotonic() - began_s


def _memory(node: ClusterNode) -> tuple[Fact, ...]:
    agent, (supervisor, *workers) = node.lab.pid("agent"), meter.family(node.lab.pid("proxy"))
    return (
        Fact("cluster_agent_mb", f"agent, resident, {PODS} pods and that cluster", meter.memory_mb(agent), "MB", 120),
        Fact("cluster_agent_peak_mb", "its peak", meter.memory_mb(agent, "VmHWM"), "MB"),
        Fact("cluster_supervisor_mb", "the proxy's supervisor", meter.memory_mb(supervisor), "MB"),
        Fact("cluster_worker_mb", "its largest worker", max(meter.memory_mb(worker) for worker in workers), "MB"),
        Fact("cluster_agent_fds", "agent, descriptors", meter.descriptors(agent), ""),
        Fact("cluster_supervisor_fds", "supervisor, descriptors", meter.descriptors(supervisor), ""),
        Fact("cluster_worker_fds", "its largest worker", max(meter.descriptors(worker) for worker in workers), ""),
    )


def _idle(node: ClusterNode, seconds: int) -> tuple[Fact, ...]:
    agent, (supervisor, *workers) = node.lab.pid("agent"), meter.family(node.lab.pid("proxy"))
    before = meter.cpu_us(agent), meter.cpu_us(supervisor), meter.cpu_us(*workers)
    began_s = time.monotonic()
    time.sleep(seconds)
    took_us = (time.monotonic() - began_s) * 1e6
    after = meter.cpu_us(agent), meter.cpu_us(supervisor), meter.cpu_us(*workers)
    shares = [100 * (now - then) / took_us for now, then in zip(after, before, strict=True)]
    return (
        Fact("cluster_idle_agent", f"agent with {PODS} idle pods, over {seconds} s", shares[0], "% of a core", 3),
        Fact("cluster_idle_supervisor", "the proxy's supervisor meanwhile", shares[1], "% of a core"),
        Fact("cluster_idle_workers", "its workers, together", shares[2], "% of a core"),
    )
