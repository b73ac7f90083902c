"""The split keeps its shares in every window of requests (docs/adr/0006-split-by-golden-ratio.md)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy.split import advance, cumulative_weights, index_at, max_deviation

MEASURED_WORST = 6.0
"""Up to 3,000 requests the bound is as far as 31; what is seen stays well below, and chance would exceed it."""

WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any).map(tuple)
POINTS = st.floats(0, 1, exclude_max=True, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, POINTS, st.integers(1, 3000))
def test_in_every_window_a_backend_s_count_deviates_from_its_share_by_the_bound_at_most(
    weights: tuple[int, ...], point: float, requests: int
) -> None:
    cumulative, total = cumulative_weights(weights), sum(weights)
    counts = [0] * len(weights)
    lowest, highest = [0.0] * len(weights), [0.0] * len(weights)
    for done in range(1, requests + 1):
        point = advance(point)
        assert 0.0 <= point < 1.0
        counts[index_at(cumulative, point)] += 1
        for i, weight in enumerate(weights):
            off = counts[i] - done * weight / total
            lowest[i], highest[i] = min(lowest[i], off), max(highest[i], off)
    # The worst window of all runs from one extreme of the running deviation to the other.
    worst = max(high - low for low, high in zip(lowest, highest, strict=True))
    assert worst <= MEASURED_WORST
    assert worst <= max_deviation(requests)
    assert sum(counts) == requests


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, POINTS, st.integers(1, 500))
def test_windows_of_one_length_keep_the_bound_of_that_length(
    weights: tuple[int, ...], point: float, length: int
) -> None:
    cumulative, share = cumulative_weights(weights), weights[0] / sum(weights)
    before = [0]
    for _ in range(2000):
        point = advance(point)
        before.append(before[-1] + (index_at(cumulative, point) == 0))
    for start in range(2001 - length):
        assert abs(before[start + length] - before[start] - length * share) <= max_deviation(length)


@given(WEIGHTS)
def test_the_parts_of_the_interval_are_the_weights(weights: tuple[int, ...]) -> None:
    ends = cumulative_weights(weights)
    assert ends[-1] == 1.0
    assert list(ends) == sorted(ends)
    for i, weight in enumerate(weights):
        width = ends[i] - (ends[i - 1] if i else 0.0)
        assert abs(width - weight / sum(weights)) < 1e-12


@given(WEIGHTS, POINTS)
def test_every_point_has_a_backend_of_some_weight(weights: tuple[int, ...], point: float) -> None:
    assert weights[index_at(cumulative_weights(weights), point)] > 0
