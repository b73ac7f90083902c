"""Workers that die or stand still under load: no new connection is refused or reset, and counters never fall."""

from __future__ import annotations

import time
from typing import Final

from agent.lab.node import Lab
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import Traffic
from tests.netns.workers.conftest import Workers

KILLS: Final = 4
CUT: Final = "headgate_connections_cut_total{"
NOTICED_S: Final = 3.0
"""Two seconds, and what a machine that runs a load on the same cores adds."""


def test_workers_killed_under_load_lose_no_new_connection(lab: Lab, loss: Record) -> None:
    wanted = len(lab.workers())
    with Traffic(lab) as traffic:
        for turn in range(KILLS):
            victim = lab.workers()[turn % wanted]
            traffic.kill(victim)
            lab.wait(
                "another worker",
                lambda: victim not in (now := lab.workers()) and len(now) == wanted,  # noqa: B023
            )
            traffic.goes_on()
        verdict = traffic.end()
    counted = Workers(lab).metric(CUT)
    loss("worker-1-killed", verdict, note=f"{KILLS} kills, {wanted} workers; {counted:,.0f} connections counted as cut")
    nothing_failed(verdict, traffic)
    assert counted >= verdict.cut, "each request that was cut was on a connection that was"


def test_stopped_worker_under_load_is_noticed_and_replaced(lab: Lab, loss: Record) -> None:
    """SIGSTOP: it is alive for the kernel, holds its connections and accepts nothing more."""
    wanted = len(lab.workers())
    noticed_s = 0.0
    with Traffic(lab) as traffic:
        for victim in lab.workers():
            began = time.monotonic()
            with traffic.stopped(victim):
                lab.wait("a stopped worker to be killed", lambda: victim not in lab.workers(), timeout_s=NOTICED_S + 3)  # noqa: B023
            noticed_s = max(noticed_s, time.monotonic() - began)
            lab.wait("another worker", lambda: len(lab.workers()) == wanted)
            traffic.goes_on()
        verdict = traffic.end()
    loss("worker-2-stopped", verdict, note=f"{wanted} stopped in turn; noticed and killed within {noticed_s:.1f} s")
    nothing_failed(verdict, traffic)
    assert noticed_s <= NOTICED_S
