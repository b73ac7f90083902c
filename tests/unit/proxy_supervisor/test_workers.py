"""proxy.supervisor.workers and waiting: what the kernel says of a process, and pauses that grow."""

import os

from proxy.supervisor.waiting import BackOff
from proxy.supervisor.workers import process_state


def test_a_running_process_is_not_stopped_and_none_has_no_state() -> None:
    assert process_state(os.getpid()) == "R"
    assert process_state(2**22 + 1) == "", "above the kernel's largest pid"


def test_a_pause_doubles_up_to_its_bound_and_starts_over() -> None:
    back_off = BackOff(0.01, 15.0)
    pauses = [back_off.next_s() for _ in range(14)]
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]
    assert pauses[-2:] == [15.0, 15.0]
    back_off.reset()
    assert back_off.next_s() == 0.01
