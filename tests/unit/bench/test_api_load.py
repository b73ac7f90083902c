"""The arithmetic of docs/scale.md: what follows for a cluster from what one agent was measured to ask."""

from dataclasses import replace

import pytest

from tests.bench.api_load import NODES_A_RELAY, Assumed, Measured, load_of, tables
from tests.kube.traffic import Count, What

ONE = Measured(
    first_requests=60,
    pod_bytes=5000.0,
    service_bytes=400.0,
    slice_bytes=1500.0,
    pod_event_bytes=6000.0,
    slice_event_bytes=1600.0,
    watches=22,
    own_requests=3.0,
    own_received_bytes=1500.0,
    other_requests_s=0.0,
)


def test_first_lists_are_all_pods_services_and_slices_of_the_cluster() -> None:
    load = load_of(Assumed(100), ONE)  # 3,000 pods, 300 Services
    assert load.first_mb == pytest.approx((3000 * 5000 + 300 * 1900) / 1e6)
    assert load.all_first_gb == pytest.approx(load.first_mb * 100 / 1e3)


def test_what_is_watched_grows_with_the_square_of_the_nodes() -> None:
    small, large = load_of(Assumed(100), ONE), load_of(Assumed(1000), ONE)
    assert large.kb_s == pytest.approx(10 * small.kb_s)
    assert large.all_mb_s == pytest.approx(100 * small.all_mb_s)


def test_requests_grow_with_the_nodes_only() -> None:
    small, large = load_of(Assumed(100), ONE), load_of(Assumed(1000), ONE)
    assert large.all_requests_s == pytest.approx(10 * small.all_requests_s)
    assert small.all_requests_s == pytest.approx(100 * (3 * 30 / 86400 + 22 / 450))


def test_a_relay_takes_one_agents_watch_for_many() -> None:
    load = load_of(Assumed(1000), ONE)
    assert load.relay_mb_s == pytest.approx(load.all_mb_s / NODES_A_RELAY)


def test_pods_that_live_for_an_hour_cost_24_times_as_much() -> None:
    day, hour = Assumed(300), replace(Assumed(300), pod_life_s=3600.0)
    assert load_of(hour, ONE).kb_s == pytest.approx(24 * load_of(day, ONE).kb_s)


def test_the_tables_name_what_was_asked_largest_first_and_leave_out_what_is_little() -> None:
    first = {
        What("", "list", "services"): Count(1, 100, 4_000_000),
        What("", "get", "/apis"): Count(20, 100, 900),
        What("", "list", "pods"): Count(2, 100, 60_000_000),
    }
    lines = list(tables(ONE, first))
    assert lines[2:4] == ["| list pods | 2 | 0.1 | 60.00 |", "| list services | 1 | 0.1 | 4.00 |"]
    assert lines[4] == ""
    assert [line.split(" | ")[0] for line in lines[-3:]] == ["| 100", "| 300", "| 1,000"]
