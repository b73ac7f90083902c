"""What the agent counts. The only module of the agent that knows prometheus_client.

Series of pods are made when somebody scrapes, from what is remembered of each pod: a live metric object a series would
cost 1.5 KB, 4 MB for the 2,250 series of 250 pods, and a pod's series end with the pod by themselves. Names follow
DESIGN 8; the number of label values is the number of pods on a node.
"""

import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent.pods import PodRef, Proofs, ProofStatus

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_APPLY_BUCKETS_S: Final = (0.001, 0.0015, 0.002, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Around the goal (p99 2.5 ms into a fresh namespace) and the 16 ms that a replacing transaction waits."""

_ANNOUNCE_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Around the goal (p99 50 ms at 250 pods), up to what a proxy is given to answer."""
_HEAL_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 30.0)
"""Around the goal: healed within a second of being found."""

_Key = tuple[str, str]


@dataclass(slots=True)
class _Pod:
    """What is known of one pod. `forgotten`: by rule, packets in all and what the kernel's counter said last."""

    state: str = ""
    proofs: Proofs | None = None
    unsteered: dict[str, int] = field(default_factory=dict)
    forgotten: dict[str, tuple[int, int]] = field(default_factory=dict)
    drifts: int | None = None
    foreign_chains: int | None = None
    conntrack_full: bool | None = None


class AgentMetrics:
    """One registry of its own: tests and two agents in one process do not meet."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._pods: dict[_Key, _Pod] = {}
        ProcessCollector(registry=registry)
        self._apply = Histogram(
            "headgate_apply_seconds", "Time inside a pod's namespace to put rules and return path in force.",
            registry=registry, buckets=_APPLY_BUCKETS_S,
        )  # fmt: skip
        self._announce = Histogram(
            "headgate_announce_seconds", "From an announcement on the wire to the proxy's answer.",
            registry=registry, buckets=_ANNOUNCE_BUCKETS_S,
        )  # fmt: skip
        self._heal = Histogram(
            "headgate_heal_seconds", "From a drift's finding to the plan in force again.",
            registry=registry, buckets=_HEAL_BUCKETS_S,
        )  # fmt: skip
        self._connected = Gauge("headgate_zds_connected", "1 while a proxy is connected.", registry=registry)
        self._parked = Counter(
            "headgate_parked", "Pods whose listeners were closed because no proxy came within --park-timeout.",
            registry=registry,
        )  # fmt: skip
        self._writes = Counter(
            "headgate_api_writes", "What was written to the API server, and what became of it.",
            ("kind", "outcome"), registry=registry,
        )  # fmt: skip
        build = Gauge("headgate_build_info", "What runs.", ("component", "version", "python"), registry=registry)
        build.labels("agent", _version(), platform.python_version()).set(1)
        registry.register(_PodCollector(self._pods))

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def proxy_connected(self, connected: bool) -> None:
        self._connected.set(connected)

    def parked(self, pods: int) -> None:
        self._parked.inc(pods)

    def written(self, kind: str, outcome: str) -> None:
        """`kind`: status, event, lease or route; `outcome`: a value of agent.telling.outcomes.Outcome."""
        self._writes.labels(kind, outcome).inc()

    def applied(self, seconds: float) -> None:
        self._apply.observe(seconds)

    def announced(self, seconds: float) -> None:
        self._announce.observe(seconds)

    def healed(self, seconds: float) -> None:
        self._heal.observe(seconds)

    def drifted(self, pod: PodRef) -> None:
        self._of(pod).drifts = (self._of(pod).drifts or 0) + 1

    def foreign_chains(self, pod: PodRef, chains: int) -> None:
        self._of(pod).foreign_chains = chains

    def conntrack_full(self, pod: PodRef, full: bool) -> None:
        self._of(pod).conntrack_full = full

    def pod_state(self, pod: PodRef, state: str) -> None:
        self._of(pod).state = state

    def proofs(self, pod: PodRef, proofs: Proofs) -> None:
        self._of(pod).proofs = proofs

    def forgotten(self, pod: PodRef, rule_id: str, packets: int) -> None:
        """`packets`: what the kernel's counter says; it begins anew when the rules were replaced."""
        counted = self._of(pod).forgotten
        total, before = counted.get(rule_id, (0, 0))
        counted[rule_id] = (total + (packets - before if packets >= before else packets), packets)

    def unsteered(self, pod: PodRef, reason: str, connections: int) -> None:
        self._of(pod).unsteered[reason] = connections

    def not_enrolled(self, pod: PodRef) -> None:
        """The series end that only a pod under redirection has."""
        key = (pod.namespace, pod.name)
        if key in self._pods:
            self._pods[key] = _Pod(self._pods[key].state)

    def pod_gone(self, pod: PodRef) -> None:
        self._pods.pop((pod.namespace, pod.name), None)

    def _of(self, pod: PodRef) -> _Pod:
        return self._pods.setdefault((pod.namespace, pod.name), _Pod())


class _PodCollector(Collector):
    def __init__(self, pods: dict[_Key, _Pod]) -> None:
        self._pods = pods

    def collect(self) -> Iterator[Metric]:
        # Copied: a scrape must not meet a pod that comes or goes between two lines.
        pods = sorted(self._pods.items())
        yield _states(pods)
        yield _proofs(pods)
        yield _unsteered(pods)
        yield _forgotten(pods)
        yield _drift(pods)
        yield _foreign(pods)
        yield _conntrack(pods)


_Pods = list[tuple[_Key, _Pod]]


def _states(pods: _Pods) -> Metric:
    family = GaugeMetricFamily(
        "headgate_pod_state", "1 for the state that the pod is in.", labels=("namespace", "pod", "state")
    )
    for key, pod in pods:
        if pod.state:
            family.add_metric((*key, pod.state), 1)
    return family


def _proofs(pods: _Pods) -> Metric:
    family = GaugeMetricFamily(
        "headgate_proof",
        "1: proved when last tried, 0: failed; absent when it cannot be taken, or there is nothing to prove.",
        labels=("namespace", "pod", "proof"),
    )
    for key, pod in pods:
        for name, proof in pod.proofs.items() if pod.proofs else ():
            if proof.status in (ProofStatus.OK, ProofStatus.FAILED):
                family.add_metric((*key, name), int(proof.status is ProofStatus.OK))
    return family


def _unsteered(pods: _Pods) -> Metric:
    family = GaugeMetricFamily(
        "headgate_unsteered_connections",
        "Living TCP connections that go past the proxy, and why.",
        labels=("namespace", "pod", "reason"),
    )
    for key, pod in pods:
        for reason, connections in pod.unsteered.items():
            family.add_metric((*key, reason), connections)
    return family


def _forgotten(pods: _Pods) -> Metric:
    family = CounterMetricFamily(
        "headgate_forgotten_packets",
        "TCP packets unknown to conntrack that were dropped.",
        labels=("namespace", "pod", "rule"),
    )
    for key, pod in pods:
        for rule_id, (total, _) in pod.forgotten.items():
            family.add_metric((*key, rule_id), total)
    return family


def _drift(pods: _Pods) -> Metric:
    """From the first rules on, so that a rate has something to begin from."""
    family = CounterMetricFamily(
        "headgate_drift", "How often the kernel was found to hold something else than planned.",
        labels=("namespace", "pod"),
    )  # fmt: skip
    for key, pod in pods:
        if pod.drifts is not None or pod.unsteered:
            family.add_metric(key, pod.drifts or 0)
    return family


def _foreign(pods: _Pods) -> Metric:
    family = GaugeMetricFamily(
        "headgate_foreign_chains", "Others' chains on nat hooks at or before ours, and those that write our marks.",
        labels=("namespace", "pod"),
    )  # fmt: skip
    for key, pod in pods:
        if pod.foreign_chains is not None:
            family.add_metric(key, pod.foreign_chains)
    return family


def _conntrack(pods: _Pods) -> Metric:
    family = GaugeMetricFamily(
        "headgate_conntrack_full", "1 while the namespace's conntrack table is full and new connections are dropped.",
        labels=("namespace", "pod"),
    )  # fmt: skip
    for key, pod in pods:
        if pod.conntrack_full is not None:
            family.add_metric(key, int(pod.conntrack_full))
    return family


def _version() -> str:
    try:
        return version("headgate")
    except PackageNotFoundError:
        return "unknown"
