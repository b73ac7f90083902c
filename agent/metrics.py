"""What the agent counts. The only module of the agent that knows prometheus_client.

A pod's series end with the pod. Names follow DESIGN 8; label cardinality is the number of pods on a node.
"""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent.pods import PodRef, Proofs, ProofStatus

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_APPLY_BUCKETS_S: Final = (0.001, 0.0015, 0.002, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Around the goal (p99 2.5 ms into a fresh namespace) and the 16 ms that a replacing transaction waits."""
_POD: Final = ("namespace", "pod")


class AgentMetrics:
    """One registry of its own: tests and two agents in one process do not meet."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._state = Gauge(
            "headgate_pod_state", "1 for the state that the pod is in.", (*_POD, "state"), registry=registry
        )
        self._proof = Gauge(
            "headgate_proof", "1: proved when last tried, 0: failed; absent when it cannot be taken.",
            (*_POD, "proof"), registry=registry,
        )  # fmt: skip
        self._apply = Histogram(
            "headgate_apply_seconds", "Time inside a pod's namespace to put rules and return path in force.",
            registry=registry, buckets=_APPLY_BUCKETS_S,
        )  # fmt: skip
        self._forgotten = Counter(
            "headgate_forgotten_packets", "TCP packets unknown to conntrack that were dropped.",
            (*_POD, "rule"), registry=registry,
        )  # fmt: skip
        self._unsteered = Gauge(
            "headgate_unsteered_connections", "Living TCP connections that go past the proxy, and why.",
            (*_POD, "reason"), registry=registry,
        )  # fmt: skip
        self._connected = Gauge("headgate_zds_connected", "1 while a proxy is connected.", registry=registry)
        build = Gauge("headgate_build_info", "What runs.", ("component", "version", "python"), registry=registry)
        build.labels("agent", _version(), platform.python_version()).set(1)
        self._seen: dict[tuple[str, str, str], int] = {}

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def proxy_connected(self, connected: bool) -> None:
        self._connected.set(connected)

    def applied(self, seconds: float) -> None:
        self._apply.observe(seconds)

    def pod_state(self, pod: PodRef, old: str | None, new: str) -> None:
        if old is not None and old != new:
            _drop(self._state, pod, old)
        self._state.labels(pod.namespace, pod.name, new).set(1)

    def proofs(self, pod: PodRef, proofs: Proofs) -> None:
        for name, proof in proofs.items():
            if proof.status is ProofStatus.ABSENT:
                _drop(self._proof, pod, name)
            else:
                self._proof.labels(pod.namespace, pod.name, name).set(proof.status is ProofStatus.OK)

    def forgotten(self, pod: PodRef, rule_id: str, packets: int) -> None:
        """`packets`: what the kernel's counter says; it begins anew when the rules were replaced."""
        key = (pod.namespace, pod.name, rule_id)
        before = self._seen.get(key, 0)
        self._seen[key] = packets
        self._forgotten.labels(*key).inc(packets - before if packets >= before else packets)

    def unsteered(self, pod: PodRef, reason: str, connections: int) -> None:
        self._unsteered.labels(pod.namespace, pod.name, reason).set(connections)

    def pod_gone(self, pod: PodRef, states: Iterable[str]) -> None:
        for state in states:
            _drop(self._state, pod, state)
        self.not_enrolled(pod)

    def not_enrolled(self, pod: PodRef) -> None:
        """The series that only a pod under redirection has."""
        for name in ("out4", "out6", "in4", "in6"):
            _drop(self._proof, pod, name)
        _drop(self._unsteered, pod, "grandfathered")
        for key in [key for key in self._seen if key[:2] == (pod.namespace, pod.name)]:
            del self._seen[key]
            _drop(self._forgotten, pod, key[2])


def _drop(metric: Gauge | Counter, pod: PodRef, last: str) -> None:
    metric.remove(pod.namespace, pod.name, last)


def _version() -> str:
    try:
        return version("headgate")
    except PackageNotFoundError:
        return "unknown"
