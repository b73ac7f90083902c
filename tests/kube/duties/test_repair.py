"""--repair=delete-pod: which pods go, how many at a time, and which stay whatever is wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import pytest

from agent.events import Events
from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.pods import PodRef
from agent.pods.replaceable import Replaceable, replaceable
from agent.reconcile import Life, State
from agent.supervisor.repair import OWNER_AGAIN_S, PATIENCE_S, Repair
from agent.supervisor.reports import PodFacts
from agent.supervisor.unsteered import Unsteered
from tests.kube.heard import Naps
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store
from tests.unit.agent.lives import enrolled

FLOW = (ip_address("10.0.0.5"), 40000, ip_address("10.0.0.9"), 80)
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "owner-1", "controller": True}


@dataclass
class Scene:
    server: StandIn
    pods: Kept
    naps: Naps
    lives: dict[str, Life] = field(default_factory=dict)
    facts: dict[str, PodFacts] = field(default_factory=dict)
    events: Events = field(default_factory=lambda: Events(lambda: 0.0))
    repair: Any = None

    def pod(self, name: str, *, owner: Body | None = OWNER, state: State = State.PROVED, outside: int = 1) -> str:
        metadata: Body = {"name": name, **({} if owner is None else {"ownerReferences": [owner]})}
        self.server.apply(self.pods, {"metadata": metadata, "spec": {}, "status": {}})
        uid = str(self.pods.objects["default", name]["metadata"]["uid"])
        self.lives[name] = replace(enrolled().life, pod=PodRef(uid, "default", name), state=state)
        flows = frozenset((*FLOW[:1], FLOW[1] + number, *FLOW[2:]) for number in range(outside))
        self.facts[name] = PodFacts(unsteered=Unsteered(grandfathered=flows))
        return uid

    @property
    def left(self) -> set[str]:
        return {name for _, name in self.pods.objects}

    async def looks(self, after_s: float = 0.0) -> bool:
        self.naps.now_s += after_s
        return bool(await self.repair.look())


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    store = Store()
    pods = store.serve(Kept("", "v1", "Pod", "pods"))
    async with StandIn(store).serving() as server:
        client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
        scene = Scene(server, pods, Naps())
        scene.repair = Repair(
            client,
            scene.naps.pace(),
            lambda: tuple(scene.lives.values()),
            lambda life: scene.facts[life.pod.name],
            scene.events,
        )
        try:
            yield scene
        finally:
            await client.close()


def _play(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with _scene() as scene:
            await story(scene)

    asyncio.run(whole())


def test_a_pod_whose_old_connections_live_on_goes_after_a_minute_and_an_event_says_why() -> None:
    async def story(scene: Scene) -> None:
        uid = scene.pod("web", outside=3)
        assert not await scene.looks()
        assert not await scene.looks(PATIENCE_S - 1) and scene.left == {"web"}
        assert await scene.looks(2) and scene.left == set()
        (event,) = scene.events.all()
        assert (event.uid, event.reason.value) == (uid, "PodRepaired") and "3 connections" in event.message

    _play(story)


def test_connections_that_end_in_time_save_their_pod() -> None:
    async def story(scene: Scene) -> None:
        scene.pod("web")
        await scene.looks()
        scene.facts["web"] = PodFacts()
        await scene.looks(PATIENCE_S)
        scene.facts["web"] = PodFacts(unsteered=Unsteered(grandfathered=frozenset({FLOW})))
        assert not await scene.looks(PATIENCE_S) and scene.left == {"web"}, "its minute begins anew"

    _play(story)


@pytest.mark.parametrize("state", [State.FAILED, State.PENDING, State.LEAVING, State.DISABLED])
def test_what_a_new_pod_would_not_mend_is_left_alone(state: State) -> None:
    """A taken port or a bad annotation comes back with it."""

    async def story(scene: Scene) -> None:
        scene.pod("web", state=state)
        await scene.looks()
        assert not await scene.looks(PATIENCE_S * 10) and scene.server.asked == []

    _play(story)


@pytest.mark.parametrize(
    "owner",
    [None, {**OWNER, "controller": False}, {**OWNER, "kind": "Job"}, {**OWNER, "kind": "Node"}],
    ids=["none", "no controller", "a job", "a static pod"],
)
def test_a_pod_that_nobody_would_simply_replace_stays(owner: Body | None) -> None:
    async def story(scene: Scene) -> None:
        scene.pod("web", owner=owner)
        await scene.looks()
        assert not await scene.looks(PATIENCE_S) and scene.left == {"web"}

    _play(story)


def test_one_at_a_time_and_of_one_controller_no_second_one_soon() -> None:
    """If that its pods come back like this, to delete them mends nothing."""

    async def story(scene: Scene) -> None:
        for name in ("web-1", "web-2"):
            scene.pod(name)
        scene.pod("other", owner={**OWNER, "uid": "owner-2"})
        await scene.looks()
        assert await scene.looks(PATIENCE_S) and len(scene.left) == 2
        gone = ({"web-1", "web-2", "other"} - scene.left).pop()
        del scene.lives[gone]
        assert await scene.looks(1)
        assert len({name for name in scene.left if name.startswith("web")}) == 1
        del scene.lives["other" if "other" in scene.lives else next(n for n in scene.lives if n not in scene.left)]
        assert not await scene.looks(OWNER_AGAIN_S - 10)
        assert await scene.looks(20) and scene.left == set()

    _play(story)


def test_another_pod_of_that_name_is_not_deleted_for_the_first_one() -> None:
    async def story(scene: Scene) -> None:
        scene.pod("web")
        await scene.looks()
        scene.server.delete(scene.pods, "web")
        scene.server.apply(
            scene.pods, {"metadata": {"name": "web", "ownerReferences": [OWNER]}, "spec": {}, "status": {}}
        )
        assert not await scene.looks(PATIENCE_S) and scene.left == {"web"}

    _play(story)


def test_a_role_that_does_not_allow_it_is_told() -> None:
    async def story(scene: Scene) -> None:
        scene.pod("web")
        scene.server.faults.refuse["delete pods"] = 403
        await scene.looks()
        assert not await scene.looks(PATIENCE_S)
        assert "pod default/web cannot be deleted to repair it: 403" in scene.repair.problem
        scene.server.faults.refuse.clear()
        assert await scene.looks(5) and not scene.repair.problem

    _play(story)


def test_it_is_deleted_as_it_was_read_or_not_at_all() -> None:
    body = {"metadata": {"uid": "u", "resourceVersion": "9", "ownerReferences": ["x", OWNER]}}
    assert replaceable(body, "u") == Replaceable("owner-1", {"uid": "u", "resourceVersion": "9"})
    assert replaceable({"metadata": {**body["metadata"], "deletionTimestamp": "now"}}, "u") == "it is being deleted"
    assert replaceable({"metadata": None}, "u") == "another pod has its name"
