"""A full node of a cluster: how long a pod's start waits for the CNI plugin while as many come as go, and a running pod
for its enrolment."""

import time
from collections.abc import Callable
from typing import Final

from agent.lab.errors import LabError
from agent.lab.figures import percentile
from agent.sources.kubernetes_pods import LOOKED_EVERY_S
from tests.bench import churn, meter
from tests.bench.churn import Churn, Pace
from tests.bench.cluster_node import ENROLLED, ClusterNode, Member, cluster_node
from tests.bench.results import Fact

PODS: Final = 250
A_SECOND: Final = 20.0
"""Starts (issue 5); and as many ends."""
LABELLED: Final = 50
"""While they run, one after the other."""
_SECONDS: Final = 20.0
_TIMES: Final = 5
"""A deployment is scaled up on a full node: so many times a second's worth, with rests."""
_FIRST: Final = 1_000_000
"""Numbers of pods that are no part of the churn."""
_WITHIN_S: Final = 10.0

Say = Callable[[str], None]


def measure(say: Say) -> tuple[Fact, ...]:
    """Raises LabError."""
    with cluster_node() as node:
        node.start()
        with churn.churning(node, Pace(PODS, A_SECOND, accidents_every_s=0.0, samples_every_s=_SECONDS)) as pods:
            say(f"{PODS} pods by CNI, as fast as they come")
            pods.fill()
            say(f"{A_SECOND:g} start within a second, {_TIMES} times")
            scaled_ms = _scaled_up(pods)
            say(f"{A_SECOND:g} a second come and go, for {_SECONDS:g} s")
            started_ms, late_s = _started(pods)
            pods.at_rest()
            say(f"{LABELLED} running pods get their label")
            found_ms = _labelled(node)
        agent_mb = meter.memory_mb(node.lab.pid("agent"))
    scaled = f"{PODS} pods, {A_SECOND:g} more within a second"
    at = f"{PODS} pods, {A_SECOND:g} a second coming and as many going, for {_SECONDS:g} s"
    return (
        Fact("cni_scaled_p50_ms", f"CNI ADD to return, {scaled}, p50", percentile(scaled_ms, 0.5), "ms", 30),
        Fact("cni_scaled_p99_ms", f"CNI ADD to return, {scaled}, p99", percentile(scaled_ms, 0.99), "ms", 150),
        Fact("cni_add_p50_ms", f"CNI ADD to return, {at}, p50", percentile(started_ms, 0.5), "ms", 30),
        Fact("cni_add_p99_ms", f"CNI ADD to return, {at}, p99", percentile(started_ms, 0.99), "ms", 150),
        Fact("cni_late_s", "how far pods came behind that pace at most", late_s, "s"),
        Fact("api_enrolled_p50_ms", "a running pod's label to its rules, p50", percentile(found_ms, 0.5), "ms"),
        Fact("api_enrolled_p99_ms", "a running pod's label to its rules, p99", percentile(found_ms, 0.99), "ms", 300),
        Fact("kubernetes_agent_mb", "agent, resident, afterwards", agent_mb, "MB", 120),
    )


def _scaled_up(pods: Churn) -> list[float]:
    """Milliseconds of each ADD, in order of size."""
    pods.tally.adds_ms.clear()
    for _ in range(_TIMES):
        pods.start_some(int(A_SECOND))
    return sorted(pods.tally.adds_ms)


def _started(pods: Churn) -> tuple[list[float], float]:
    """Milliseconds of each ADD, in order of size; and how late the last one was."""
    pods.tally.adds_ms.clear()
    began_s = time.monotonic()
    pods.run(_SECONDS, ())
    return sorted(pods.tally.adds_ms), max(0.0, time.monotonic() - began_s - _SECONDS)


def _labelled(node: ClusterNode) -> list[float]:
    """Not ours at first, and for longer than it takes until the node is looked over again."""
    pods = [node.make(_FIRST + number) for number in range(LABELLED)]
    for pod in pods:
        node.begin(pod)
        node.tell(pod, labelled=False)
    time.sleep(LOOKED_EVERY_S + 1)
    return sorted(_found_ms(node, pod) for pod in pods)


def _found_ms(node: ClusterNode, pod: Member) -> float:
    """From the API server's event to rules in force."""
    began_s = time.perf_counter()
    node.tell(pod)
    while (took_s := time.perf_counter() - began_s) < _WITHIN_S:
        if node.states().get(pod.name) in ENROLLED:
            return took_s * 1e3
        time.sleep(0.002)
    raise LabError(f"{pod.name} is not enrolled within {_WITHIN_S:g} s")
