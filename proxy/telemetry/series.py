"""Counters and histograms of a worker, made to be cheap per request and sent away as deltas.

One recording serves two views: the fine histogram's bounds contain all of Istio's, so that both
`istio_request_duration_milliseconds` and `headgate_request_duration_seconds` are sums over the same buckets.
"""

from bisect import bisect_left
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

ISTIO_BUCKETS: Final = (
    *(0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0),
    *(30000.0, 60000.0, 300000.0, 600000.0, 1800000.0, 3600000.0),
)
"""Milliseconds and bytes alike (Envoy's default histogram buckets, source/common/stats/histogram_impl.cc)."""

FINE_BUCKETS_MS: Final = (
    *(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 25.0, 35.0, 50.0),
    *(75.0, 100.0, 150.0, 250.0, 350.0, 500.0, 750.0, 1000.0, 1750.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0),
    *(300000.0, 600000.0, 1800000.0, 3600000.0),
)
"""38 bounds: a proxy's own cost is tens of microseconds, which Istio's first bound of 0.5 ms cannot show."""

MAX_SERIES: Final = 10_000
"""Series a worker keeps of each kind; what exceeds it is counted under OVERFLOW. Prometheus' own advice is to stay
below some ten thousand series a target (prometheus.io/docs/practices/instrumentation)."""

OVERFLOW: Final = "overflow"


class RequestLabels(NamedTuple):
    """Istio's standard labels of a request, in Istio's order (istio/proxy testdata, client_request_total)."""

    reporter: str
    source_workload: str
    source_canonical_service: str
    source_canonical_revision: str
    source_workload_namespace: str
    source_principal: str
    source_app: str
    source_version: str
    source_cluster: str
    destination_workload: str
    destination_workload_namespace: str
    destination_principal: str
    destination_app: str
    destination_version: str
    destination_service: str
    destination_canonical_service: str
    destination_canonical_revision: str
    destination_service_name: str
    destination_service_namespace: str
    destination_cluster: str
    request_protocol: str
    response_code: str
    grpc_response_status: str
    response_flags: str
    connection_security_policy: str


class RequestSeries:
    """One label set's requests since the last delta. `record` is on the path of every request."""

    __slots__ = ("duration_ms", "durations", "request_bytes", "request_sizes", "response_bytes", "response_sizes")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.durations = [0] * (len(FINE_BUCKETS_MS) + 1)
        self.duration_ms = 0.0
        self.request_sizes = [0] * (len(ISTIO_BUCKETS) + 1)
        self.request_bytes = 0
        self.response_sizes = [0] * (len(ISTIO_BUCKETS) + 1)
        self.response_bytes = 0

    def record(self, duration_ms: float, request_bytes: int, response_bytes: int) -> None:
        """Count one finished request; sizes are head and body as they crossed the wire."""
        self.durations[bisect_left(FINE_BUCKETS_MS, duration_ms)] += 1
        self.duration_ms += duration_ms
        self.request_sizes[bisect_left(ISTIO_BUCKETS, request_bytes)] += 1
        self.request_bytes += request_bytes
        self.response_sizes[bisect_left(ISTIO_BUCKETS, response_bytes)] += 1
        self.response_bytes += response_bytes


class TcpSeries:
    """One label set's connections since the last delta. Labels: RequestLabels with code, status and flags empty
    where a connection has none ("0", "", "-")."""

    __slots__ = ("closed", "opened", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.opened = 0
        self.closed = 0
        self.sent_bytes = 0
        self.received_bytes = 0


class CounterKey(NamedTuple):
    """A plain counter: metric name (without `_total`), label names, label values."""

    name: str
    label_names: tuple[str, ...]
    label_values: tuple[str, ...]


class RequestDelta(NamedTuple):
    labels: RequestLabels
    durations: list[int]
    duration_ms: float
    request_sizes: list[int]
    request_bytes: int
    response_sizes: list[int]
    response_bytes: int


class TcpDelta(NamedTuple):
    labels: RequestLabels
    opened: int
    closed: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class TelemetryDelta:
    """What happened in one worker since its previous delta; adding deltas in any order gives the totals."""

    requests: tuple[RequestDelta, ...] = ()
    connections: tuple[TcpDelta, ...] = ()
    counters: tuple[tuple[CounterKey, int], ...] = ()


def _admit(table: dict[_K, _V], key: _K, overflow: _K, make: type[_V]) -> _V:
    found = table.get(key)
    if found is None:
        if len(table) >= MAX_SERIES:
            key = overflow
        found = table.setdefault(key, make())
    return found


@dataclass(slots=True)
class Telemetry:
    """All series of a worker. Callers keep what they get, per connection or route: a look-up hashes 25 labels."""

    _requests: dict[RequestLabels, RequestSeries] = field(default_factory=dict)
    _connections: dict[RequestLabels, TcpSeries] = field(default_factory=dict)
    _counters: dict[CounterKey, int] = field(default_factory=dict)

    def requests(self, labels: RequestLabels) -> RequestSeries:
        return _admit(self._requests, labels, _overflow(labels), RequestSeries)

    def connections(self, labels: RequestLabels) -> TcpSeries:
        return _admit(self._connections, labels, _overflow(labels), TcpSeries)

    def count(self, key: CounterKey, amount: int = 1) -> None:
        self._counters[key] = self._counters.get(key, 0) + amount

    def take_delta(self) -> TelemetryDelta:
        """Everything since the last call. The series stay: data path objects hold them."""
        requests = []
        for labels, series in self._requests.items():
            if any(series.durations):
                requests.append(
                    RequestDelta(
                        labels,
                        series.durations,
                        series.duration_ms,
                        series.request_sizes,
                        series.request_bytes,
                        series.response_sizes,
                        series.response_bytes,
                    )
                )
                series.clear()
        connections = []
        for labels, tcp in self._connections.items():
            if tcp.opened or tcp.closed or tcp.sent_bytes or tcp.received_bytes:
                connections.append(TcpDelta(labels, tcp.opened, tcp.closed, tcp.sent_bytes, tcp.received_bytes))
                tcp.clear()
        counters = tuple(self._counters.items())
        self._counters.clear()
        return TelemetryDelta(tuple(requests), tuple(connections), counters)


def _overflow(labels: RequestLabels) -> RequestLabels:
    return RequestLabels(labels.reporter, *([OVERFLOW] * (len(RequestLabels._fields) - 1)))
