"""proxy.metrics: deltas of many workers become sums that never fall, end with their pods and stay within their cap."""

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import SERIES_END_S, MetricsPage, ProxyStatus, Totals
from proxy.model.snapshot import Rejection
from proxy.telemetry.series import (
    ISTIO_BUCKETS,
    OVERFLOW,
    CounterKey,
    RequestLabels,
    Telemetry,
    TelemetryDelta,
)

EVERYONE = frozenset({("shop", "client"), ("shop", "web-v1"), ("shop", "web-v2")})


def labels(reporter: str = "source", code: str = "200", to: str = "web-v1", source: str = "client") -> RequestLabels:
    unknown = RequestLabels(reporter, *(["unknown"] * (len(RequestLabels._fields) - 1)))
    return unknown._replace(
        source_workload=source,
        source_workload_namespace="shop",
        destination_workload=to,
        destination_workload_namespace="shop",
        destination_service="web.shop.svc.cluster.local",
        destination_service_name="web",
        destination_service_namespace="shop",
        request_protocol="http",
        response_code=code,
        grpc_response_status="",
        response_flags="-",
    )


def delta_of(
    *durations_ms: float, of: RequestLabels | None = None, request_bytes: int = 100, response_bytes: int = 700
) -> TelemetryDelta:
    telemetry = Telemetry()
    series = telemetry.requests(of or labels())
    for duration_ms in durations_ms:
        series.record(duration_ms, request_bytes, response_bytes)
    return telemetry.take_delta()


def page_of(*deltas: TelemetryDelta, live: frozenset[tuple[str, str]] = EVERYONE, now_s: float = 0.0) -> MetricsPage:
    page = MetricsPage("1.2.3", with_process=False)
    for delta in deltas:
        page.add(delta)
    page.fold(live, now_s)
    return page


def samples(
    page: MetricsPage, status: ProxyStatus | None = None
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = page.render(status or ProxyStatus())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def named(page: MetricsPage, name: str, **wanted: str) -> list[float]:
    return [
        value
        for (found, pairs), value in samples(page).items()
        if found == name and wanted.items() <= dict(pairs).items()
    ]


def test_deltas_of_two_workers_are_summed() -> None:
    page = page_of(delta_of(1.0, 2.0), delta_of(3.0))
    assert named(page, "istio_requests_total") == [3.0]
    assert named(page, "istio_request_duration_milliseconds_sum") == [6.0]
    assert named(page, "istio_request_bytes_sum") == [300.0]
    assert named(page, "istio_response_bytes_sum") == [2100.0]


def test_a_delta_that_comes_after_the_fold_is_on_the_next_page() -> None:
    page = page_of(delta_of(1.0))
    page.add(delta_of(1.0))
    assert named(page, "istio_requests_total") == [2.0]


@given(st.lists(st.floats(min_value=0.0, max_value=4_000_000.0), min_size=1, max_size=40))
@settings(deadline=None)  # a whole page is parsed back
def test_istios_buckets_count_what_a_histogram_of_its_own_would(durations_ms: list[float]) -> None:
    counted = {
        dict(pairs)["le"]: value
        for (name, pairs), value in samples(page_of(delta_of(*durations_ms))).items()
        if name == "istio_request_duration_milliseconds_bucket"
    }
    expected = {bound: sum(1 for duration_ms in durations_ms if duration_ms <= bound) for bound in ISTIO_BUCKETS}
    assert counted.pop("+Inf") == len(durations_ms)
    assert {float(bound): value for bound, value in counted.items()} == expected


def test_the_order_of_deltas_does_not_matter() -> None:
    deltas = (delta_of(1.0), delta_of(7.0, of=labels(code="503")), delta_of(2.0, of=labels(to="web-v2")))
    pages = [samples(page_of(*order)) for order in permutations(deltas)]
    assert all(page == pages[0] for page in pages)


def test_the_fine_histogram_sums_codes_of_a_class_and_workloads_of_a_service() -> None:
    page = page_of(
        delta_of(1.0, of=labels(code="200")),
        delta_of(1.0, of=labels(code="204", to="web-v2")),
        delta_of(1.0, of=labels(code="503")),
        delta_of(1.0, of=labels(code="0")),
    )
    assert named(page, "headgate_request_duration_seconds_count", response_class="2xx") == [2.0]
    assert named(page, "headgate_request_duration_seconds_count", response_class="5xx") == [1.0]
    assert named(page, "headgate_request_duration_seconds_count", response_class="unknown") == [1.0]
    assert named(page, "headgate_request_duration_seconds_sum", response_class="2xx") == [0.002]


def test_series_outlive_the_last_pod_by_a_minute_and_no_longer() -> None:
    both = (delta_of(1.0, of=labels(source="client")), delta_of(1.0, of=labels(source="batch")))
    page = page_of(*both, live=EVERYONE | {("shop", "batch")})
    page.fold(EVERYONE, 100.0)
    page.fold(EVERYONE, 100.0 + SERIES_END_S - 1)
    assert named(page, "istio_requests_total", source_workload="batch") == [1.0]
    page.fold(EVERYONE, 100.0 + SERIES_END_S)
    assert named(page, "istio_requests_total", source_workload="batch") == []
    assert named(page, "headgate_request_duration_seconds_count", source_workload="batch") == []
    assert named(page, "istio_requests_total", source_workload="client") == [1.0]


def test_a_pod_that_comes_back_within_the_minute_keeps_its_series() -> None:
    page = page_of(delta_of(1.0))
    page.fold(frozenset(), 0.0)
    page.fold(EVERYONE, 30.0)
    page.fold(frozenset(), 40.0)
    page.fold(frozenset(), 40.0 + SERIES_END_S - 1)
    assert named(page, "istio_requests_total") == [1.0]


def test_a_fine_series_that_two_workloads_share_does_not_fall_when_one_leaves() -> None:
    inbound = {"reporter": "destination", "source": "client"}
    page = page_of(delta_of(1.0, of=labels(**inbound)), delta_of(1.0, of=labels(**inbound, to="web-v2")))
    only_v1 = frozenset({("shop", "web-v1")})
    page.fold(only_v1, 0.0)
    page.fold(only_v1, SERIES_END_S)
    assert named(page, "istio_requests_total", destination_workload="web-v2") == []
    assert named(page, "headgate_request_duration_seconds_count") == [2.0]
    page.fold(frozenset(), 100.0)
    page.fold(frozenset(), 100.0 + SERIES_END_S)
    assert named(page, "headgate_request_duration_seconds_count") == []


def test_what_exceeds_the_cap_is_summed_as_overflow() -> None:
    totals = Totals(max_series=3)
    for index in range(10):
        totals.add(delta_of(1.0, of=labels(source=f"batch-{index}")))
    assert len(totals.requests) == 4
    overflow = next(kept for kept in totals.requests if kept.source_workload == OVERFLOW)
    assert sum(totals.requests[overflow].durations.counts) == 7
    assert sum(sum(one.durations.counts) for one in totals.requests.values()) == 10
    totals.end_series(frozenset(), 0.0)
    totals.end_series(frozenset(), SERIES_END_S)
    assert list(totals.requests) == [overflow]


def test_counters_beyond_the_cap_keep_their_name() -> None:
    totals = Totals(max_series=2)
    keys = [CounterKey("headgate_paths", ("path",), (str(index),)) for index in range(5)]
    totals.add(TelemetryDelta(counters=tuple((key, 1) for key in keys)))
    assert totals.counters[CounterKey("headgate_paths", ("path",), (OVERFLOW,))] == 3


def test_connections_carry_no_code_and_plain_counters_get_their_suffix() -> None:
    telemetry = Telemetry()
    tcp = telemetry.connections(labels(code="0")._replace(request_protocol="tcp"))
    tcp.opened, tcp.closed, tcp.sent_bytes, tcp.received_bytes = 3, 2, 500, 70
    telemetry.count(CounterKey("headgate_detection", ("outcome",), ("http",)), 4)
    page = page_of(telemetry.take_delta())
    assert named(page, "istio_tcp_connections_opened_total", request_protocol="tcp") == [3.0]
    assert named(page, "istio_tcp_connections_closed_total") == [2.0]
    assert named(page, "istio_tcp_sent_bytes_total") == [500.0]
    assert named(page, "istio_tcp_received_bytes_total") == [70.0]
    assert named(page, "headgate_detection_total", outcome="http") == [4.0]
    opened = next(pairs for name, pairs in samples(page) if name == "istio_tcp_connections_opened_total")
    assert "response_code" not in dict(opened)


def test_rejections_are_listed_once_each_with_foreign_text_escaped() -> None:
    status = ProxyStatus(
        rejections=(
            Rejection("VirtualService shop/web", "spec.http[0].match", "not supported"),
            Rejection("VirtualService shop/web", "spec.http[0].match", "not supported either"),
            Rejection("Service shop/\x1b[31m", "spec", "x", stale=True),
        )
    )
    found = samples(page_of(), status)
    key = frozenset({("object", "VirtualService shop/web"), ("field", "spec.http[0].match")})
    assert found["headgate_policy_rejections", key] == 1.0
    assert found["headgate_policy_stale", frozenset({("object", "Service shop/\\x1b[31m")})] == 1.0
