"""The split: shares, exactness, and what the sequence must not do."""

import pytest

from proxy.policy.split import STEP, advance, cumulative_weights, index_at


def counts(weights: tuple[int, ...], requests: int, point: float = 0.25, stride: int = 1) -> list[int]:
    cumulative = cumulative_weights(weights)
    found = [0] * len(weights)
    for number in range(requests * stride):
        point = advance(point)
        if number % stride == 0:
            found[index_at(cumulative, point)] += 1
    return found


def test_cumulative_weights_are_relative_to_the_sum_and_end_at_one() -> None:
    assert cumulative_weights((90, 10)) == (0.9, 1.0)
    assert cumulative_weights((1, 1, 2)) == (0.25, 0.5, 1.0)
    assert cumulative_weights((1, 2, 3, 4, 5, 6, 7))[-1] == 1.0


def test_a_single_backend_gets_everything_whatever_its_weight() -> None:
    assert cumulative_weights((0,)) == (1.0,)
    assert index_at((1.0,), 0.999) == 0


def test_a_point_belongs_to_the_part_that_begins_at_it() -> None:
    cumulative = (0.9, 1.0)
    assert [index_at(cumulative, point) for point in (0.0, 0.8999, 0.9, 0.9999)] == [0, 0, 1, 1]


def test_a_backend_of_weight_0_gets_nothing() -> None:
    assert counts((1, 0, 1), 1000)[1] == 0


@pytest.mark.parametrize("start", [0.0, 0.1, 0.5, 0.9, 1 - 2**-53])
def test_90_to_10_over_2000_requests_is_off_by_two_at_most(start: float) -> None:
    v1, v2 = counts((90, 10), 2000, start)
    assert abs(v2 - 200) <= 2
    assert v1 + v2 == 2000


def test_the_step_is_the_odd_multiple_next_to_the_golden_ratio_so_that_its_period_is_2_to_the_52() -> None:
    multiple = STEP * 2**52
    assert multiple == int(multiple)
    assert int(multiple) % 2 == 1
    assert abs(STEP - (5**0.5 - 1) / 2) <= 2**-52


def test_the_point_never_drifts() -> None:
    """A million steps in floating point are where exact arithmetic says."""
    point = 0.0
    for _ in range(1_000_000):
        point = advance(point)
    assert point == (1_000_000 * int(STEP * 2**52)) % 2**52 / 2**52


def test_a_start_off_the_grid_is_on_it_after_two_steps() -> None:
    point = advance(advance(1 - 2**-53))
    assert (point * 2**52).is_integer()


@pytest.mark.parametrize("weights", [(90, 10), (50, 50), (1, 99)])
def test_no_stride_of_a_periodic_client_meets_one_backend_only(weights: tuple[int, int]) -> None:
    """Every k-th request alike (a health check, a page's third image): smooth round-robin would send all of one kind
    to the same backend wherever k divides the sum of the weights."""
    share = weights[0] / sum(weights)
    for stride in range(1, 101):
        assert abs(counts(weights, 500, stride=stride)[0] / 500 - share) <= 0.06, stride
