"""agent.supervisor.worker: one pod's events in order, with a double of the kernel and the proxy (Means)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from agent.pods import NetnsId
from agent.reconcile import Event, Life, LifeSettings, Seen, State
from agent.reconcile.entering import AWAITS_POLICY
from agent.reconcile.life import (
    Acked,
    Announce,
    CountSteered,
    Drain,
    Drained,
    Drifted,
    Heal,
    Healed,
    Inspect,
    Install,
    Installed,
    Left,
    Nacked,
    ProveNow,
    Remove,
    Removed,
    SteeredLeft,
    Stop,
    Withdraw,
    Withdrawn,
)
from agent.supervisor import worker as worker_module
from agent.supervisor.effects import Effect
from agent.supervisor.worker import PodWorker
from tests.unit.agent.lives import DISABLED, FOUND, PROVED, SEEN, UNPROVED

BOUND_S = 5.0
QUICK = LifeSettings(retry_s=0.01, prove_again_s=0.01, drain_poll_s=0.01, drain_s=0.05)


class Obedient:
    """Does nothing and reports success; what a test wants otherwise it puts into `answers`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.running = 0
        self.most_at_once = 0
        self.answers: dict[type, list[Event]] = {}
        self.proofs: list[Event] = []
        self.proofs_wait = False
        self.hold_proof: asyncio.Event | None = None
        self.hold: asyncio.Event | None = None
        self.held: list[str] = []
        self.proofs_cancelled = 0

    async def perform(self, life: Life, effect: Effect) -> Event:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0)  # a chance for a second one to begin
        if self.hold is not None:
            self.held.append(type(effect).__name__)
            await self.hold.wait()
            self.hold = None
        self.running -= 1
        self.done.append(type(effect).__name__)
        waiting = self.answers.get(type(effect))
        return waiting.pop(0) if waiting else _SUCCESS[type(effect)]

    async def prove(self, life: Life) -> Event:
        try:
            if self.hold_proof is not None:
                await self.hold_proof.wait()
        except asyncio.CancelledError:
            self.proofs_cancelled += 1
            raise
        self.done.append("Prove")
        return self.proofs.pop(0) if self.proofs else PROVED


_SUCCESS: dict[type, Event] = {
    Inspect: FOUND,
    Announce: Acked(),
    Install: Installed(),
    Heal: Healed(0, 0),
    Drain: Drained(),
    CountSteered: SteeredLeft(0),
    Remove: Removed(),
    Withdraw: Withdrawn(),
}


class Scene:
    """A worker over a double, and ways to wait for it."""

    def __init__(self, seen: Seen = SEEN) -> None:
        self.means = Obedient()
        self.states: list[str] = []
        self.begun: list[Seen] = []
        self.handed_on: list[tuple[str, Seen | Left]] = []
        self.worker = PodWorker(seen, QUICK, self.means, self._note, self.begun.append, self._hand_on)

    def _hand_on(self, uid: str, event: Seen | Left) -> None:
        self.handed_on.append((uid, event))

    def _note(self, worker: PodWorker, before: Life | None) -> None:
        if not self.states or self.states[-1] != worker.life.state.value:
            self.states.append(worker.life.state.value)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                await asyncio.sleep(0.001)

    async def reaches(self, state: State) -> None:
        await self.until(lambda: self.worker.life.state is state)


def play(story: Callable[[Scene], Awaitable[None]], seen: Seen = SEEN) -> Scene:
    async def run() -> Scene:
        scene = Scene(seen)
        scene.worker.start()
        try:
            await story(scene)
        finally:
            await scene.worker.cancel()
        return scene

    return asyncio.run(run())


def test_a_pod_is_enrolled_step_by_step() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)

    scene = play(story)
    assert scene.means.done == ["Inspect", "Announce", "Install", "Prove"]
    assert scene.states == ["seen", "planned", "announced", "installed", "proved"]


def test_B46_two_changes_of_one_pod_never_overlap() -> None:
    async def story(scene: Scene) -> None:
        for _ in range(5):
            scene.worker.post(DISABLED)
            scene.worker.post(SEEN)
        await scene.until(lambda: scene.means.done.count("Install") == 6 and scene.worker.life.state is State.PROVED)

    scene = play(story)
    assert scene.means.most_at_once == 1
    assert scene.means.done.count("Inspect") == 6


def test_what_happens_meanwhile_waits_for_the_consequences_of_what_happened_before() -> None:
    async def story(scene: Scene) -> None:
        scene.worker.post(Left())
        await scene.reaches(State.GONE)

    scene = play(story)
    assert scene.means.done[:3] == ["Inspect", "Announce", "Install"]
    assert scene.means.done[-4:] == ["Drain", "CountSteered", "Remove", "Withdraw"]


def test_a_nack_is_retried_by_its_timer() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)

    async def run() -> Scene:
        scene = Scene()
        scene.means.answers[Announce] = [Nacked("no"), Nacked("no")]
        scene.worker.start()
        await story(scene)
        await scene.worker.cancel()
        return scene

    assert asyncio.run(run()).means.done.count("Announce") == 3


def test_a_change_of_rules_ends_a_proof_that_is_under_way() -> None:
    async def story(scene: Scene) -> None:
        scene.means.hold_proof = asyncio.Event()
        await scene.reaches(State.INSTALLED)
        await asyncio.sleep(0)
        scene.worker.post(DISABLED)
        await scene.reaches(State.DISABLED)

    scene = play(story)
    assert scene.means.proofs_cancelled == 1 and "Prove" not in scene.means.done


def test_who_asks_for_proofs_gets_those_taken_after_the_question() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)
        scene.means.proofs = [UNPROVED]
        asked = asyncio.ensure_future(scene.worker.proved())
        scene.worker.post(ProveNow())
        life = await asyncio.wait_for(asked, BOUND_S)
        assert life.state is State.INSTALLED and "in4: no report" in life.reason

    play(story)


def test_who_asks_is_answered_when_the_pod_ends_meanwhile() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)
        asked = asyncio.ensure_future(scene.worker.proved())
        await asyncio.sleep(0)
        scene.worker.post(Stop())
        assert (await asyncio.wait_for(asked, BOUND_S)).state is State.GONE

    play(story)


def test_proofs_that_wait_for_the_proxy_are_told_of_and_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "WAIT_TOLD_AFTER_S", 0.0)

    async def story(scene: Scene) -> None:
        scene.means.proofs_wait, scene.means.hold_proof = True, asyncio.Event()
        await scene.until(lambda: scene.worker.life.reason == AWAITS_POLICY)
        assert scene.worker.life.state is State.INSTALLED and scene.means.done[-1] == "Install"
        asked = asyncio.create_task(scene.worker.proved())
        await asyncio.sleep(0)
        scene.worker.post(ProveNow())
        assert (await asyncio.wait_for(asked, BOUND_S)).reason == AWAITS_POLICY
        scene.means.hold_proof.set()
        await scene.reaches(State.PROVED)
        assert scene.worker.life.reason == ""

    scene = play(story)
    assert scene.means.done == ["Inspect", "Announce", "Install", "Prove"]
    assert scene.states == ["seen", "planned", "announced", "installed", "proved"]


def test_a_short_wait_for_the_proxy_changes_no_state() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)
        scene.means.proofs_wait, scene.means.hold_proof = True, asyncio.Event()
        scene.worker.post(ProveNow())
        asked = asyncio.create_task(scene.worker.proved())
        for _ in range(20):
            await asyncio.sleep(0)
        scene.means.proofs_wait = False
        scene.means.hold_proof.set()
        assert (await asyncio.wait_for(asked, BOUND_S)).state is State.PROVED

    assert play(story).states == ["seen", "planned", "announced", "installed", "proved"]


def test_the_drain_is_polled_until_its_time_is_over() -> None:
    async def story(scene: Scene) -> None:
        scene.means.answers[CountSteered] = [SteeredLeft(2)] * 100
        await scene.reaches(State.PROVED)
        scene.worker.post(Left())
        await scene.reaches(State.GONE)

    assert play(story).means.done.count("CountSteered") == 6  # 0.05 s, looked at every 0.01 s, and once at the end


def test_another_namespace_of_the_same_pod_is_handed_on() -> None:
    elsewhere = replace(SEEN, netns_id=NetnsId(4, 200))

    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)
        scene.worker.post(elsewhere)
        await scene.reaches(State.GONE)

    scene = play(story)
    assert scene.begun == [elsewhere] and "Withdraw" not in scene.means.done


def test_drift_is_healed_and_proved_again_and_ends_a_proof_under_way() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)
        scene.means.hold_proof = asyncio.Event()
        scene.worker.post(ProveNow())
        await asyncio.sleep(0)
        scene.worker.post(Drifted(("table inet headgate is gone",), "nft (pid 7)"))
        await scene.until(lambda: scene.means.proofs_cancelled == 1)
        scene.means.hold_proof.set()
        await scene.reaches(State.PROVED)

    scene = play(story)
    assert scene.means.done == ["Inspect", "Announce", "Install", "Prove", "Heal", "Prove"]
    assert scene.states[-3:] == ["drifted", "installed", "proved"]


def test_what_a_source_tells_while_the_last_actions_go_on_is_handed_on() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)
        scene.means.hold = asyncio.Event()
        scene.worker.post(Left())
        await scene.until(lambda: scene.means.held == ["Drain"])
        scene.worker.post(SEEN)
        scene.means.hold.set()
        await scene.until(lambda: scene.handed_on == [("u-1", SEEN)])

    assert play(story).worker.life.state is State.GONE


def test_cancelling_performs_nothing_more() -> None:
    async def story(scene: Scene) -> None:
        await scene.reaches(State.PROVED)

    scene = play(story)
    assert scene.worker.life.state is State.PROVED
    assert "Remove" not in scene.means.done
