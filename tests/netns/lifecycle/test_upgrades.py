"""Both DaemonSets rolled out anew, alone and together, again and again, under load and while pods start: no request is
refused, reset or cut, and every pod that starts meanwhile is steered (B50, B51)."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Final

import pytest

from agent.lab.load import Ends, Shape
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import FRESH, KEPT, PATIENCE_S, PAUSING, Kind, Traffic
from tests.netns.life import kernel
from tests.netns.lifecycle import web
from tests.netns.lifecycle.node import Node, Started

REQUESTS: Final = int(os.environ.get("HEADGATE_FAULT_REQUESTS", "0"))
COUNTED: Final = REQUESTS > 0
"""For docs/reliability.md: as much as the machine bears, and ten rollouts in a row. Else a steady and slower load, for
most of the time is the daemons' own start."""
ARRIVING: Final = Kind(100, Shape(Ends.CLIENT, per_s=100, timeout_s=PATIENCE_S))
LOADS: Final = (KEPT, FRESH, PAUSING) if COUNTED else (ARRIVING, PAUSING)
APART_S: Final = 2.0
"""Between the two at most, where both are rolled out: what either of them takes."""


def _proxy(node: Node, _: random.Random) -> None:
    node.replace_proxy()


def _agent(node: Node, _: random.Random) -> None:
    node.replace_agent()


def _both(node: Node, chance: random.Random) -> None:
    """As two controllers do that know nothing of each other."""
    rollouts = [node.replace_proxy, node.replace_agent]
    chance.shuffle(rollouts)
    first = threading.Thread(target=rollouts[0])
    first.start()
    time.sleep(chance.uniform(0, APART_S))  # the moments are what is tested
    rollouts[1]()
    first.join()


@pytest.mark.timeout(1800 if COUNTED else 120)
@pytest.mark.parametrize("rollout", [_proxy, _agent, _both], ids=["proxy", "agent", "both"])
def test_b50_b51_rolled_out_under_load_while_pods_start_nothing_is_refused_reset_or_cut(
    steered: Node, loss: Record, rollout: Callable[[Node, random.Random], None]
) -> None:
    there = web.serve(steered)
    begun: list[Started] = []
    with Traffic(steered.lab, LOADS, pod=there.client, seconds=1700) as traffic:
        done = 0
        while done < (10 if COUNTED else 1) or traffic.answered() < REQUESTS:
            starting = threading.Thread(target=lambda: begun.append(steered.run(f"new-{len(begun)}", web.sleeper())))
            starting.start()
            rollout(steered, random.Random(done))
            starting.join()
            traffic.goes_on()
            done += 1
        steered.all_ended()
        verdict = traffic.end()
    name = rollout.__name__.removeprefix("_")
    refused = sum(len(one.refused) for one in begun)
    note = f"{done} rollouts; {len(begun)} pods started meanwhile, {refused} attempts had to wait"
    loss(f"node-{('proxy', 'agent', 'both').index(name)}-{name}", verdict, note=note)
    nothing_failed(verdict, traffic)
    assert verdict.cut == 0
    assert len(begun) == done, "a pod failed to start"
    steered.wait_proved(*(one.pod.name for one in begun))
    assert all("headgate" in kernel.rules(steered.netns(one.pod)) for one in begun)
