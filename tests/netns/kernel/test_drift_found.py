"""B42, B43: every way in which a namespace can cease to hold its plan is found within two seconds, described rightly,
and laid to whoever did it; what is the pod's own business is not called drift."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.netns.kernel.deceit import replace_two_rules_by_one
from tests.netns.kernel.drift import Watcher, nft, watched_pod, watcher
from tests.netns.kernel.sabotage import CASES, V6_HALF, stated


@pytest.fixture(scope="module")
def watching() -> Iterator[Watcher]:
    with watcher() as made:
        yield made


@pytest.mark.parametrize("case", CASES)
def test_b43_what_is_sabotaged_is_found_and_described(watching: Watcher, case: str) -> None:
    sabotage, wanted = CASES[case]
    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        sabotage(pod)
        drifted = watching.drift(since_s)
        assert drifted.changes == stated(wanted)
        assert all(change.isprintable() for change in drifted.changes)
        assert ("(pid " in drifted.by) is (case != "lo")  # the routes of a link that goes down are the kernel's doing
        assert watching.told_nothing()


def test_b43_the_v6_half_of_the_return_path_is_called_so(watching: Watcher) -> None:
    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        pod.shell("sh", "-c", "ip -6 rule del preference 32764; ip -6 route flush table 100")
        changes = watching.drift(since_s).changes
        if changes != V6_HALF:  # looked at between the two
            changes = watching.drift(time.monotonic()).changes
        assert changes == V6_HALF


def test_a_process_that_lives_is_named_with_its_pid(watching: Watcher) -> None:
    """nft's name comes with the message; for a route's the process is looked up, while it is there."""
    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        pid = pod.shell("sh", "-c", "echo $$; exec nft delete table inet headgate").strip()
        assert watching.drift(since_s).by == f"nft (pid {pid})"


def test_b42_rules_of_the_users_own_are_no_drift(watching: Watcher) -> None:
    with watched_pod(watching) as pod:
        for command in (
            "add table inet mine",
            "add chain inet mine output { type filter hook output priority 0; }",
            "insert rule inet mine output counter accept",
            "add table ip headgate",  # the same name in another family is another table
        ):
            nft(pod, command)
            watching.seen_well()
        pod.shell("ip", "rule", "add", "preference", "99", "fwmark", "0x1", "lookup", "7")
        watching.seen_well()
        pod.shell("ip", "route", "add", "192.0.2.0/24", "dev", "lo", "table", "100")
        watching.seen_well()
        assert watching.told_nothing()


def test_counters_and_grandfathered_connections_are_no_drift(watching: Watcher) -> None:
    with watched_pod(watching) as pod:
        nft(pod, "add element inet headgate grandfathered4 { 10.0.0.5 . 4000 . 10.0.0.9 . 80 }")
        watching.seen_well()
        before = pod.shell("nft", "list", "table", "inet", "headgate")
        pod.run(_knock)
        assert pod.shell("nft", "list", "table", "inet", "headgate") != before
        watching.seen_well()
        assert watching.told_nothing()


def _knock() -> None:
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", 9))


def test_b42_foreign_chains_that_come_first_are_listed_and_left(watching: Watcher) -> None:
    while not watching.foreign.empty():
        watching.foreign.get_nowait()
    with watched_pod(watching) as pod:
        nft(
            pod,
            "add table ip istio",
            "add chain ip istio OUTPUT { type nat hook output priority -101; }",
            "add chain ip istio late { type nat hook output priority -99; }",
            "add chain ip istio POSTROUTING { type nat hook postrouting priority -100; }",
        )
        chain = "table ip istio: chain OUTPUT (nat hook output, priority -101)"
        assert watching.foreign.get(timeout=10) == ("uid-1", (chain,))
        nft(pod, "delete table ip istio")
        assert watching.foreign.get(timeout=10) == ("uid-1", ())
        assert watching.told_nothing()


def test_a_comment_that_poses_as_another_rule_is_seen_through(watching: Watcher) -> None:
    """A listing that is equal to the letter: two rules replaced by one, whose comment reads like the second."""

    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        before = pod.shell("nft", "-s", "list", "table", "inet", "headgate-anchor")
        (second,) = (line.strip() for line in before.splitlines() if "return-mark-restore" in line)
        pod.run(replace_two_rules_by_one, second)
        assert pod.shell("nft", "-s", "list", "table", "inet", "headgate-anchor") == before
        changes = watching.drift(since_s).changes
        assert changes == ("the tables only look as planned: a comment or a name poses as what is missing",)
