"""proxy.telemetry.open_counts: what a process wrote is read after its death, and slots are used again at zero."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from proxy.telemetry.open_counts import MAX_SLOTS, NOT_COUNTED, OpenCounts, make_shared

WRITER = """
import os, signal
from proxy.telemetry.open_counts import OpenCounts
OpenCounts({descriptor}).cell({slot})[0] = 17
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def shared() -> Iterator[int]:
    descriptor = make_shared()
    yield descriptor
    os.close(descriptor)


def test_what_a_process_wrote_before_it_was_killed_is_read(shared: int) -> None:
    counts = OpenCounts(shared)
    counts.take()
    slot = counts.take()
    ended = subprocess.run([sys.executable, "-c", WRITER.format(descriptor=shared, slot=slot)], pass_fds=(shared,))
    assert ended.returncode == -signal.SIGKILL
    assert counts.number(slot) == 17


def test_a_slot_that_was_freed_is_used_again_at_zero(shared: int) -> None:
    counts = OpenCounts(shared)
    slot, other = counts.take(), counts.take()
    counts.cell(slot)[0] = 5
    counts.cell(other)[0] = 7
    counts.free(slot)
    assert counts.take() == slot
    assert (counts.number(slot), counts.number(other)) == (0, 7)


def test_what_comes_when_no_slot_is_left_is_served_and_not_counted(shared: int) -> None:
    counts = OpenCounts(shared)
    slots = {counts.take() for _ in range(MAX_SLOTS - 1)}
    assert len(slots) == MAX_SLOTS - 1
    assert NOT_COUNTED not in slots
    assert counts.take() == counts.take() == NOT_COUNTED
    counts.cell(NOT_COUNTED)[0] = 3
    assert counts.number(NOT_COUNTED) == 0
    counts.free(NOT_COUNTED)
    assert counts.take() == NOT_COUNTED
    counts.free(9)
    assert counts.take() == 9
