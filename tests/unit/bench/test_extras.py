"""The figures beside the rows: every name is measured by somebody, and quantiles are Prometheus'."""

import pytest

from agent.lab.errors import LabError
from tests.bench import extras, many_pods
from tests.bench.many_pods import quantile
from tests.bench.rows import EXTRAS

PAGE = """\
# TYPE headgate_announce_seconds histogram
headgate_announce_seconds_bucket{le="0.01"} 50.0
headgate_announce_seconds_bucket{le="0.05"} 90.0
headgate_announce_seconds_bucket{le="0.1"} 100.0
headgate_announce_seconds_bucket{le="+Inf"} 100.0
headgate_announce_seconds_count 100.0
"""


def test_each_name_is_measured_by_exactly_one() -> None:
    assert sorted(EXTRAS) == sorted([*extras.ALONE, *many_pods.NAMES])


@pytest.mark.parametrize(("share", "value"), [(0.25, 0.005), (0.5, 0.01), (0.7, 0.03), (0.99, 0.095)])
def test_a_quantile_lies_within_its_bucket_by_proportion(share: float, value: float) -> None:
    assert quantile(PAGE, "headgate_announce_seconds", share) == pytest.approx(value)


def test_a_quantile_above_all_bounds_is_the_last_bound() -> None:
    page = PAGE.replace('le="0.1"} 100.0', 'le="0.1"} 98.0')
    assert quantile(page, "headgate_announce_seconds", 0.99) == 0.1


@pytest.mark.parametrize("page", ["", PAGE.replace("100.0", "0.0").replace("90.0", "0.0").replace("50.0", "0.0")])
def test_a_histogram_that_counted_nothing_is_told(page: str) -> None:
    with pytest.raises(LabError, match="counted nothing"):
        quantile(page, "headgate_announce_seconds", 0.99)
