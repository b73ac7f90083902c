"""agent.supervisor.registry: all pods; what a proxy that connects is told; what metrics remain."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent.handoff.zds import Enrolled, NotLocated
from agent.metrics import AgentMetrics
from agent.pods import NetnsId, PodRef
from agent.reconcile import Life, State
from agent.reconcile.life import (
    Announce,
    CountSteered,
    Inspect,
    Inspected,
    Inspection,
    PortConflict,
    ProxyAbsent,
    Refused,
    Remove,
    SteeredLeft,
)
from agent.sources.events import PodChanged, PodGone, PodSeen
from agent.supervisor.registry import Registry
from agent.supervisor.reports import key_of
from tests.unit.agent.lives import DISABLED, POD, SEEN
from tests.unit.agent.test_worker import BOUND_S, QUICK, Obedient

WEB = PodSeen(SEEN.pod, SEEN.netns_path, SEEN.netns_id)
CART = PodSeen(PodRef("u-2", "shop", "cart"), "/run/netns/cart", NetnsId(4, 300))


class Node:
    def __init__(self) -> None:
        self.means = Obedient()
        self.metrics = AgentMetrics()
        self.forgotten: list[tuple[str, bool]] = []
        self.registry = Registry(QUICK, self.means, self.metrics, self._forget)

    def _forget(self, life: Life, *, replaced: bool) -> None:
        self.forgotten.append((key_of(life), replaced))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                await asyncio.sleep(0.001)

    def state(self, namespace: str, name: str) -> State | None:
        worker = self.registry.find(namespace, name)
        return None if worker is None else worker.life.state


def play(story: Callable[[Node], Awaitable[None]]) -> None:
    async def run() -> None:
        node = Node()
        try:
            await story(node)
        finally:
            await node.registry.abandon()

    asyncio.run(run())


def test_pods_come_and_go() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        node.registry.heard(CART)
        await node.until(lambda: [life.state for life in node.registry.lives()] == [State.PROVED] * 2)
        assert [str(life.pod) for life in node.registry.lives()] == ["default/web", "shop/cart"]
        node.registry.heard(PodGone("u-2"))
        await node.until(lambda: node.state("shop", "cart") is None)
        assert node.forgotten == [("u-2 4:300", False)]

    play(story)


def test_a_pod_nobody_knows_may_be_gone() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(PodGone("no-such-uid"))
        assert node.registry.lives() == ()

    play(story)


def test_a_pod_that_comes_back_under_its_uid_begins_anew() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PROVED)
        node.registry.heard(PodGone("u-1"))
        await node.until(lambda: node.state("default", "web") is None)
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PROVED)

    play(story)


def test_B48_the_new_namespace_is_the_pod_and_the_old_one_ends_beside_it() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PROVED)
        node.registry.heard(PodChanged(WEB.pod, WEB.netns_path, NetnsId(4, 200)))
        await node.until(lambda: [life.netns_id.inode for life in node.registry.lives()] == [200])
        await node.until(lambda: node.state("default", "web") is State.PROVED and node.means.done.count("Remove") == 1)
        assert "Withdraw" not in node.means.done
        await node.until(lambda: node.forgotten == [("u-1 4:100", True)])

    play(story)


def test_a_life_is_found_by_its_key_also_while_it_ends_beside_its_successor() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PROVED)
        node.means.answers[CountSteered] = [SteeredLeft(1)] * 1000
        node.registry.heard(PodChanged(WEB.pod, WEB.netns_path, NetnsId(4, 200)))
        await node.until(
            lambda: node.state("default", "web") is State.PROVED and node.registry.lives()[0].netns_id.inode == 200
        )
        old, new = node.registry.worker_of("u-1 4:100"), node.registry.worker_of("u-1 4:200")
        assert old is not None and old.life.state is State.LEAVING
        assert new is not None and new.life.state is State.PROVED
        assert node.registry.worker_of("u-1 4:300") is None

    play(story)


def test_a_pod_that_is_back_before_its_end_is_over_is_enrolled_again() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PROVED)
        node.means.hold = asyncio.Event()  # the last action takes its time
        node.registry.heard(PodGone("u-1"))
        await node.until(lambda: node.means.held == ["Drain"])
        node.registry.heard(PodGone("u-1"))
        node.registry.heard(WEB)
        node.means.hold.set()
        await node.until(lambda: node.means.done.count("Install") == 2 and node.state("default", "web") is State.PROVED)

    play(story)


def test_a_proxy_that_connects_is_told_what_to_serve_and_what_to_keep() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        assert node.registry.snapshot() == (NotLocated("u-1"),)  # seen this instant: what a proxy has, it keeps
        await node.until(lambda: node.state("default", "web") is State.PROVED)
        (entry,) = node.registry.snapshot()
        assert isinstance(entry, Enrolled)
        assert (entry.uid, entry.info.name, entry.info.namespace) == ("u-1", "web", "default")
        assert entry.open_netns() is None  # no such namespace on this machine

    play(story)


def test_a_pod_that_waits_for_a_proxy_is_in_its_snapshot() -> None:
    async def story(node: Node) -> None:
        node.means.answers[Announce] = [ProxyAbsent()] * 1000
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PENDING)
        assert [entry.uid for entry in node.registry.snapshot()] == ["u-1"]

    play(story)


def test_a_pod_that_failed_or_is_disabled_is_not() -> None:
    async def story(node: Node) -> None:
        conflict = Inspected(Inspection(POD.addresses, (PortConflict(15006, 1, "x"),)))
        node.means.answers[Inspect] = [conflict]
        node.registry.heard(WEB)
        node.registry.heard(PodSeen(replace(DISABLED.pod, uid="u-3", name="out"), "/run/netns/out", NetnsId(4, 400)))
        await node.until(lambda: node.state("default", "web") is State.FAILED)
        assert node.state("default", "out") is State.DISABLED
        assert node.registry.snapshot() == ()

    play(story)


def test_stop_takes_all_out_and_tells_which_could_not() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        node.registry.heard(CART)
        await node.until(lambda: [life.state for life in node.registry.lives()] == [State.PROVED] * 2)
        assert await node.registry.stop(BOUND_S) == []
        assert node.means.done.count("Remove") == 2 and node.registry.lives() == ()

    async def stubborn(node: Node) -> None:
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PROVED)
        node.means.answers[Remove] = [Refused("nft: busy")] * 1000
        (left,) = await node.registry.stop(0.05)
        assert "nft: busy" in left.reason

    play(story)
    play(stubborn)


def test_series_of_a_pod_end_with_it() -> None:
    async def story(node: Node) -> None:
        node.registry.heard(WEB)
        await node.until(lambda: node.state("default", "web") is State.PROVED)
        page = node.metrics.exposition().decode()
        assert 'headgate_pod_state{namespace="default",pod="web",state="proved"} 1.0' in page
        assert 'state="installed"' not in page
        node.registry.heard(PodGone("u-1"))
        await node.until(lambda: node.state("default", "web") is None)
        assert 'pod="web"' not in node.metrics.exposition().decode()

    play(story)
