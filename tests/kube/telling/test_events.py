"""agent.telling.event_teller: Events at the API server, one a pod, reason and minute, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.events import Events, EventType, Reason
from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.pods import PodRef
from agent.telling.event_objects import event_object
from agent.telling.event_teller import EventTeller
from tests.kube.beside import serves_all
from tests.kube.heard import Naps
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store
from tests.kube.telling.scene import Counts

WEB = PodRef("u-1", "default", "web")
EPOCH_S = 1_700_000_000.0


@dataclass
class Scene:
    server: StandIn
    kept: Kept
    events: Events
    teller: EventTeller
    naps: Naps
    counts: Counts

    def drift(self, message: str = "gone", pod: PodRef = WEB) -> None:
        self.events.record(pod, EventType.WARNING, Reason.DRIFTED, message)

    async def tell(self, after_s: float = 0.0) -> None:
        self.naps.now_s += after_s
        await self.teller.tell()

    def stand(self) -> list[Body]:
        return list(self.kept.objects.values())


def _on(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with _scene() as scene:
            await story(scene)

    asyncio.run(whole())


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    store = Store()
    kinds = serves_all(store)
    store.create(kinds["Namespace"], "", {"metadata": {"name": "default"}})
    naps, counts = Naps(), Counts()

    def time_s() -> float:
        return EPOCH_S + naps.now_s

    async with StandIn(store).serving() as server:
        client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
        teller = EventTeller(client, "node-1", naps.pace(), time_s, counts)
        events = Events(time_s)
        events.follow(teller.heard)
        try:
            yield Scene(server, kinds["Event"], events, teller, naps, counts)
        finally:
            await client.close()


def test_who_breaks_rules_in_a_loop_costs_two_writes_a_minute() -> None:
    async def story(scene: Scene) -> None:
        for _ in range(59):
            scene.drift()
            await scene.tell(1)
        scene.drift("by process 7 \x1b[31m")
        await scene.tell(0.5)
        assert len(scene.server.writes("events")) == 1
        await scene.tell(10)
        (event,) = scene.stand()
        assert (event["count"], event["message"]) == (60, "by process 7 \\x1b[31m")
        assert event["involvedObject"]["uid"] == "u-1"
        assert event["source"] == {"component": "headgate-agent", "host": "node-1"}
        assert len(scene.server.writes("events")) == 2
        scene.drift()
        await scene.tell(1)
        assert [one["count"] for one in scene.stand()] == [60, 1]

    _on(story)


def test_what_the_server_has_written_without_an_answer_is_not_there_twice() -> None:
    async def story(scene: Scene) -> None:
        scene.drift()
        (event,) = scene.events.all()
        scene.server.apply(scene.kept, event_object(event, "node-1"))
        await scene.tell(1)
        await scene.tell(1)
        assert len(scene.stand()) == 1
        assert scene.counts.of == {("event", "conflict"): 1, ("event", "done"): 1}
        assert scene.teller.problems == ()

    _on(story)


def test_an_event_whose_time_to_live_is_over_is_made_again() -> None:
    async def story(scene: Scene) -> None:
        scene.drift()
        await scene.tell()
        scene.kept.objects.clear()
        scene.drift("again")
        await scene.tell(61)
        await scene.tell(1)
        assert [(one["count"], one["message"]) for one in scene.stand()] == [(2, "again")]

    _on(story)


def test_events_of_a_namespace_that_goes_or_has_gone_are_dropped() -> None:
    async def story(scene: Scene) -> None:
        namespaces = scene.server.store.resources["", "namespaces"]
        body = {"metadata": {"name": "going", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        scene.server.apply(namespaces, body, "")
        scene.drift(pod=PodRef("u-2", "gone", "web"))
        scene.drift(pod=PodRef("u-3", "going", "web"))
        scene.drift()
        await scene.tell()
        assert [one["metadata"]["namespace"] for one in scene.stand()] == ["default"]
        await scene.tell(600)
        assert len(scene.server.writes("events")) == 3
        assert scene.counts.of["event", "absent"] == 2
        assert scene.teller.problems == ()

    _on(story)


def test_a_missing_rule_is_named_and_an_hour_later_nothing_old_is_told() -> None:
    async def story(scene: Scene) -> None:
        scene.server.faults.refuse["create events"] = 403
        for number in range(200):
            scene.drift(pod=PodRef(f"u-{number}", "default", f"web-{number}"))
        while scene.naps.now_s < 600:
            await scene.tell(1)
        assert len(scene.server.writes("events")) <= 12
        (problem,) = scene.teller.problems
        assert problem.startswith("may not write Events: 403 Forbidden")
        assert problem.endswith("the role must permit create and patch of events")
        scene.server.faults.refuse.clear()
        scene.naps.now_s += 3600
        scene.drift("now")
        await scene.tell()
        assert [one["message"] for one in scene.stand()] == ["now"]
        assert scene.counts.of["event", "dropped"] == 200
        assert scene.teller.problems == ()

    _on(story)


def test_an_api_server_that_is_away_is_told_when_it_is_back() -> None:
    async def story(scene: Scene) -> None:
        await scene.server.down()
        scene.drift()
        for _ in range(10):
            await scene.tell(10)
        assert "cannot write Events" in scene.teller.problems[0]
        await scene.server.up()
        await scene.tell(61)
        assert [one["count"] for one in scene.stand()] == [1]
        assert scene.stand()[0]["firstTimestamp"] == "2023-11-14T22:13:20Z"  # when it was, not when it could be told

    _on(story)


def test_what_is_never_taken_is_not_tried_for_ever() -> None:
    async def story(scene: Scene) -> None:
        scene.server.faults.refuse["create events"] = 422
        scene.drift()
        await scene.tell()
        await scene.tell(600)
        assert len(scene.server.writes("events")) == 1
        assert scene.teller.problems == ()

    _on(story)


def test_an_agent_that_ends_says_what_it_had_still_to_say() -> None:
    async def story(scene: Scene) -> None:
        scene.drift()
        await scene.teller.leave()
        assert len(scene.stand()) == 1

    _on(story)
