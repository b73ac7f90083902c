"""/proc as the bench reads it."""

import os

import pytest

from tests.bench import meter
from tests.bench.meter import TICK_US, Cores, TooFewCores

STAT = """\
cpu  900 0 900 9000 0 0 90 0 0 0
cpu0 10 1 20 4000 5 2 3 4 0 0
cpu1 100 0 200 3000 0 0 50 0 70 0
cpu10 5000 0 0 0 0 0 0 0 0 0
intr 1 2 3
"""


def test_busy_time_is_of_the_two_cores_and_neither_idle_nor_guest() -> None:
    assert meter.busy_us(STAT, Cores(0, 1)) == (10 + 1 + 20 + 2 + 3 + 4 + 100 + 200 + 50) * TICK_US


def test_process_time_survives_a_command_with_brackets_and_spaces() -> None:
    stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 9 0 0 0 7 5 0 0 20 0 1 0 100 0 0\n"
    assert meter.process_us(stat) == 12 * TICK_US


def test_a_process_belongs_to_its_family() -> None:
    assert os.getpid() in meter.family(os.getppid())


def test_one_core_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    with pytest.raises(TooFewCores, match="two cores, it may use 1"):
        meter.two_cores()


def test_the_first_two_cores_allowed_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7, 2, 5})
    assert meter.two_cores() == Cores(load=2, proxy=5)


def test_the_peak_of_memory_is_at_least_what_is_resident() -> None:
    resident = meter.memory_mb(os.getpid())  # first: it may grow between the two readings
    assert meter.memory_mb(os.getpid(), "VmHWM") >= resident > 1
