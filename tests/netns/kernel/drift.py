"""A pod whose namespace is watched by the product's own watch; and what the watch says of it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.plan import PlanSettings, RedirectPlan, build_plan
from agent.plan.drift import Form
from agent.pods import NetnsId, PodRef
from agent.reconcile.life import Drifted
from agent.supervisor import drift_rounds, inside
from agent.supervisor.drift_ledger import Finding
from agent.supervisor.drift_rounds import DriftRounds
from agent.supervisor.drift_watch import DriftWatch, Ended, Looking, Tell
from tests.netns.kernel.scratch import Scratch

SETTINGS = PlanSettings()
PLAN = build_plan(PodRef("uid-1", "default", "a"), SETTINGS)
FOUND_WITHIN_S = 2.0  # DESIGN 5


class Watcher:
    """`looks`: every comparison; `drifts`: time on the monotonic clock, uid, what was told; `foreign`: likewise."""

    def __init__(self) -> None:
        self.looks: queue.Queue[Finding] = queue.Queue()
        self.drifts: queue.Queue[tuple[float, str, Drifted]] = queue.Queue()
        self.foreign: queue.Queue[tuple[str, tuple[str, ...]]] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)
        self._watch = DriftWatch(SETTINGS, self._drifted, lambda *told: self.foreign.put(told), self._recording)

    def _recording(self, settings: PlanSettings, tell: Tell, ended: Ended) -> Looking:
        def record(finding: Finding) -> None:
            self.looks.put(finding)
            tell(finding)

        return DriftRounds(settings, record, ended)

    def _drifted(self, uid: str, drifted: Drifted) -> None:
        self.drifts.put((time.monotonic(), uid, drifted))

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._watch.run())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._watch.close()

    def call(self, fn: Callable[[DriftWatch], None]) -> None:
        """On the event loop's thread."""
        done = threading.Event()

        def run() -> None:
            try:
                fn(self._watch)
            finally:
                done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    # ── What tests say ─────────────────────────────────────────────────────────────────────────────────────────────
    def watch(
        self, uid: str, path: str, identity: NetnsId, plan: RedirectPlan = PLAN, form: Form = Form.STEERING
    ) -> None:
        """And wait for the first look."""
        self.call(lambda watch: watch.watch(uid, path, identity, plan, form))
        self.look_again(uid)

    def look(self, uid: str) -> Finding:
        """The next look at the pod."""
        while True:
            finding = self.looks.get(timeout=10)
            if finding.uid == uid:
                return finding

    def look_again(self, uid: str) -> Finding:
        """A look that begins after this call."""
        known: list[int] = []

        def ask(watch: DriftWatch) -> None:
            with watch.ours(uid):
                known.append(watch._ledger._epochs)

        self.call(ask)
        while True:
            finding = self.look(uid)
            if finding.epoch > known[0]:
                return finding

    def seen_well(self, uid: str = "uid-1") -> None:
        """The plan is in force for whoever looks now."""
        assert self.look_again(uid).changes == ()

    def drift(self, since_s: float) -> Drifted:
        """The next that is told; it must be found within the promised time."""
        told_s, _, drifted = self.drifts.get(timeout=10)
        assert told_s - since_s <= FOUND_WITHIN_S
        return drifted

    def told_nothing(self) -> bool:
        return self.drifts.empty()


@contextlib.contextmanager
def watcher() -> Iterator[Watcher]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift_rounds, "_SETTLE_S", 0.0)  # tests ask for looks by it
        made = Watcher()
        made.start()
        try:
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def watched_pod(watching: Watcher, uid: str = "uid-1") -> Iterator[Scratch]:
    """With the plan in force."""
    with Scratch() as pod:
        pod.run(inside.install, PLAN, SETTINGS)
        watching.watch(uid, pod.path, pod.identity)
        try:
            yield pod
        finally:
            watching.call(lambda watch: watch.forget(uid))


def nft(pod: Scratch, *commands: str) -> None:
    """As an operator's own nft does, one transaction."""
    pod.shell("nft", "; ".join(commands))


def handle(pod: Scratch, table: str, chain: str, rule_id: str) -> int:
    """The handle that nft shows for a rule of ours."""
    listing = pod.shell("nft", "-a", "list", "chain", "inet", table, chain)
    found = re.search(rf'comment "headgate:{re.escape(rule_id)}" # handle (\d+)', listing)
    assert found is not None, listing
    return int(found[1])
