"""agent.supervisor.probes: the node's set follows the pods' lives, is put right, and what is found is told once."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import pytest

from agent.events import Events
from agent.kernel.node_rules import Held
from agent.kernel.refused import KernelRefused
from agent.metrics import AgentMetrics
from agent.plan.node_rules import Pods, wanted_pods
from agent.pods import IPAddress
from agent.pods.probe_path import PathStatus, ProbePath
from agent.reconcile import Life
from agent.reconcile.life import Left
from agent.supervisor import probes
from agent.supervisor.probes import NodeProbes
from agent.supervisor.reports import PodReports, ProbeFacts
from agent.supervisor.views import pod_view
from tests.unit.agent.lives import ADDRESS, POD, SEEN, enrolled, told

LIFE = enrolled().life
OPEN = ProbePath(ADDRESS, PathStatus.OPEN)
SHUT = ProbePath(ADDRESS, PathStatus.SHUT, "dropped", "let it in")


@dataclass
class FakeTable:
    """Stands for agent.supervisor.node_table.NodeTable."""

    pods: dict[IPAddress, str] = field(default_factory=dict)
    whole: bool = True
    refuses: str = ""
    rounds: int = 0

    async def put_right(self, steered: Pods, settling: frozenset[str]) -> tuple[Held, Pods]:
        self.rounds += 1
        if self.refuses:
            raise KernelRefused("nft transaction", self.refuses, "retry")
        held = Held(True, self.whole, dict(self.pods))
        self.pods, self.whole = wanted_pods(self.pods, steered, settling), True
        return held, self.pods

    async def remove(self) -> bool:
        self.pods = {}
        return True


class Scene:
    def __init__(self, **table: Any) -> None:
        self.now_s = 100.0
        self.table = FakeTable(**table)
        self.own = frozenset({ADDRESS})
        self.paths: tuple[ProbePath, ...] = (OPEN,)
        self.tries: list[str] = []
        self.events = Events(lambda: self.now_s)
        self.reports = PodReports(AgentMetrics(), self.events, lambda: self.now_s)
        self.probes = NodeProbes(self.table, self._own, self._try, self.reports, lambda: self.now_s)

    async def _own(self, life: Life) -> frozenset[IPAddress]:
        return self.own

    async def _try(self, life: Life, addresses: tuple[IPAddress, ...]) -> tuple[ProbePath, ...]:
        assert addresses == (ADDRESS,)
        self.tries.append(str(life.pod))
        return self.paths

    def reasons(self) -> list[str]:
        return [event.reason.value for event in self.events.all()]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(probes, "GATHER_S", 0.0)
    monkeypatch.setattr(probes, "IDLE_S", 0.001)


def running(scene: Scene, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def both() -> None:
        work = asyncio.create_task(scene.probes.run())
        try:
            await story()
            assert not work.done()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    asyncio.run(both())


def test_a_steered_pod_is_in_the_set_until_it_leaves() -> None:
    scene = Scene()

    async def story() -> None:
        scene.probes.told(told().life)
        await scene.until(lambda: scene.table.rounds > 2)
        assert scene.table.pods == {}
        scene.probes.told(LIFE)
        await scene.until(lambda: scene.table.pods == {ADDRESS: "u-1"})
        scene.probes.gone(LIFE, replaced=False)
        await scene.until(lambda: scene.table.pods == {})

    running(scene, story)


def test_b52_the_next_pod_with_the_address_keeps_it_when_the_former_one_is_told_of_late() -> None:
    scene = Scene()
    other = enrolled(
        replace(SEEN, pod=replace(POD, uid="u-2", name="next"), netns_id=replace(SEEN.netns_id, inode=101))
    )

    async def story() -> None:
        scene.probes.told(LIFE)
        scene.probes.told(other.life)
        await scene.until(lambda: scene.table.pods == {ADDRESS: "u-2"})
        scene.probes.told(enrolled().hears(Left()).life)
        scene.probes.gone(LIFE, replaced=False)
        rounds = scene.table.rounds
        await scene.until(lambda: scene.table.rounds > rounds + 2)
        assert scene.table.pods == {ADDRESS: "u-2"}

    running(scene, story)


def test_an_address_that_is_not_in_the_pods_namespace_gets_no_entry_until_it_is_there() -> None:
    """A Pod object may name the API server's address: what kubelet sends there must keep its own."""
    scene = Scene()
    other = ip_address("10.96.0.1")
    both = replace(LIFE, pod=replace(LIFE.pod, addresses=(ADDRESS, other)))

    async def story() -> None:
        scene.probes.told(both)
        await scene.until(lambda: scene.table.pods == {ADDRESS: "u-1"})
        rounds = scene.table.rounds
        await scene.until(lambda: scene.table.rounds > rounds + 2)
        assert scene.table.pods == {ADDRESS: "u-1"}
        scene.own |= {other}
        await scene.until(lambda: scene.table.pods == {ADDRESS: "u-1", other: "u-1"})

    running(scene, story)


def test_an_agent_that_begins_takes_nothing_away_from_a_pod_that_it_has_not_looked_at() -> None:
    scene = Scene(pods={ADDRESS: "u-1", ip_address("10.0.0.9"): "long-gone"})

    async def story() -> None:
        scene.probes.told(told().life)
        await scene.until(lambda: scene.table.rounds > 2)
        assert scene.table.pods == {ADDRESS: "u-1"}

    running(scene, story)


def test_rules_that_cannot_be_had_are_a_problem_that_is_told_and_goes_by_itself() -> None:
    scene = Scene(refuses="Operation not supported")

    async def story() -> None:
        scene.probes.told(LIFE)
        await scene.until(lambda: "Operation not supported" in scene.probes.problem)
        scene.table.refuses = ""
        await scene.until(lambda: scene.probes.problem == "")
        assert scene.table.pods == {ADDRESS: "u-1"}

    running(scene, story)


def test_what_was_changed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(whole=False)

    async def story() -> None:
        await scene.until(lambda: scene.table.rounds > 2)
        assert caplog.messages == [], "the first time there is nothing of ours to be missed"
        scene.table.whole = False
        await scene.until(lambda: scene.table.whole)

    running(scene, story)
    assert caplog.messages == ["the node's rules for probes had been changed; they are in force again"]


def test_the_way_is_tried_a_while_after_the_pod_is_listed_and_then_from_time_to_time() -> None:
    scene = Scene()

    async def story() -> None:
        scene.probes.told(LIFE)
        await scene.until(lambda: scene.reports.of(LIFE).probes == ProbeFacts(listed=True))
        await asyncio.sleep(0.02)
        assert scene.tries == []
        scene.now_s += probes.FIRST_TRY_S
        await scene.until(lambda: scene.reports.of(LIFE).probes == ProbeFacts(True, (OPEN,)))
        scene.now_s += probes.TRY_AGAIN_S
        await asyncio.sleep(0.02)
        assert len(scene.tries) == 1
        scene.now_s += probes.TRY_EVERY_S
        await scene.until(lambda: len(scene.tries) == 2)

    running(scene, story)


def test_a_way_that_is_shut_is_told_once_tried_again_soon_and_told_when_it_opens() -> None:
    scene = Scene()
    scene.paths = (SHUT,)

    async def story() -> None:
        scene.probes.told(LIFE)
        await scene.until(lambda: scene.reports.of(LIFE).probes is not None)
        scene.now_s += probes.FIRST_TRY_S
        await scene.until(lambda: len(scene.tries) == 1)
        scene.now_s += probes.TRY_AGAIN_S
        await scene.until(lambda: len(scene.tries) == 2)
        assert scene.reasons() == ["ProbesBlocked"]
        scene.paths = (OPEN,)
        scene.now_s += probes.TRY_AGAIN_S
        await scene.until(lambda: len(scene.reasons()) == 2)

    running(scene, story)
    assert sorted(scene.reasons()) == ["ProbesBlocked", "ProbesPass"]
    blocked = next(event for event in scene.events.all() if event.reason.value == "ProbesBlocked")
    assert blocked.message == "kubelet's probes fail: dropped; let it in"
    assert blocked.count == 1


def test_what_is_known_is_shown_with_the_pod() -> None:
    scene = Scene()
    assert pod_view(LIFE, scene.reports.of(LIFE))["probes"] is None
    scene.reports.probed(LIFE, ProbeFacts(True, (SHUT,)))
    assert pod_view(LIFE, scene.reports.of(LIFE))["probes"] == {
        "listed": True,
        "paths": [
            {"address": str(ADDRESS), "status": "shut", "fails": True, "reason": "dropped", "remedy": "let it in"}
        ],
    }


def test_a_pod_that_goes_while_its_way_is_tried_leaves_nothing_behind() -> None:
    scene = Scene()

    async def story() -> None:
        scene.probes.told(LIFE)
        await scene.until(lambda: scene.reports.of(LIFE).probes is not None)

        async def goes(life: Life, addresses: tuple[IPAddress, ...]) -> tuple[ProbePath, ...]:
            scene.probes.gone(life, replaced=False)
            scene.reports.forget(life)
            scene.tries.append("")
            return (SHUT,)

        scene.probes._try_ways = goes
        scene.now_s += probes.FIRST_TRY_S
        await scene.until(lambda: scene.tries == [""])
        await asyncio.sleep(0.01)

    running(scene, story)
    assert scene.reports.of(LIFE).probes is None
    assert scene.reasons() == []
