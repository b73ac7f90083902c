"""How long the drift watch sleeps: a pod that has always been due once ended the thread."""

import math

import pytest

from agent.supervisor.drift_rounds import wait_ms


@pytest.mark.parametrize(("wait_s", "expected"), [(0.0005, 1), (1.5, 1500), (0.0, 0), (-3.0, 0), (-math.inf, 0)])
def test_waits_whole_milliseconds_and_never_for_what_is_due(wait_s: float, expected: int) -> None:
    assert wait_ms(wait_s) == expected


def test_waits_for_ever_when_nothing_will_be_due() -> None:
    assert wait_ms(math.inf) is None
