"""agent.supervisor.effects: a proof is not taken while nobody would answer it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, cast

import pytest

from agent.events import Events
from agent.handoff.fds import FdStore
from agent.handoff.objects import ObjectsServer
from agent.handoff.serving import Serving
from agent.handoff.zds import ZdsServer
from agent.kernel.netns import NetnsThreads
from agent.metrics import AgentMetrics
from agent.plan import OnUnsteered, PlanSettings
from agent.reconcile import Event, Life
from agent.reconcile.life import ProofsTaken
from agent.supervisor import effects as module
from agent.supervisor.drift_watch import DriftWatch
from agent.supervisor.effects import PROVERS, Effects
from agent.supervisor.reports import PodReports
from tests.unit.agent.lives import enrolled

BOUND_S = 5.0


class Objects:
    """What objects.sock tells of one proxy that has no policy yet."""

    reports = None

    def __init__(self) -> None:
        self.connected = True
        self.serving = Serving()
        self.serving.came("proxy")
        self.serving.heard("proxy", False)

    def serves(self) -> None:
        self.serving.heard("proxy", True)

    def ends(self) -> None:
        self.connected = False
        self.serving.gone("proxy")


class Scene:
    """Proofs are counted, and fail for a reason of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        self.objects = Objects()
        monkeypatch.setattr(module, "_open", lambda life: nullcontext())
        monkeypatch.setattr(module.probe, "prove_beside", self._prove_beside)

    async def _prove_beside(self, *_: Any, **__: Any) -> Any:
        self.taken += 1
        raise OSError("as it was found")

    def play(self, story: Callable[[Effects], Awaitable[None]]) -> None:
        async def run() -> None:
            threads, metrics = NetnsThreads(), AgentMetrics()
            settings = PlanSettings()
            effects = Effects(
                settings, OnUnsteered.REPORT, threads, ZdsServer(lambda: ()), cast(ObjectsServer, self.objects),
                metrics, FdStore(1.0, lambda _: True, lambda _: None),
                DriftWatch(settings, lambda *_: None, lambda *_: None), PodReports(metrics, Events(lambda: 0.0)),
            )  # fmt: skip
            try:
                await asyncio.wait_for(cast(Any, story(effects)), BOUND_S)
            finally:
                effects.close()
                threads.close()

        asyncio.run(run())


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def life() -> Life:
    return enrolled().life


def said(event: Event) -> str:
    assert isinstance(event, ProofsTaken)
    return event.proofs.out4.reason


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_all_wait_for_the_policy_and_go_on_as_soon_as_it_is_there(scene: Scene) -> None:
    async def story(effects: Effects) -> None:
        proofs = [asyncio.create_task(effects.prove(life())) for _ in range(3 * PROVERS)]
        await turns()
        assert effects.proofs_wait and scene.taken == 0
        scene.objects.serves()
        assert not effects.proofs_wait
        assert {said(event) for event in await asyncio.gather(*proofs)} == {
            "the proof could not be taken: as it was found"
        }
        assert scene.taken == 3 * PROVERS

    scene.play(story)


def test_a_wait_that_is_cancelled_leaves_nothing_behind(scene: Scene) -> None:
    """The pod's rules change meanwhile; as many as there are provers."""

    async def story(effects: Effects) -> None:
        waiting = [asyncio.create_task(effects.prove(life())) for _ in range(PROVERS)]
        await turns()
        for task in waiting:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        scene.objects.serves()
        await effects.prove(life())
        assert scene.taken == 1

    scene.play(story)


def test_after_a_minute_it_is_taken_and_says_what_it_finds(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLICY_WAIT_S", 0.0)

    async def story(effects: Effects) -> None:
        assert said(await effects.prove(life())).endswith("as it was found")
        assert effects.proofs_wait

    scene.play(story)


def test_a_proxy_that_ends_before_it_had_its_policy_proves_nothing(scene: Scene) -> None:
    """Its listeners are kept: by conntrack alone a connection that waits in their queue would do for a proof."""

    async def story(effects: Effects) -> None:
        proof = asyncio.create_task(effects.prove(life()))
        await turns()
        scene.objects.ends()
        assert said(await proof).endswith("the proxy went before it had its policy")
        assert scene.taken == 0

    scene.play(story)


def test_with_a_proxy_that_serves_nothing_is_waited_for(scene: Scene) -> None:
    async def story(effects: Effects) -> None:
        scene.objects.serves()
        await effects.prove(life())
        assert scene.taken == 1

    scene.play(story)
