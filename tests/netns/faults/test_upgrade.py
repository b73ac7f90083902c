"""In-place upgrade of the proxy, of the agent, and of both at once, again and again, under load: no request is
refused or reset, and none is cut: who ends as asked cuts nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from agent.lab.node import Lab
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import FRESH, KEPT, PAUSING, Traffic

REQUESTS: Final = int(os.environ.get("HEADGATE_FAULT_REQUESTS", "100000"))
"""Each: as many as issue 3 promises. Fewer end earlier, and not much: the upgrades themselves take the time."""
DRAIN_S: Final = 20.0
"""Of the proxy that ends: longer than the clients' longest pause."""
AT_LEAST: Final = 3
"""Upgrades, however fast the requests are answered."""


@pytest.fixture
def draining_lab() -> Iterator[Lab]:
    """Its proxies let connections end by themselves for DRAIN_S."""
    with Lab() as made:
        made.start_proxy("--drain-s", f"{DRAIN_S:g}")
        made.start_agent(cleanup_on_exit=False)
        made.wait_ready()
        made.wait_proved()
        yield made


def _proxy(lab: Lab) -> None:
    former = lab.take_over_proxy("--drain-s", f"{DRAIN_S:g}")
    _ended(former)
    lab.wait_ready()


def _agent(lab: Lab) -> None:
    assert lab.stop_agent() == 0
    lab.start_agent(cleanup_on_exit=False)
    lab.wait_proved()


def _both(lab: Lab) -> None:
    """The agent ends while one proxy is taking over from the other."""
    former = lab.take_over_proxy("--drain-s", f"{DRAIN_S:g}")
    assert lab.stop_agent() == 0
    lab.start_agent(cleanup_on_exit=False)
    _ended(former)
    lab.wait_ready()
    lab.wait_proved()


def _ended(former: subprocess.Popen[bytes]) -> None:
    assert former.wait(timeout=DRAIN_S + 10) == 0


@pytest.mark.parametrize("upgrade", [_proxy, _agent, _both], ids=["proxy", "agent", "both"])
def test_upgrade_under_load_refuses_resets_and_cuts_none(
    draining_lab: Lab, loss: Record, upgrade: Callable[[Lab], None]
) -> None:
    done = 0
    with Traffic(draining_lab, (KEPT, FRESH, PAUSING)) as traffic:
        while done < AT_LEAST or traffic.answered() < REQUESTS:
            upgrade(draining_lab)
            traffic.goes_on()
            done += 1
        verdict = traffic.end()
    order = ("proxy", "agent", "both").index(name := upgrade.__name__.removeprefix("_"))
    loss(f"upgrade-{order}-{name}", verdict, note=f"{done} upgrades")
    nothing_failed(verdict, traffic)
    assert verdict.cut == 0
    assert verdict.sent >= REQUESTS
