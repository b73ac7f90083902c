"""`kill -9` of the whole proxy under load: no new connection is refused or reset while there is none (B50)."""

from __future__ import annotations

import time

import pytest

from agent.lab.node import Lab
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import Traffic


@pytest.mark.parametrize("gap_s", [2, 10])
def test_b50_proxy_killed_under_load_and_back_after_a_gap_loses_no_new_connection(
    lab: Lab, loss: Record, gap_s: int
) -> None:
    with Traffic(lab) as traffic:
        traffic.kill_named("proxy")
        time.sleep(gap_s)  # the fault itself
        lab.start_proxy()
        lab.wait_ready()
        lab.wait_proved()
        traffic.goes_on(150)
        verdict = traffic.end()
    loss(f"proxy-1-killed-{gap_s:02}s", verdict, note=f"gap of {gap_s} s")
    nothing_failed(verdict, traffic)
    assert verdict.connections > 150 * gap_s, "nobody called while there was no proxy"
    assert verdict.connect_max_ns < 1e9, "a SYN was lost: the first is sent again after a second"


def test_b50_proxy_killed_again_before_it_is_ready_loses_no_new_connection(lab: Lab, loss: Record) -> None:
    """The second proxy dies with the listeners in its hands, served or not: the store has them still."""
    with Traffic(lab) as traffic:
        traffic.kill_named("proxy")
        for patience_s in (0.2, 0.5, 1.0):
            lab.start_proxy()
            time.sleep(patience_s)  # somewhere in its start
            traffic.kill_named("proxy")
        lab.start_proxy()
        lab.wait_ready()
        lab.wait_proved()
        traffic.goes_on(150)
        verdict = traffic.end()
    loss("proxy-2-killed-while-starting", verdict, note="3 more kills while it starts")
    nothing_failed(verdict, traffic)
