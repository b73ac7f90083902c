"""What a row must show before it is measured."""

from collections import Counter

import pytest

from tests.bench.rows import ROWS, Row, Seen
from tests.bench.verify import RowBroken, check_captured, check_split, counted

PAGE = """\
# TYPE istio_requests_total counter
istio_requests_total{reporter="source",response_code="200"} 40.0
istio_requests_total{reporter="source",response_code="503"} 2.0
istio_requests_total{reporter="destination",response_code="200"} 7.0
istio_tcp_connections_opened_total{reporter="source"} 3.0
"""


def row(name: str) -> Row:
    return next(one for one in ROWS if one.name == name)


def test_headgates_own_metrics_are_summed_by_reporter() -> None:
    assert {kind: counted(PAGE, kind.value) for kind in Seen} == {
        Seen.HTTP_OUT: 42.0,
        Seen.HTTP_IN: 7.0,
        Seen.TCP_OUT: 3.0,
    }


def test_what_was_never_counted_is_zero() -> None:
    assert counted("", Seen.HTTP_OUT.value) == 0


def test_a_row_that_does_not_split_is_broken() -> None:
    with pytest.raises(RowBroken, match="haproxy: v2 answered 0% of the requests instead of 10 %"):
        check_split(row("haproxy"), Counter(v1=200))


def test_a_row_that_splits_in_halves_is_broken() -> None:
    with pytest.raises(RowBroken, match="50%"):
        check_split(row("haproxy"), Counter(v1=100, v2=100))


def test_one_in_ten_is_a_split() -> None:
    check_split(row("haproxy"), Counter(v1=178, v2=22))


def test_a_row_without_a_split_may_answer_from_one_version() -> None:
    check_split(row("direct"), Counter(v1=200))


@pytest.mark.parametrize(("name", "captured"), [("headgate-http", 0), ("haproxy", 2), ("direct", 1)])
def test_a_connection_that_the_rules_did_not_lead_as_told_breaks_the_row(name: str, captured: int) -> None:
    with pytest.raises(RowBroken, match=name):
        check_captured(row(name), captured)


def test_one_connection_led_once_is_right() -> None:
    check_captured(row("haproxy"), 1)
    check_captured(row("direct"), 0)
