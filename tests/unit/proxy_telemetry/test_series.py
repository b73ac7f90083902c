"""What a worker counts, and that nothing is lost or counted twice between two deltas."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry import series
from proxy.telemetry.series import (
    FINE_BUCKETS_MS,
    ISTIO_BUCKETS,
    MAX_SERIES,
    OVERFLOW,
    CounterKey,
    RequestLabels,
    Telemetry,
    TelemetryDelta,
)


def labels(**changed: str) -> RequestLabels:
    return RequestLabels(*["x"] * len(RequestLabels._fields))._replace(**changed)


def test_istios_bounds_are_all_among_the_fine_ones() -> None:
    """So that one histogram serves both metrics."""
    assert set(ISTIO_BUCKETS) <= set(FINE_BUCKETS_MS)
    assert list(FINE_BUCKETS_MS) == sorted(set(FINE_BUCKETS_MS))
    assert len(FINE_BUCKETS_MS) <= 40


def test_a_request_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    telemetry = Telemetry()
    one = telemetry.requests(labels())
    one.record(duration_ms=1.0, request_bytes=5, response_bytes=6)
    one.record(duration_ms=1.0001, request_bytes=0, response_bytes=10**9)
    (delta,) = telemetry.take_delta().requests
    at_one = FINE_BUCKETS_MS.index(1.0)
    assert (delta.durations[at_one], delta.durations[at_one + 1]) == (1, 1)
    assert (delta.request_bytes, delta.response_bytes) == (5, 6 + 10**9)
    assert delta.request_sizes[ISTIO_BUCKETS.index(5.0)] == 1
    assert delta.response_sizes[ISTIO_BUCKETS.index(10.0)] == 1


def test_what_exceeds_every_bound_is_counted_in_the_last_bucket() -> None:
    telemetry = Telemetry()
    telemetry.requests(labels()).record(FINE_BUCKETS_MS[-1] + 1, int(ISTIO_BUCKETS[-1]) + 1, 0)
    (delta,) = telemetry.take_delta().requests
    assert (delta.durations[-1], delta.request_sizes[-1]) == (1, 1)


def test_a_series_that_is_kept_goes_on_counting_after_a_delta() -> None:
    telemetry = Telemetry()
    kept = telemetry.requests(labels())
    kept.record(1, 1, 1)
    first = telemetry.take_delta()
    kept.record(1, 1, 1)
    second = telemetry.take_delta()
    assert [sum(delta.requests[0].durations) for delta in (first, second)] == [1, 1]
    assert telemetry.take_delta() == TelemetryDelta()


def test_a_delta_that_was_taken_does_not_change_any_more() -> None:
    telemetry = Telemetry()
    kept = telemetry.requests(labels())
    kept.record(1, 1, 1)
    (delta,) = telemetry.take_delta().requests
    kept.record(1, 1, 1)
    assert sum(delta.durations) == 1


def test_connections_and_counters_are_told_once() -> None:
    telemetry = Telemetry()
    tcp = telemetry.connections(labels())
    tcp.opened += 1
    tcp.sent_bytes += 7
    key = CounterKey("headgate_detection", ("outcome",), ("http",))
    telemetry.count(key)
    telemetry.count(key, 2)
    delta = telemetry.take_delta()
    assert [(one.opened, one.closed, one.sent_bytes) for one in delta.connections] == [(1, 0, 7)]
    assert delta.counters == ((key, 3),)
    assert telemetry.take_delta() == TelemetryDelta()


def test_too_many_series_are_counted_together_under_overflow() -> None:
    telemetry = Telemetry()
    for number in range(MAX_SERIES):
        telemetry.requests(labels(source_app=str(number)))
    beyond = telemetry.requests(labels(source_app="beyond", reporter="source"))
    assert telemetry.requests(labels(source_app="further", reporter="source")) is beyond
    assert telemetry.requests(labels(source_app="0")) is not beyond, "those that were there first stay"
    beyond.record(1, 1, 1)
    (delta,) = telemetry.take_delta().requests
    assert delta.labels.reporter == "source"
    assert set(delta.labels[1:]) == {OVERFLOW}


@given(st.lists(st.tuples(st.floats(0, 1e8), st.integers(0, 2**40), st.integers(0, 2**40)), max_size=30), st.data())
def test_deltas_add_up_to_all_that_was_recorded(requests: list[tuple[float, int, int]], data: st.DataObject) -> None:
    telemetry = Telemetry()
    one = telemetry.requests(labels())
    taken: list[series.RequestDelta] = []
    for duration_ms, sent, received in requests:
        one.record(duration_ms, sent, received)
        if data.draw(st.booleans()):
            taken += telemetry.take_delta().requests
    taken += telemetry.take_delta().requests
    assert sum(sum(delta.durations) for delta in taken) == len(requests)
    assert sum(delta.request_bytes for delta in taken) == sum(sent for _, sent, _ in requests)
    assert sum(delta.response_bytes for delta in taken) == sum(received for _, _, received in requests)
