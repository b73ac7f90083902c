"""In-place upgrade of the proxy, of the agent, and of both at once, again and again, under load: no request is
refused or reset, and none is cut: who ends as asked cuts nothing that ends within its drain time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from agent.lab.node import Lab
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import FRESH, KEPT, PAUSING, Traffic
from tests.netns.workers.conftest import Workers

REQUESTS: Final = int(os.environ.get("HEADGATE_FAULT_REQUESTS", "100000"))
"""Each: as many as issue 3 promises. Fewer end earlier, and not much: the upgrades themselves take the time."""
DRAIN_S: Final = 20.0
"""Of the proxy that ends: longer than the clients' longest pause."""
OPAQUE_PORT: Final = 5432
"""One of the default opaque ports: relayed, so that only a cut ends it."""
RELAYED: Final = 5
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


def test_what_outlives_the_drain_is_cut_and_counted_by_the_successor_and_named_in_the_log() -> None:
    with Lab() as lab, ExitStack() as opened:
        # Outside: of a connection between two pods that are served, either end may be cut by the other's.
        lab.set_label("web-v1", "headgate.io/mesh", "disabled")
        lab.start_proxy("--drain-s", "1")
        lab.start_agent()
        lab.wait_ready()
        lab.wait_proved()
        client, server = lab.pod("client"), lab.pod("web-v1")
        listener = opened.enter_context(server.netns.listen(server.address4, OPAQUE_PORT))
        for _ in range(RELAYED):
            relayed = opened.enter_context(client.netns.connect(server.address4, OPAQUE_PORT))
            relayed.sendall(b"x")
            opened.enter_context(listener.accept()[0])
        _ended(lab.take_over_proxy("--drain-s", "1"))
        lab.wait_ready()
        series = 'headgate_connections_cut_total{namespace="default",pod="client",reason="drain_over"}'
        lab.wait("the count", lambda: Workers(lab).metric(series) == RELAYED)
        log = lab.log("proxy")
        assert (
            f"pod default/client: {RELAYED} connections cut when its drain was over; the oldest, outbound tcp," in log
        )
        assert f"the former proxy has ended; it cut {RELAYED} connections" in log
