"""Found in time by either way alone: by hearing without looking, and by looking when nothing, or not all, is heard.

Apart from the other drift tests: what is changed here is changed for every watch of the process.
"""

from __future__ import annotations

import time

import pytest

from agent.kernel.hearing import UNSEEN, Heard, Hearing
from agent.supervisor import drift_rounds
from tests.netns.kernel.drift import watched_pod, watcher
from tests.netns.kernel.sabotage import CASES, stated


@pytest.mark.parametrize("case", ["one-rule", "order", "everything", "rule4", "rule6", "route4", "route6", "lo"])
def test_b43_it_is_found_in_time_also_when_nothing_is_heard(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(drift_rounds, "_hearing", lambda table: None)
    sabotage, wanted = CASES[case]
    with watcher() as deaf, watched_pod(deaf) as pod:
        since_s = time.monotonic()
        sabotage(pod)
        drifted = deaf.drift(since_s)
        assert (drifted.changes, drifted.by) == (stated(wanted), UNSEEN)


@pytest.mark.parametrize("case", ["one-rule", "rule4", "rule6", "route4", "route6", "lo"])
def test_what_is_heard_needs_no_round(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(drift_rounds, "_ROUND_S", 1e6)
    sabotage, wanted = CASES[case]
    with watcher() as never_looking, watched_pod(never_looking) as pod:
        since_s = time.monotonic()
        sabotage(pod)
        assert never_looking.drift(since_s).changes == stated(wanted)


def test_when_messages_are_lost_the_return_path_is_looked_at_in_time() -> None:
    """It is not asked for in each round otherwise; something must happen for a loss to be noticed, as in a real one."""
    understood = Hearing.read

    def deafened(hearing: Hearing) -> tuple[list[Heard], bool]:
        understood(hearing)
        return [], True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift_rounds, "_ROUTED_EVERY", 1 << 30)
        patch.setattr(Hearing, "read", deafened)
        with watcher() as watching, watched_pod(watching) as pod:
            since_s = time.monotonic()
            pod.shell("ip", "rule", "del", "preference", "32764")
            drifted = watching.drift(since_s)
            assert drifted.changes == ("ip rule 32764 (fwmark 0x111/0xfff lookup 100) (IPv4) is missing",)
            assert drifted.by == UNSEEN
