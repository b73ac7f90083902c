"""A namespace whose lo is down: most often a runtime takes it down, and our DEL comes in a moment. libcni undoes lo
before all else, and the kernel takes the route through it away (addrconf.c: addrconf_ifdown)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from agent.kernel import held
from agent.kernel.held import Expectation, Found, compare
from agent.supervisor import drift_rounds, inside
from agent.supervisor.drift_watch import DriftWatch
from tests.netns.kernel.drift import PLAN, SETTINGS, Watcher, nft, watched_pod, watcher
from tests.netns.kernel.sabotage import RETURN_ROUTE, RETURN_RULE
from tests.netns.kernel.scratch import Scratch

ROUTE6 = f"{RETURN_ROUTE} (IPv6) is missing"
EVER_S = 1e6


@pytest.fixture(scope="module")
def watching() -> Iterator[Watcher]:
    with watcher() as made:
        yield made


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What each comparison saw, told or not."""
    seen: list[tuple[str, ...]] = []

    def recorded(expected: Expectation, *, unchanged: bool = False) -> Found:
        result = compare(expected, unchanged=unchanged)
        seen.append(result.changes)
        return result

    monkeypatch.setattr(held, "compare", recorded)
    return seen


def _seen(found: list[tuple[str, ...]], wanted: tuple[str, ...]) -> None:
    deadline_s = time.monotonic() + 10
    while wanted not in found:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.01)


def _nothing_is_told(watching: Watcher) -> None:
    """Of what was seen until now: the thread has gone on to another pod, and so has who listens to it."""
    with watched_pod(watching, "other"):
        assert watching.told_nothing()


def test_a_pod_that_is_taken_down_has_not_drifted(watching: Watcher, found: list[tuple[str, ...]]) -> None:
    with watched_pod(watching) as pod:
        pod.shell("ip", "link", "set", "lo", "down")
        _seen(found, (ROUTE6,))
        _nothing_is_told(watching)

        def leave(watch: DriftWatch) -> None:
            with watch.ours("uid-1"):
                pod.run(inside.remove, PLAN, SETTINGS)
                watch.forget("uid-1")

        watching.call(leave)
        assert watching.told_nothing()


def test_a_pod_that_takes_lo_down_itself_and_leaves_it_so_is_told_a_second_later_with_who(watching: Watcher) -> None:
    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        pod.shell("ip", "link", "set", "lo", "down")
        drifted = watching.drift(since_s)
        assert drifted.changes == (ROUTE6,)
        assert time.monotonic() - since_s >= drift_rounds._LOOPBACK_S
        assert watching.look_again("uid-1").changes == (ROUTE6,), "it is no news, and need not wait again"
        assert watching.told_nothing()


def test_once_lo_is_up_again_a_route_that_is_missing_is_told(
    watching: Watcher, found: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_rounds, "_LOOPBACK_S", 1.0)
    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        pod.shell("ip", "link", "set", "lo", "down")
        _seen(found, (ROUTE6,))
        pod.shell("ip", "link", "set", "lo", "up")
        assert watching.drift(since_s).changes == (ROUTE6,)


@pytest.mark.parametrize("lost", ["rule of the return path", "rule of the table"])
def test_what_else_is_missing_while_lo_is_down_is_told_at_once(
    watching: Watcher, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_rounds, "_LOOPBACK_S", EVER_S)
    with watched_pod(watching) as pod:
        pod.shell("ip", "link", "set", "lo", "down")
        since_s = time.monotonic()
        wanted = _lose(pod, lost)
        assert wanted in watching.drift(since_s).changes


def _lose(pod: Scratch, lost: str) -> str:
    if lost == "rule of the table":
        nft(pod, "flush chain inet headgate mangle-output")
        return "chain mangle-output is empty: its 2 rules are missing"
    pod.shell("ip", "-4", "rule", "del", "preference", "32764")
    return f"{RETURN_RULE} (IPv4) is missing"


def test_a_second_teardown_of_the_same_pod_may_take_as_long(
    watching: Watcher, found: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B48: the first sandbox' time is not the second's."""
    with watched_pod(watching) as pod:
        pod.shell("ip", "link", "set", "lo", "down")
        _seen(found, (ROUTE6,))
        pod.run(inside.install, PLAN, SETTINGS)
        watching.seen_well()
        monkeypatch.setattr(drift_rounds, "_LOOPBACK_S", EVER_S)
        found.clear()
        pod.shell("ip", "link", "set", "lo", "down")
        _seen(found, (ROUTE6,))
        _nothing_is_told(watching)
