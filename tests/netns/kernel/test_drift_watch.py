"""The watch beside the agent's own work: what is ours is no drift, what races it is; nothing is pinned, nobody who
changes rules all the time keeps the agent busy, and what is lost is looked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.kernel import held, iproute, nft, nsid
from agent.kernel.hearing import Hearing, who
from agent.kernel.held import Expectation, Found, compare
from agent.lab import namespaces
from agent.plan import PlanSettings, build_plan
from agent.plan.drift import Form
from agent.plan.render.nft import drain_script, install_script
from agent.pods import NetnsId, PodRef
from agent.supervisor import drift_rounds, inside
from agent.supervisor.drift_watch import DriftWatch
from tests.netns.kernel.drift import PLAN, SETTINGS, Watcher, watched_pod, watcher
from tests.netns.kernel.drift import nft as by_nft
from tests.netns.kernel.scratch import Scratch

OTHER_PLAN = build_plan(PodRef("uid-1", "default", "a"), PlanSettings(outbound_port=15011))


@pytest.fixture(scope="module")
def watching() -> Iterator[Watcher]:
    with watcher() as made:
        yield made


# ── What the agent does itself ─────────────────────────────────────────────────────────────────────────────────────
def test_our_own_changes_are_no_drift(watching: Watcher) -> None:
    with watched_pod(watching) as pod:

        def drain(watch: DriftWatch) -> None:
            with watch.ours("uid-1"):
                pod.run(nft.apply, drain_script(PLAN))
                watch.watch("uid-1", pod.path, pod.identity, PLAN, Form.DRAIN)

        watching.call(drain)
        watching.seen_well()
        assert watching.told_nothing()
        since_s = time.monotonic()
        by_nft(pod, "delete table inet headgate")
        assert watching.drift(since_s).changes == ("table inet headgate is gone",)


def test_a_foreign_change_that_races_ours_is_found(watching: Watcher) -> None:
    with watched_pod(watching) as pod:

        def raced(watch: DriftWatch) -> None:
            with watch.ours("uid-1"):
                pod.run(inside.install, PLAN, SETTINGS)
                by_nft(pod, "flush chain inet headgate nat-output")
                watch.watch("uid-1", pod.path, pod.identity, PLAN)

        since_s = time.monotonic()
        watching.call(raced)
        drifted = watching.drift(since_s)
        assert drifted.changes == ("chain nat-output is empty: its 7 rules are missing",)
        assert drifted.by.startswith("nft (pid ")


def test_a_change_of_ours_that_was_refused_leaves_the_old_expectation(watching: Watcher) -> None:
    with watched_pod(watching) as pod:

        def refused(watch: DriftWatch) -> None:
            with watch.ours("uid-1"), contextlib.suppress(nft.KernelRefused):
                pod.run(nft.apply, "delete table inet headgate\nnonsense\n")

        watching.call(refused)
        watching.seen_well()
        since_s = time.monotonic()
        by_nft(pod, "flush chain inet headgate nat-output")
        assert watching.drift(since_s).changes == ("chain nat-output is empty: its 7 rules are missing",)


def test_a_foreign_change_right_after_ours_need_not_wait_until_ours_has_settled(
    watching: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched_pod(watching) as pod:

        def install(watch: DriftWatch) -> None:
            with watch.ours("uid-1"):
                pod.run(inside.install, PLAN, SETTINGS)
                watch.watch("uid-1", pod.path, pod.identity, PLAN)

        monkeypatch.setattr("agent.supervisor.drift_rounds._SETTLE_S", 60.0)
        watching.call(install)
        since_s = time.monotonic()
        by_nft(pod, "flush chain inet headgate mangle-output")
        assert watching.drift(since_s).changes == ("chain mangle-output is empty: its 2 rules are missing",)


def test_the_same_drift_is_told_once_until_it_is_healed(watching: Watcher) -> None:
    """Also when a heal was tried and refused: it must not be begun anew at once."""
    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        by_nft(pod, "flush chain inet headgate mangle-output")
        watching.drift(since_s)
        assert watching.look_again("uid-1").changes != ()
        by_nft(pod, "add table inet mine")
        assert watching.look_again("uid-1").changes != ()
        assert watching.told_nothing()

        def heal(watch: DriftWatch) -> None:
            with watch.ours("uid-1"):
                pod.run(nft.apply, "delete table inet headgate\ndelete table inet headgate-anchor\n")
                pod.run(inside.install, PLAN, SETTINGS)
                watch.watch("uid-1", pod.path, pod.identity, PLAN)

        watching.call(heal)
        watching.seen_well()
        since_s = time.monotonic()
        by_nft(pod, "flush chain inet headgate mangle-output")
        assert watching.drift(since_s).changes == ("chain mangle-output is empty: its 2 rules are missing",)


def test_another_plan_is_another_expectation(watching: Watcher) -> None:
    with watched_pod(watching) as pod:
        since_s = time.monotonic()
        watching.call(lambda watch: watch.watch("uid-1", pod.path, pod.identity, OTHER_PLAN))
        changes = watching.drift(since_s).changes
        assert any(change.startswith("rule out-capture is changed: ") for change in changes), changes


def test_a_pod_that_is_forgotten_or_was_never_known_is_left_alone(watching: Watcher) -> None:
    with watched_pod(watching, "other") as other, Scratch() as pod:
        pod.run(inside.install, PLAN, SETTINGS)
        watching.watch("uid-1", pod.path, pod.identity)
        watching.call(lambda watch: watch.forget("uid-1"))
        by_nft(pod, "flush ruleset")

        def unknown(watch: DriftWatch) -> None:
            watch.forget("nobody")
            with watch.ours("nobody"):
                pass

        watching.call(unknown)
        since_s = time.monotonic()
        by_nft(other, "flush ruleset")
        told_s, uid, _ = watching.drifts.get(timeout=10)
        assert uid == "other" and told_s - since_s < 2


def test_a_namespace_that_was_replaced_is_no_drift(watching: Watcher) -> None:
    """The name leads to another namespace, which holds nothing: the source's to tell, not this module's."""
    with watched_pod(watching, "other") as other, Scratch() as former, Scratch() as now:
        former.run(inside.install, PLAN, SETTINGS)
        watching.call(lambda watch: watch.watch("uid-1", now.path, former.identity, PLAN))
        since_s = time.monotonic()
        by_nft(other, "flush ruleset")
        _, uid, _ = watching.drifts.get(timeout=10)
        assert uid == "other" and time.monotonic() - since_s < 2
        watching.call(lambda watch: watch.forget("uid-1"))


def test_a_pod_with_tables_of_its_own_costs_no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """libnftables takes three times what reading the messages does; foreign tables make them no drift."""

    def refused(name: str) -> str:
        raise AssertionError(f"table {name} was listed")

    expected = held.expectation(PLAN, Form.STEERING)
    monkeypatch.setattr(nft, "list_table", refused)
    with Scratch() as pod:
        pod.run(nft.apply, install_script(PLAN, (), replace=False))
        pod.run(iproute.ensure_return_path, PLAN.return_path)
        pod.run(
            nft.apply, "table inet mine {\n set s { type ipv4_addr; }\n chain c { tcp dport { 1, 2 } accept\n}\n}\n"
        )
        pod.run(nft.apply, "table ip nat {\n chain OUTPUT { type nat hook output priority -100; }\n}\n")
        chains = ("table ip nat: chain OUTPUT (nat hook output, priority -100)",)
        assert pod.run(held.compare, expected) == held.Found((), chains)
        assert pod.run(held.compare, expected, unchanged=True) == held.Found((), chains)


# ── Nothing is held ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_watched_namespace_that_is_deleted_lets_its_veth_go_within_two_seconds(watching: Watcher) -> None:
    node, pod = (namespaces.create(f"hg-drift{os.getpid()}-{name}") for name in ("node", "pod"))
    try:
        link = ["ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", pod.name]
        node.run(link)
        pod.call(inside.install, PLAN, SETTINGS)
        watching.watch("uid-1", str(pod.path), NetnsId(*pod.identity))
        namespaces.delete(pod)
        _until(lambda: "veth0" not in node.run(["ip", "link"]).stdout, within_s=2)
        assert watching.told_nothing()
    finally:
        watching.call(lambda watch: watch.forget("uid-1"))
        namespaces.delete(node)
        namespaces.delete(pod)


def _until(condition: Callable[[], bool], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_after_the_looks_no_descriptor_is_left() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with watcher() as watching, watched_pod(watching):
        watching.seen_well()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ── Storms and losses ──────────────────────────────────────────────────────────────────────────────────────────────
def test_somebody_who_replaces_rules_all_the_time_does_not_busy_the_agent(
    watching: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def counted(expected: Expectation, *, unchanged: bool) -> Found:
        looks.append(time.monotonic())
        return compare(expected, unchanged=unchanged)

    monkeypatch.setattr("agent.kernel.held.compare", counted)
    with watched_pod(watching) as pod, watched_pod(watching, "other") as other:
        looks.clear()
        stopping = threading.Event()
        changes = 0

        def storm() -> None:
            nonlocal changes
            while not stopping.is_set():
                nft.apply("add table inet mine\ndelete table inet mine\n")
                changes += 1

        thread = threading.Thread(target=lambda: pod.run(storm))
        began_s = time.monotonic()
        thread.start()
        try:
            _until(lambda: changes >= 40, within_s=20)
            since_s = time.monotonic()
            by_nft(other, "flush chain inet headgate mangle-output")
            told_s, uid, _ = watching.drifts.get(timeout=10)
            assert uid == "other" and told_s - since_s <= 2
        finally:
            stopping.set()
            thread.join()
        took_s = time.monotonic() - began_s
        assert 2 <= len(looks) <= took_s / 0.05 + 4


def test_when_messages_are_lost_it_says_so() -> None:
    hearing = Hearing(PLAN.return_path.table)
    try:
        with Scratch() as pod:
            nsid.number_of(pod.fd)
            for sock in hearing._sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least
            pod.run(_many_transactions)
            heard, lost = hearing.read()
            assert lost
            assert heard
            by_nft(pod, "add table inet again")
            assert not hearing.read()[1]
    finally:
        hearing.close()


def _many_transactions() -> None:
    for number in range(40):
        nft.apply(f"add table inet t{number}\n")


# ── What is heard ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def hearing() -> Iterator[Hearing]:
    made = Hearing(PLAN.return_path.table)
    yield made
    made.close()


def test_a_namespace_keeps_its_number_and_who_changed_it_is_told(hearing: Hearing) -> None:
    with Scratch() as pod, Scratch() as other:
        number = nsid.number_of(pod.fd)
        assert nsid.number_of(pod.fd) == number != nsid.number_of(other.fd)
        by_nft(pod, "add table inet mine")
        (heard,), lost = hearing.read()
        assert not lost and heard.nsid == number and heard.name == "nft"
        pod.shell("ip", "rule", "add", "preference", "77", "lookup", "77")
        (heard,), lost = hearing.read()
        assert heard.nsid == number and heard.pid > 1 and "(pid " in who(heard, pod.identity)
        pod.run(nft.apply, "add table inet ours\n")
        (heard,), _ = hearing.read()
        assert heard.nsid == number and heard.name


def test_a_crowd_of_foreign_routes_and_rules_is_not_even_heard(hearing: Hearing) -> None:
    """One message a transaction, whatever its size; none for routes of other tables and for addresses."""
    with Scratch() as pod:
        nsid.number_of(pod.fd)
        pod.shell("ip", "link", "set", "lo", "up")
        hearing.read()
        pod.shell("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do ip route add 192.0.2.$i dev lo; done")
        pod.shell("ip", "addr", "add", "10.98.0.1/24", "dev", "lo")
        assert hearing.read() == ([], False)
        rules = "".join(f" tcp dport {port} accept\n" for port in range(1, 300))
        pod.run(nft.apply, f"table inet big {{\n chain x {{\n{rules}}}\n}}\n")
        heard, lost = hearing.read()
        assert len(heard) == 1 and not lost


def test_a_message_that_a_pod_sends_to_the_group_itself_is_not_believed(hearing: Hearing) -> None:
    with Scratch() as pod:
        nsid.number_of(pod.fd)
        hearing.read()
        pod.run(_forge)
        assert hearing.read() == ([], False)


def _forge() -> None:
    """A NEWGEN, sent to the group by userland: the kernel lets root do so within its own namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock, contextlib.suppress(PermissionError):
        message = (20).to_bytes(4, "little") + (0x0A0F).to_bytes(2, "little") + bytes(14)
        sock.sendto(message, (0, 1 << 6))


def test_the_looking_thread_is_in_the_agents_own_namespace_between_two_looks() -> None:
    before = set(Path("/proc/self/task").iterdir())
    own = Path("/proc/self/ns/net").stat().st_ino
    with watcher() as watching:
        started = set(Path("/proc/self/task").iterdir()) - before
        with watched_pod(watching) as pod:
            assert own != pod.identity.inode
            for _ in range(20):
                watching.seen_well()
                _until(lambda: {(path / "ns/net").stat().st_ino for path in started} == {own}, within_s=1)


def test_a_watch_that_cannot_go_on_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(24, "no descriptor left")

    monkeypatch.setattr(drift_rounds, "Rounds", broken)
    watch = DriftWatch(SETTINGS, lambda *_: None, lambda *_: None)
    try:
        with pytest.raises(OSError, match="no descriptor left"):
            asyncio.run(asyncio.wait_for(watch.run(), 10))
    finally:
        watch.close()
