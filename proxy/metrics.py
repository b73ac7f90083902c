"""The proxy's Prometheus page: sums the workers' deltas, renders Istio's standard metrics and our own.

Two threads meet here, by design without a lock: `add` (the event loop) only appends to a queue; `fold` and `render`
(one metrics thread, never two at once) own the sums. A worker that dies takes at most its last unreported delta with
it: sums never fall. A series ends one minute after the last pod of the workload that reported it has left this node
(as Hubble ends series of deleted pods, cilium Documentation/observability/metrics.rst): the labels name workloads, so
while another pod of the workload is served the series go on.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from proxy.errors import printable
from proxy.exposition import counter, gauge, histogram, label_text
from proxy.model.snapshot import Rejection
from proxy.model.workload import UNKNOWN
from proxy.telemetry.series import (
    FINE_BUCKETS_MS,
    ISTIO_BUCKETS,
    MAX_SERIES,
    OVERFLOW,
    CounterKey,
    RequestDelta,
    RequestLabels,
    TcpDelta,
    TelemetryDelta,
)

SERIES_END_S: Final = 60.0
"""How long series outlive the last pod that reported them; see the module's docstring."""

RESTART_REASONS: Final = ("died", "stopped", "unresponsive")

Owner = tuple[str, str]
"""Namespace and name of the workload that reported a series."""


class FineLabels(NamedTuple):
    """Labels of headgate_request_duration_seconds: few, as its buckets are many."""

    reporter: str
    source_workload: str
    source_workload_namespace: str
    destination_service: str
    destination_service_namespace: str
    response_class: str


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """What the supervisor itself knows at the instant of a scrape. `generation` 0: no policy yet; `worker_restarts` by
    reason."""

    active_pods: int = 0
    pending_pods: int = 0
    pods_started: int = 0
    pods_stopped: int = 0
    workers: int = 0
    worker_restarts: tuple[tuple[str, int], ...] = ()
    agent_connected: bool = False
    generation: int = 0
    rejections: tuple[Rejection, ...] = ()


@dataclass(slots=True)
class _Histogram:
    """Counts per bucket (the last one unbounded), not cumulative."""

    counts: list[int]
    total: float = 0.0

    def add(self, counts: list[int], total: float) -> None:
        self.counts = list(map(add, self.counts, counts))
        self.total += total


def _fine() -> _Histogram:
    return _Histogram([0] * (len(FINE_BUCKETS_MS) + 1))


def _coarse() -> _Histogram:
    return _Histogram([0] * (len(ISTIO_BUCKETS) + 1))


@dataclass(slots=True)
class _Requests:
    durations: _Histogram = field(default_factory=_fine)
    request_sizes: _Histogram = field(default_factory=_coarse)
    response_sizes: _Histogram = field(default_factory=_coarse)

    def add(self, delta: RequestDelta) -> None:
        self.durations.add(delta.durations, delta.duration_ms)
        self.request_sizes.add(delta.request_sizes, delta.request_bytes)
        self.response_sizes.add(delta.response_sizes, delta.response_bytes)


@dataclass(slots=True)
class _Connections:
    opened: int = 0
    closed: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def add(self, delta: TcpDelta) -> None:
        self.opened += delta.opened
        self.closed += delta.closed
        self.sent_bytes += delta.sent_bytes
        self.received_bytes += delta.received_bytes


@dataclass(slots=True)
class _FineSeries:
    """`owners`: several workloads may report under one of these label sets; it ends with the last of them."""

    durations: _Histogram = field(default_factory=_fine)
    owners: set[Owner] = field(default_factory=set)


@dataclass(slots=True)
class Totals:
    """Sums since the start of the supervisor; each table is capped, what exceeds the cap is summed as `overflow`."""

    requests: dict[RequestLabels, _Requests] = field(default_factory=dict)
    fine: dict[FineLabels, _FineSeries] = field(default_factory=dict)
    connections: dict[RequestLabels, _Connections] = field(default_factory=dict)
    counters: dict[CounterKey, int] = field(default_factory=dict)
    max_series: int = MAX_SERIES
    _missing_since_s: dict[Owner, float] = field(default_factory=dict)

    def add(self, delta: TelemetryDelta) -> None:
        for request in delta.requests:
            labels = self._admit(self.requests, request.labels)
            self.requests.setdefault(labels, _Requests()).add(request)
            self._add_fine(request)
        for connection in delta.connections:
            labels = self._admit(self.connections, connection.labels)
            self.connections.setdefault(labels, _Connections()).add(connection)
        for counted, amount in delta.counters:
            known = counted in self.counters or len(self.counters) < self.max_series
            key = counted if known else counted._replace(label_values=(OVERFLOW,) * len(counted.label_names))
            self.counters[key] = self.counters.get(key, 0) + amount

    def _add_fine(self, request: RequestDelta) -> None:
        labels = _fine_labels(request.labels)
        if labels not in self.fine and len(self.fine) >= self.max_series:
            labels = FineLabels(labels.reporter, *([OVERFLOW] * (len(FineLabels._fields) - 1)))
        series = self.fine.setdefault(labels, _FineSeries())
        series.durations.add(request.durations, request.duration_ms)
        series.owners.add(owner_of(request.labels) if labels.response_class != OVERFLOW else (OVERFLOW, OVERFLOW))

    def _admit(
        self, table: dict[RequestLabels, _Requests] | dict[RequestLabels, _Connections], labels: RequestLabels
    ) -> RequestLabels:
        if labels in table or len(table) < self.max_series:
            return labels
        return RequestLabels(labels.reporter, *([OVERFLOW] * (len(RequestLabels._fields) - 1)))

    def end_series(self, live: frozenset[Owner], now_s: float) -> None:
        """Drop the series of workloads that have had no pod in `live` for SERIES_END_S."""
        known = {owner_of(labels) for labels in self.requests} | {owner_of(labels) for labels in self.connections}
        missing = known - live - {(OVERFLOW, OVERFLOW)}
        since = self._missing_since_s
        self._missing_since_s = {owner: since.get(owner, now_s) for owner in missing}
        gone = {owner for owner, first_s in self._missing_since_s.items() if now_s - first_s >= SERIES_END_S}
        if not gone:
            return
        self.requests = {labels: one for labels, one in self.requests.items() if owner_of(labels) not in gone}
        self.connections = {labels: one for labels, one in self.connections.items() if owner_of(labels) not in gone}
        for fine in self.fine.values():
            fine.owners -= gone
        self.fine = {labels: fine for labels, fine in self.fine.items() if fine.owners}


def owner_of(labels: RequestLabels) -> Owner:
    """The workload on whose behalf the series was reported."""
    if labels.reporter == "source":
        return labels.source_workload_namespace, labels.source_workload
    return labels.destination_workload_namespace, labels.destination_workload


def _fine_labels(labels: RequestLabels) -> FineLabels:
    code = labels.response_code
    if code == OVERFLOW:
        response_class = OVERFLOW
    else:
        # Envoy's code 0: the client left before any answer.
        response_class = f"{code[0]}xx" if len(code) == 3 else UNKNOWN
    return FineLabels(
        labels.reporter,
        labels.source_workload,
        labels.source_workload_namespace,
        labels.destination_service,
        labels.destination_service_namespace,
        response_class,
    )


class MetricsPage:
    """`add` from the event loop; `fold` and `render` from one other thread. `version` labels istio_build."""

    def __init__(self, version: str, *, with_process: bool = True, max_series: int = MAX_SERIES) -> None:
        self._waiting: deque[TelemetryDelta] = deque()
        self._totals = Totals(max_series=max_series)
        self._version = version
        self._process = CollectorRegistry()
        if with_process:
            # The supervisor's own: descriptors, memory, CPU, start time.
            ProcessCollector(registry=self._process)

    def add(self, delta: TelemetryDelta) -> None:
        self._waiting.append(delta)

    def fold(self, live: frozenset[Owner], now_s: float) -> None:
        """Sum what waits, then end the series of workloads that are gone; `now_s` is monotonic."""
        self._sum_waiting()
        self._totals.end_series(live, now_s)

    def render(self, status: ProxyStatus) -> bytes:
        """The page, in exposition.CONTENT_TYPE."""
        self._sum_waiting()
        lines = [
            *_request_lines(self._totals.requests),
            *_fine_lines(self._totals.fine),
            *_connection_lines(self._totals.connections),
            *_counter_lines(self._totals.counters),
            *_status_lines(status, self._version),
        ]
        return "".join(lines).encode("utf-8", "backslashreplace") + generate_latest(self._process)

    def _sum_waiting(self) -> None:
        while self._waiting:
            self._totals.add(self._waiting.popleft())


def _request_lines(totals: dict[RequestLabels, _Requests]) -> Iterator[str]:
    named = [(label_text(RequestLabels._fields, labels), one) for labels, one in totals.items()]
    durations = [(text, _cumulative_istio(one.durations.counts), one.durations.total) for text, one in named]
    yield from counter("istio_requests", "Requests finished.", ((text, counts[-1]) for text, counts, _ in durations))
    yield from histogram("istio_request_duration_milliseconds", "Duration of requests.", _ISTIO_LE, durations)
    yield from histogram(
        "istio_request_bytes",
        "Size of requests, head and body.",
        _ISTIO_LE,
        ((text, _cumulative(one.request_sizes), one.request_sizes.total) for text, one in named),
    )
    yield from histogram(
        "istio_response_bytes",
        "Size of responses, head and body.",
        _ISTIO_LE,
        ((text, _cumulative(one.response_sizes), one.response_sizes.total) for text, one in named),
    )


def _fine_lines(totals: dict[FineLabels, _FineSeries]) -> list[str]:
    return histogram(
        "headgate_request_duration_seconds",
        "Duration of requests, in buckets fine enough for the proxy's own cost.",
        _FINE_LE,
        (
            (label_text(FineLabels._fields, labels), _cumulative(one.durations), one.durations.total / 1000)
            for labels, one in totals.items()
        ),
    )


_TCP_INDICES: Final = tuple(
    index
    for index, name in enumerate(RequestLabels._fields)
    if name not in {"response_code", "grpc_response_status"}  # a connection has neither (ztunnel's labels)
)
_TCP_LABELS: Final = tuple(RequestLabels._fields[index] for index in _TCP_INDICES)


def _connection_lines(totals: dict[RequestLabels, _Connections]) -> Iterator[str]:
    named = [
        (label_text(_TCP_LABELS, [labels[index] for index in _TCP_INDICES]), one) for labels, one in totals.items()
    ]
    yield from counter("istio_tcp_connections_opened", "Connections opened.", ((t, one.opened) for t, one in named))
    yield from counter("istio_tcp_connections_closed", "Connections closed.", ((t, one.closed) for t, one in named))
    yield from counter(
        "istio_tcp_sent_bytes", "Bytes of responses over TCP.", ((t, one.sent_bytes) for t, one in named)
    )
    yield from counter(
        "istio_tcp_received_bytes", "Bytes of requests over TCP.", ((t, one.received_bytes) for t, one in named)
    )


def _counter_lines(counters: dict[CounterKey, int]) -> Iterator[str]:
    families: dict[str, list[tuple[str, float]]] = {}
    for key, value in sorted(counters.items()):
        labels = label_text(key.label_names, key.label_values)
        families.setdefault(key.name.removesuffix("_total"), []).append((labels, value))
    for name, samples in families.items():
        yield from counter(name, f"Count of {name.removeprefix('headgate_').replace('_', ' ')}.", samples)


def _status_lines(status: ProxyStatus, version: str) -> Iterator[str]:
    for name, text, value in (
        ("workload_manager_active_proxy_count", "Pods that are served.", status.active_pods),
        ("workload_manager_pending_proxy_count", "Pods that could not be served so far.", status.pending_pods),
        ("headgate_agent_connected", "Whether the node agent's ZDS connection is up.", int(status.agent_connected)),
        ("headgate_workers", "Worker processes that run.", status.workers),
        ("headgate_policy_generation", "Generation of the policy last compiled; 0 before any.", status.generation),
    ):
        yield from gauge(name, text, [("", value)])
    for name, text, value in (
        ("workload_manager_proxies_started", "Pods taken into service.", status.pods_started),
        ("workload_manager_proxies_stopped", "Pods taken out of service.", status.pods_stopped),
    ):
        yield from counter(name, text, [("", value)])
    restarts = dict.fromkeys(RESTART_REASONS, 0) | dict(status.worker_restarts)
    yield from counter(
        "headgate_worker_restarts",
        "Workers that were replaced: died by themselves, found stopped, or unresponsive.",
        ((label_text(("reason",), (reason,)), number) for reason, number in sorted(restarts.items())),
    )
    # An object may be rejected for several reasons at one field: one series all the same.
    rejected = sorted({(printable(one.object), printable(one.field)) for one in status.rejections})[:MAX_SERIES]
    stale = sorted({(printable(one.object),) for one in status.rejections if one.stale})[:MAX_SERIES]
    yield from gauge(
        "headgate_policy_rejections",
        "Objects that are not in force, or only in their last good version.",
        ((label_text(("object", "field"), values), 1) for values in rejected),
    )
    yield from gauge(
        "headgate_policy_stale",
        "Objects in force in their last good version.",
        ((label_text(("object",), values), 1) for values in stale),
    )
    build = label_text(("component", "tag"), ("proxy", f"headgate-{version}"))
    yield from gauge("istio_build", "Component and version.", [(build, 1)])


def _whole(bound: float) -> str:
    """As Envoy and Istio's dashboards write a bound: 0.5, 1, 1800000."""
    return f"{bound:.10g}"


_ISTIO_LE: Final = (*(_whole(bound) for bound in ISTIO_BUCKETS), "+Inf")
_FINE_LE: Final = (*(_whole(bound / 1000) for bound in FINE_BUCKETS_MS), "+Inf")
_ISTIO_INDICES: Final = tuple(FINE_BUCKETS_MS.index(bound) for bound in ISTIO_BUCKETS)
"""Where each of Istio's bounds stands among the fine ones."""


def _cumulative_istio(fine_counts: list[int]) -> list[int]:
    cumulative = list(accumulate(fine_counts))
    return [*(cumulative[index] for index in _ISTIO_INDICES), cumulative[-1]]


def _cumulative(counts: _Histogram) -> list[int]:
    return list(accumulate(counts.counts))
