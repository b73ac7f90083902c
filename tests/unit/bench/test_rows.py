"""ROWS= and the comparisons: what is measured and what is told."""

import pytest

from tests.bench.rows import COMPARISONS, EXTRAS, METRICS, ROWS, Comparison, UnknownRow, compared, select

ISSUE_ROWS = [
    "direct",
    "headgate-http",
    "headgate-http-mix",
    "headgate-http-2hops",
    "headgate-tcp",
    "envoy-http",
    "envoy-http-mix",
    "envoy-tcp",
    "haproxy",
    "haproxy-mix",
    "nginx",
]


def test_the_rows_are_those_of_issue_2() -> None:
    assert [row.name for row in ROWS] == ISSUE_ROWS


def test_no_selection_means_every_row_and_every_extra() -> None:
    assert select("") == (ROWS, EXTRAS)


@pytest.mark.parametrize("text", ["haproxy,direct", "haproxy direct", " direct , haproxy "])
def test_a_selection_keeps_the_tables_order_and_leaves_the_extras_out(text: str) -> None:
    rows, extras = select(text)
    assert [row.name for row in rows] == ["direct", "haproxy"]
    assert extras == ()


def test_an_extra_can_be_asked_for_alone() -> None:
    assert select("footprint") == ((), ("footprint",))


def test_an_unknown_row_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownRow, match=r"no row 'haproxi'; there are: direct, .*nginx, sustained, .*footprint"):
        select("direct,haproxi")


def test_every_comparison_is_between_rows_and_metrics_that_exist() -> None:
    for one in COMPARISONS:
        assert {one.ours, one.theirs} <= set(ISSUE_ROWS), one.name
        assert one.metric in METRICS, one.name
    assert len({one.name for one in COMPARISONS}) == len(COMPARISONS)


def test_only_comparisons_with_both_sides_measured_are_made() -> None:
    rows, _ = select("headgate-http,haproxy")
    assert {(one.ours, one.theirs) for one in compared(rows)} == {("headgate-http", "haproxy")}


def test_a_ratio_of_requests_per_second_has_the_pairs_bare_name() -> None:
    assert Comparison("headgate-http", "haproxy").name == "headgate-http/haproxy"
    assert Comparison("headgate-http", "haproxy", "proxy_cpu_us").name == "headgate-http/haproxy proxy_cpu"
