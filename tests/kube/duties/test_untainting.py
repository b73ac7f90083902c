"""A node's taint goes once agent and proxy are ready, whatever the API server does meanwhile, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.pods.taint import InvalidTaint, Taint, without
from agent.supervisor.untainting import Untainting
from tests.kube.heard import Naps, until
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store

OURS = {"key": "headgate.io/agent-not-ready", "effect": "NoSchedule", "value": "x"}
OTHER = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule"}
SAME_KEY = {"key": "headgate.io/agent-not-ready", "effect": "NoExecute"}
TAINT = Taint.read("headgate.io/agent-not-ready:NoSchedule")


@dataclass
class Scene:
    server: StandIn
    nodes: Kept
    untainting: Untainting
    ready: bool = False

    @property
    def node(self) -> Body:
        return self.nodes.objects["", "node-1"]

    @property
    def taints(self) -> list[Body]:
        return list(self.node["spec"].get("taints") or [])


@asynccontextmanager
async def _scene(*taints: Body) -> AsyncIterator[Scene]:
    store = Store()
    nodes = store.serve(Kept("", "v1", "Node", "nodes", namespaced=False))
    spec = {"podCIDR": "10.1.0.0/24", **({"taints": list(taints)} if taints else {})}
    store.create(nodes, "", {"metadata": {"name": "node-1", "labels": {"a": "b"}}, "spec": spec})
    async with StandIn(store).serving() as server:
        client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
        made: list[Scene] = []
        untainting = Untainting(client, Naps().pace(), "node-1", TAINT, lambda: made[0].ready)
        made.append(Scene(server, nodes, untainting))
        running = asyncio.create_task(untainting.run())
        try:
            yield made[0]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.close()


def _play(story: Callable[[Scene], Awaitable[None]], *taints: Body) -> None:
    async def whole() -> None:
        async with _scene(*taints) as scene:
            await story(scene)

    asyncio.run(whole())


def test_the_taint_goes_when_agent_and_proxy_are_ready_and_the_others_stay() -> None:
    async def story(scene: Scene) -> None:
        await asyncio.sleep(0.05)
        assert scene.server.asked == [], "nobody is asked before"
        scene.ready = True
        await until(lambda: scene.taints == [OTHER, SAME_KEY])
        assert scene.node["spec"]["podCIDR"] == "10.1.0.0/24" and scene.node["metadata"]["labels"] == {"a": "b"}
        assert len(scene.server.writes("nodes")) == 1

    _play(story, OTHER, OURS, SAME_KEY)


def test_a_node_without_it_is_read_once_and_never_written() -> None:
    async def story(scene: Scene) -> None:
        scene.ready = True
        await until(lambda: len(scene.server.asked) == 1)
        await asyncio.sleep(0.05)
        assert len(scene.server.asked) == 1 and scene.taints == [OTHER]

    _play(story, OTHER)


def test_a_role_that_does_not_allow_it_is_told_until_somebody_mends_it() -> None:
    async def story(scene: Scene) -> None:
        scene.server.faults.refuse["patch nodes"] = 403
        scene.ready = True
        await until(lambda: "cannot be taken away" in scene.untainting.problem and "403" in scene.untainting.problem)
        scene.server.faults.refuse.clear()
        await until(lambda: scene.taints == [] and not scene.untainting.problem)

    _play(story, OURS)


@pytest.mark.parametrize("status", [409, 429, 500])
def test_what_passes_is_tried_again(status: int) -> None:
    async def story(scene: Scene) -> None:
        scene.server.faults.refuse["patch nodes"] = status
        scene.ready = True
        await until(lambda: len(scene.server.writes("nodes")) > 1)
        assert scene.taints == [OURS] and bool(scene.untainting.problem) is (status != 409)
        scene.server.faults.refuse.clear()
        await until(lambda: scene.taints == [])

    _play(story, OURS)


def test_it_is_never_put_back_nor_taken_again() -> None:
    """Who taints the node later has a reason."""

    async def story(scene: Scene) -> None:
        scene.ready = True
        await until(lambda: scene.taints == [])
        scene.server.apply(scene.nodes, {**scene.node, "spec": {"taints": [OURS]}}, "")
        await asyncio.sleep(0.05)
        assert scene.taints == [OURS]

    _play(story, OURS)


@pytest.mark.parametrize("node", [{}, {"spec": None}, {"spec": {"taints": "x"}}, {"spec": {"taints": [None, 7]}}])
def test_a_node_that_makes_no_sense_is_not_written(node: Body) -> None:
    assert without(TAINT, node) is None


def test_the_version_that_was_read_is_the_only_one_that_is_written() -> None:
    node = {"metadata": {"resourceVersion": "7"}, "spec": {"taints": [OURS]}}
    assert without(TAINT, node) == {"metadata": {"resourceVersion": "7"}, "spec": {"taints": None}}


@pytest.mark.parametrize(
    "text", ["", "x", "x:", ":NoSchedule", "x:Never", "-x:NoSchedule", "a/b/c:NoSchedule", "x\n:NoExecute"]
)
def test_what_is_no_taint_is_refused(text: str) -> None:
    with pytest.raises(InvalidTaint, match="KEY:EFFECT"):
        Taint.read(text)
