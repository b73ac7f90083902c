"""Numbers of a load, as a person reads them."""

from hypothesis import given
from hypothesis import strategies as st

from agent.lab import figures


def test_percentile_is_the_nearest_rank() -> None:
    values = list(range(1, 101))
    assert [figures.percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert figures.percentile([7], 0.5) == 7
    assert figures.percentile([], 0.5) == 0


@given(st.lists(st.integers(min_value=0, max_value=10**11)))
def test_every_latency_falls_into_exactly_one_bucket(latencies_ns: list[int]) -> None:
    counts = figures.buckets(latencies_ns)
    assert sum(counts) == len(latencies_ns)
    for index, bound in enumerate(figures.BOUNDS_NS):
        assert sum(counts[: index + 1]) == sum(1 for value in latencies_ns if value <= bound)


def test_the_histogram_shows_the_used_range_and_never_hides_a_few() -> None:
    counts = figures.buckets([200_000] * 500 + [10**12])
    lines = figures.histogram(counts, width=10)
    assert lines[0] == "  ≤ 0.250 ms ██████████    500"
    assert lines[-1] == "  above      ▏               1"
    assert figures.histogram(figures.buckets([])) == ["  (no request)"]


def test_durations_have_three_digits() -> None:
    assert [figures.milliseconds(ns) for ns in (62_500, 1_234_567, 12_345_678, 123_456_789)] == [
        "0.062 ms",
        "1.23 ms",
        "12.3 ms",
        "123 ms",
    ]


def test_three_sigma_of_a_90_10_split_of_2000() -> None:
    weights = {"v1": 90, "v2": 10}  # sigma = sqrt(2000 × 0.9 × 0.1) = 13.4, three of it 40.2
    assert figures.within_three_sigma({"v1": 1800, "v2": 200}, weights)
    assert figures.within_three_sigma({"v1": 1840, "v2": 160}, weights)
    assert not figures.within_three_sigma({"v1": 1841, "v2": 159}, weights)
    assert not figures.within_three_sigma({"v1": 1759, "v2": 241}, weights)


def test_an_answer_of_nobody_known_is_no_split() -> None:
    assert not figures.within_three_sigma({"v1": 900, "v2": 100, "unknown": 1}, {"v1": 90, "v2": 10})
    assert not figures.within_three_sigma({}, {"v1": 90, "v2": 10})
    assert not figures.within_three_sigma({"v1": 1000}, {"v1": 90, "v2": 10})
