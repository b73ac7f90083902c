"""A worker takes policy in pieces: never longer than a moment, in order, and nothing of it counts before the switch."""

import gc
import pickle
from collections.abc import Callable

from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import Workload
from proxy.policy.refs import NOTHING, RefTable
from proxy.policy_intake import LARGE_DELTA, PAUSE_AFTER_S, PolicyIntake
from proxy.supervisor.policy_feed import delta_from
from proxy.workerlink import PolicySlice, PolicySwitch


class Loop:
    """Turns of a loop, and a clock that only looking at it moves on: by a slice's time."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], None]] = []
        self.now_s = 0.0
        self.slice_s = PAUSE_AFTER_S / 10
        self.in_force: list[tuple[PolicySnapshot, bool]] = []
        self.intake = PolicyIntake(lambda policy, pods: self.in_force.append((policy, pods)), self.later, self.clock)

    def later(self, step: Callable[[], None]) -> None:
        self.steps.append(step)

    def clock(self) -> float:
        self.now_s += self.slice_s
        return self.now_s

    def turn(self) -> bool:
        steps, self.steps = self.steps, []
        for step in steps:
            step()
        return bool(steps)


def names_of(number: int) -> RefTable:
    pods = {("ns", f"p{n}"): Workload("ns", f"p{n}", "p", "d", "p", "v1", "p", "v1", (), ()) for n in range(number)}
    names = RefTable()
    names.advance(PolicySnapshot(1, {}, {}, pods, {}, ()))
    return names


def test_nothing_is_in_force_before_the_switch_and_everything_after() -> None:
    loop, names = Loop(), names_of(10)
    *slices, switch = delta_from(NOTHING, names, True)
    for message in slices:
        loop.intake.take(message)
    while loop.turn():
        pass
    assert loop.in_force == []
    loop.intake.take(switch)
    assert loop.in_force == [], "not in the middle of somebody's turn"
    loop.turn()
    assert loop.in_force == [(names.newest, True)]


def test_work_ends_with_the_slice_that_was_under_way_when_its_time_was_over() -> None:
    loop, names = Loop(), names_of(20_000)
    messages = delta_from(NOTHING, names)
    assert len(messages) > 100
    for message in messages:
        loop.intake.take(message)
    worked: list[float] = []
    while True:
        before_s = loop.now_s
        if not loop.turn():
            break
        worked.append(loop.now_s - before_s)
        assert len(loop.steps) <= 1, "one step waits at a time"
    assert len(worked) > 5
    assert max(worked) <= PAUSE_AFTER_S + 2 * loop.slice_s
    assert loop.in_force[0][0] == names.newest


def test_slow_slices_take_a_turn_each() -> None:
    loop, names = Loop(), names_of(3000)
    loop.slice_s = 2 * PAUSE_AFTER_S
    messages = delta_from(NOTHING, names)
    for message in messages:
        loop.intake.take(message)
    turns = 0
    while loop.turn():
        turns += 1
    assert turns == len(messages)


def test_the_collector_rests_while_much_comes_in_and_only_then() -> None:
    loop = Loop()
    assert gc.isenabled()
    try:
        few = [PolicySlice(pickle.dumps(()))] * LARGE_DELTA
        for message in few:
            loop.intake.take(message)
        loop.turn()
        assert gc.isenabled()
        for message in (*few, *few):
            loop.intake.take(message)
        loop.turn()
        assert not gc.isenabled()
        loop.intake.take(PolicySwitch(1))
        while loop.turn():
            pass
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
