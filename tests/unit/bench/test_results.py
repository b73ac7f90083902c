"""Medians and paired ratios."""

import pytest

from tests.bench.results import Fact, Ratio, Results, medians, ratios
from tests.bench.rows import METRICS, Comparison, Wanted
from tests.unit.bench.samples import ANY, with_rps

PAIR = Comparison("ours", "theirs", bound=0.8)


def test_ratios_are_paired_within_a_round_not_made_of_the_medians() -> None:
    # The machine was twice as fast in the second round and half as fast in the third: the ratio never moved.
    samples = {"ours": [with_rps(9), with_rps(18), with_rps(4.5)], "theirs": [with_rps(10), with_rps(20), with_rps(5)]}
    (ratio,) = ratios(samples, [PAIR])
    assert (ratio.median, ratio.min, ratio.max) == (0.9, 0.9, 0.9)


def test_a_ratio_tells_its_spread() -> None:
    samples = {"ours": [with_rps(5), with_rps(7), with_rps(9)], "theirs": [with_rps(10)] * 3}
    (ratio,) = ratios(samples, [PAIR])
    assert (ratio.median, ratio.min, ratio.max) == (0.7, 0.5, 0.9)


def test_rounds_that_do_not_pair_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios({"ours": [ANY, ANY], "theirs": [ANY]}, [PAIR])


def test_the_median_is_taken_metric_by_metric() -> None:
    middle = medians([with_rps(1), with_rps(100), with_rps(3)])
    assert middle == with_rps(3)


@pytest.mark.parametrize(
    ("wanted", "bound", "median", "met"),
    [
        (Wanted.AT_LEAST, 0.8, 0.8, True),
        (Wanted.AT_LEAST, 0.8, 0.79, False),
        (Wanted.AT_MOST, 1.25, 1.25, True),
        (Wanted.AT_MOST, 1.25, 1.26, False),
        (Wanted.AT_LEAST, None, 0.1, None),
    ],
)
def test_the_median_decides_whether_a_bound_is_met(
    wanted: Wanted, bound: float | None, median: float, met: bool | None
) -> None:
    assert Ratio(Comparison("a", "b", "rps", wanted, bound), median, 0.0, 9.0).met is met


def test_the_json_has_the_shape_that_issue_2_gives() -> None:
    results = Results(
        rows=(("haproxy", ANY),),
        ratios=(Ratio(Comparison("headgate-http", "haproxy"), 0.9, 0.8, 1.0),),
        footprint=(Fact("agent_mb", "agent", 55.0, "MB", 60),),
        rounds=5,
        seconds_each=2,
        repeated=0,
    )
    told = results.as_json()
    assert tuple(told["rows"]["haproxy"]) == METRICS
    assert told["ratios"] == {"headgate-http/haproxy": {"median": 0.9, "min": 0.8, "max": 1.0}}
    assert told["footprint"] == {"agent_mb": 55.0}
