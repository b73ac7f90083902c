"""agent.telling.route_teller and lease_holder: the status of routes, written by one agent of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from agent.handoff.object_lines import ObjectLines
from agent.handoff.verdicts import Verdicts
from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.sources.kubernetes_objects import KubernetesObjects
from agent.telling.lease_holder import NAME, LeaseHolder
from agent.telling.route_status import CONTROLLER
from agent.telling.route_teller import ROUTES, RouteTeller
from proxy.api.stream import ObjectName, Verdict
from tests.kube.beside import serves_all
from tests.kube.heard import Naps, until
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store
from tests.kube.telling.scene import Counts

CART = ObjectName("gateway.networking.k8s.io", "HTTPRoute", "default", "cart")
SERVICE = {"group": "", "kind": "Service", "name": "cart"}
THEIRS = {"parentRef": {"name": "edge"}, "controllerName": "example.com/gateway", "conditions": []}


@dataclass
class Agent:
    """One of several. `naps`: its own clock."""

    naps: Naps
    lease: LeaseHolder
    routes: RouteTeller
    verdicts: Verdicts
    lines: ObjectLines
    counts: Counts

    def judges(self, generation: int = 1, *, accepted: bool = False) -> None:
        reason = "" if accepted else "HTTPRoute is not supported by this version"
        self.verdicts.heard(Verdict(CART, generation, accepted, "" if accepted else "kind", reason))

    async def looks(self, after_s: float = 0.0) -> None:
        self.naps.now_s += after_s
        self.routes.look()
        await self.routes.tell()


@dataclass
class Scene:
    server: StandIn
    kept: Kept
    stack: AsyncExitStack
    agents: list[Agent] = field(default_factory=list)

    def route(self, *parents: Body, entries: list[Body] | None = None) -> None:
        status = {} if entries is None else {"status": {"parents": entries}}
        self.server.apply(self.kept, {"metadata": {"name": "cart"}, "spec": {"parentRefs": list(parents)}, **status})

    @property
    def generation(self) -> int:
        return int(self.kept.objects["default", "cart"]["metadata"]["generation"])

    def entries(self) -> list[Body]:
        status = self.kept.objects["default", "cart"].get("status") or {}
        return list(status.get("parents") or [])

    def ours(self) -> list[dict[str, str]]:
        """Of our entries each, by type, status and reason."""
        mine = [entry for entry in self.entries() if entry["controllerName"] == CONTROLLER]
        return [{one["type"]: f"{one['status']} {one['reason']}" for one in entry["conditions"]} for entry in mine]

    def writes(self) -> int:
        return sum(method == "PATCH" for method, _, _ in self.server.asked)

    async def agent(self, name: str = "a") -> Agent:
        client = ApiClient(Access(self.server.url, None), lambda: 0.0, lambda: 0.0)
        self.stack.push_async_callback(client.close)
        objects = KubernetesObjects(client, Naps().pace(), ROUTES, spread_s=0.0)
        lines, verdicts, naps, counts = ObjectLines(), Verdicts(), Naps(), Counts()
        naps.now_s = 1000.0

        async def take() -> None:
            while True:
                lines.update(await objects.changes())

        for work in (objects.watch(), take()):
            task = asyncio.create_task(work)
            self.stack.push_async_callback(_end, task)
        lease = LeaseHolder(
            client, "headgate-system", name, naps.pace(), lambda: 1_700_000_000.0 + naps.now_s,
            wanted=lambda: routes.wanted, count=counts, spread_s=0.0,
        )  # fmt: skip
        routes = RouteTeller(
            client, objects, lines.lines, verdicts, naps.pace(), lambda: 1_700_000_000.0 + naps.now_s,
            holds=lambda: lease.holds, count=counts,
        )  # fmt: skip
        await until(lambda: lines.complete)
        made = Agent(naps, lease, routes, verdicts, lines, counts)
        self.agents.append(made)
        return made

    async def heard(self, agent: Agent) -> None:
        """The agent's watch has the present version."""
        version = self.kept.objects["default", "cart"]["metadata"]["resourceVersion"]
        await until(lambda: f'"resourceVersion":"{version}"'.encode() in agent.lines.lines.get(CART, b""))


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _on(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with _scene() as scene:
            await story(scene)

    asyncio.run(whole())


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    store = Store()
    kinds = serves_all(store)
    for name in ("default", "headgate-system"):
        store.create(kinds["Namespace"], "", {"metadata": {"name": name}})
    kept = store.resources["gateway.networking.k8s.io", "httproutes"]
    async with StandIn(store).serving() as server, AsyncExitStack() as stack:
        yield Scene(server, kept, stack)


def test_a_route_of_a_service_is_told_that_it_is_not_in_force_and_others_entries_stay() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE, {"name": "edge"}, entries=[THEIRS])
        agent = await scene.agent()
        agent.judges()
        await agent.looks()
        assert scene.writes() == 0  # not the one that writes, yet
        await agent.lease.look()
        await agent.looks()
        assert scene.ours() == [{"Accepted": "False UnsupportedValue", "ResolvedRefs": "Unknown Pending"}]
        assert scene.entries()[0] == THEIRS
        await scene.heard(agent)
        for _ in range(5):
            await agent.looks(1)
        assert scene.writes() == 1
        assert agent.counts.of == {("lease", "done"): 1, ("route", "done"): 1}

    _on(story)


def test_a_newer_generation_waits_for_its_own_verdict() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE)
        agent = await scene.agent()
        agent.judges()
        agent.routes.look()
        await agent.lease.look()
        await agent.looks()
        await scene.heard(agent)
        scene.route(SERVICE, {"name": "edge"}, entries=scene.entries())
        assert scene.generation == 2
        await scene.heard(agent)
        await agent.looks(1)
        assert scene.writes() == 1
        agent.judges(2, accepted=True)
        await agent.looks(1)
        assert scene.ours() == [{"Accepted": "True Accepted"}]
        assert scene.entries()[0]["conditions"][0]["observedGeneration"] == 2

    _on(story)


def test_a_route_that_has_changed_meanwhile_is_decided_upon_again() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE)
        agent = await scene.agent()
        agent.judges()
        agent.routes.look()
        await agent.lease.look()
        scene.route(SERVICE, entries=[THEIRS])  # another controller was quicker
        await agent.routes.tell()
        assert agent.counts.of["route", "conflict"] == 1
        assert scene.entries() == [THEIRS]
        await scene.heard(agent)
        await agent.looks(2)
        assert scene.entries()[0] == THEIRS
        assert len(scene.ours()) == 1
        assert agent.routes.problems == ()

    _on(story)


def test_without_routes_of_services_nobody_asks_for_a_lease() -> None:
    async def story(scene: Scene) -> None:
        scene.route({"name": "edge"}, entries=[THEIRS])
        agent = await scene.agent()
        agent.judges()
        await agent.looks()
        assert not agent.routes.wanted
        running = asyncio.create_task(agent.lease.run())
        try:
            await until(lambda: len(agent.naps.asked_s) > 20)
        finally:
            await _end(running)
        assert not [path for _, path, _ in scene.server.asked if "leases" in path]

    _on(story)


def test_one_of_several_writes_and_the_next_one_when_it_is_killed() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE)
        first, second = await scene.agent("a"), await scene.agent("b")
        for agent in (first, second):
            agent.judges()
            agent.routes.look()
        assert await first.lease.look() == 2.0
        assert 15.0 <= await second.lease.look() < 30.0
        assert (first.lease.holds, second.lease.holds) == (True, False)
        await first.looks()
        await second.looks()
        assert scene.writes() == 1
        # Killed: nothing is renewed. The second one looks again.
        scene.route(SERVICE, {**SERVICE, "name": "other"}, entries=scene.entries())
        first.naps.now_s += 11
        assert not first.lease.holds  # long before another one may
        second.naps.now_s += 16
        await second.lease.look()
        assert second.lease.holds
        await scene.heard(second)
        second.judges(scene.generation)
        await second.looks()
        assert len(scene.ours()) == 2
        lease = scene.server.store.resources["coordination.k8s.io", "leases"].objects["headgate-system", NAME]
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 1)

    _on(story)


def test_one_that_renews_keeps_it_and_the_others_look_once_a_minute() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE)
        first, second = await scene.agent("a"), await scene.agent("b")
        await first.lease.look()
        await second.lease.look()
        for _ in range(10):
            first.naps.now_s += 2
            await first.lease.look()
        second.naps.now_s += 20
        assert await second.lease.look() == 60.0
        assert (first.lease.holds, second.lease.holds) == (True, False)

    _on(story)


def test_who_cannot_renew_stops_writing_before_another_begins() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE)
        agent = await scene.agent()
        await agent.lease.look()
        await scene.server.down()
        waits = []
        for _ in range(6):
            agent.naps.now_s += 2
            waits.append(await agent.lease.look())
        assert waits[:4] == [2.0] * 4
        assert not agent.lease.holds
        assert "cannot take the Lease of route status" in agent.lease.problems[0]

    _on(story)


def test_a_missing_rule_for_the_lease_is_named() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE)
        scene.server.faults.refuse["leases"] = 403
        agent = await scene.agent()
        assert await agent.lease.look() >= 2.0
        assert await agent.lease.look() >= 60.0
        assert agent.lease.problems[0].endswith(
            "the role must permit get, create and update of leases in headgate-system"
        )
        assert not agent.lease.holds

    _on(story)


def test_who_leaves_for_good_takes_its_entries_along_and_lets_go_of_the_lease() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE, {"name": "edge"}, entries=[THEIRS])
        agent = await scene.agent()
        agent.judges()
        agent.routes.look()
        await agent.lease.look()
        await agent.looks()
        await scene.heard(agent)
        agent.routes.look()
        await agent.routes.leave()
        await agent.lease.release()
        assert scene.entries() == [THEIRS]
        other = await scene.agent("b")
        await other.lease.look()
        assert other.lease.holds

    _on(story)


def test_verdicts_on_routes_that_are_gone_are_forgotten() -> None:
    async def story(scene: Scene) -> None:
        scene.route(SERVICE)
        agent = await scene.agent()
        agent.judges()
        agent.verdicts.heard(Verdict(CART._replace(name="made-up"), 1, False, "", "x"))
        agent.verdicts.heard(Verdict(CART._replace(group="networking.istio.io"), 1, False, "", "x"))
        agent.routes.look()
        assert agent.verdicts.of(CART) is not None
        assert agent.verdicts.of(CART._replace(name="made-up")) is None
        assert agent.verdicts.of(CART._replace(group="networking.istio.io")) is None

    _on(story)
