"""The agent's ZDS server against real clients: snapshot and live changes."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from agent.handoff.zds import Acked, Enrolled, Nacked, NoProxy, NotLocated
from proxy.api import zds
from tests.unit.agent_handoff.client import Proxy, descriptor
from tests.unit.agent_handoff.scene import INFO, SHORT_S, Agent, enrolled, play, until


# ── Snapshot ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_e2_snapshot_adds_the_enrolled_keeps_the_unlocated_and_ends(agent: Agent) -> None:
    agent.entries = [enrolled("a"), NotLocated("b"), enrolled("c")]

    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        assert proxy.told == [
            zds.AddWorkload("a", INFO),
            zds.KeepWorkload("b"),
            zds.AddWorkload("c", INFO),
            zds.SnapshotSent(),
        ]
        own = Path("/proc/self/ns/net").stat()
        assert [os.fstat(fd).st_ino for fd in proxy.descriptors.values()] == [own.st_ino, own.st_ino]
        assert agent.results == [("a", Acked()), ("c", Acked())]
        assert agent.server.connected and agent.connected == [True]
        proxy.close()
        await until(lambda: not agent.server.connected)
        assert agent.connected == [True, False]

    play(agent, scene)


def test_e1_nothing_is_said_before_the_proxys_hello(agent: Agent) -> None:
    agent.entries = [enrolled("a")]

    async def scene(agent: Agent) -> None:
        proxy = Proxy(agent.path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(proxy._receive(), SHORT_S)
        assert not agent.server.connected
        with descriptor() as fd:
            assert await agent.server.add("x", INFO, fd) == NoProxy()
        assert (await proxy.snapshot())[0] == zds.AddWorkload("a", INFO)
        proxy.close()

    play(agent, scene)


def test_pod_whose_namespace_cannot_be_opened_is_kept(agent: Agent) -> None:
    agent.entries = [Enrolled("a", INFO, lambda: None)]

    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        assert proxy.told == [zds.KeepWorkload("a"), zds.SnapshotSent()]
        assert agent.results == []
        proxy.close()

    play(agent, scene)


def test_refusal_within_the_snapshot_is_told_and_the_rest_goes_on(agent: Agent) -> None:
    agent.entries = [enrolled("a"), enrolled("b")]

    async def scene(agent: Agent) -> None:
        proxy = Proxy(agent.path)
        await proxy.hello()
        for error in ("port 15001 taken\x1b[31m", "", ""):
            await proxy.next()
            await proxy.answer(error)
        await until(lambda: len(agent.results) == 2)
        assert agent.results == [("a", Nacked("port 15001 taken\\x1b[31m")), ("b", Acked())]
        proxy.close()

    play(agent, scene)


def test_pod_that_leaves_during_the_snapshot_is_not_added_afterwards(agent: Agent) -> None:
    agent.entries = [enrolled("a"), enrolled("b")]

    async def scene(agent: Agent) -> None:
        proxy = Proxy(agent.path)
        await proxy.hello()
        assert await proxy.next() == zds.AddWorkload("a", INFO)
        removal = asyncio.create_task(agent.server.remove("b"))
        await asyncio.sleep(0)
        await proxy.answer()
        assert await proxy.next() == zds.DeleteWorkload("b")
        await proxy.answer()
        assert await removal == Acked()
        assert await proxy.next() == zds.SnapshotSent()
        proxy.close()

    play(agent, scene)


# ── Live changes ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_add_hands_over_the_namespace_and_keeps_the_callers_descriptor(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        serving = asyncio.create_task(proxy.serve())
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Acked()
            os.fstat(fd)
        assert await agent.server.remove("a") == Acked()
        assert proxy.told[1:] == [zds.AddWorkload("a", INFO), zds.DeleteWorkload("a")]
        await agent.server.close()
        await serving
        proxy.close()

    play(agent, scene)


def test_e3_add_goes_to_the_newest_proxy_and_del_to_all(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        old, new = await agent.proxy(), await agent.proxy()
        serving = [asyncio.create_task(proxy.serve()) for proxy in (old, new)]
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Acked()
        assert await agent.server.remove("a") == Acked()
        assert old.told[1:] == [zds.DeleteWorkload("a")]
        assert new.told[1:] == [zds.AddWorkload("a", INFO), zds.DeleteWorkload("a")]
        await agent.server.close()
        await asyncio.gather(*serving)
        old.close()
        new.close()

    play(agent, scene)


def test_the_newest_is_the_one_that_began_last_not_the_one_that_came_last(agent: Agent) -> None:
    """The agent is started anew while one proxy takes over from another: both come again, in any order."""

    async def scene(agent: Agent) -> None:
        new, old = await agent.proxy(2_000), await agent.proxy(1_000)
        serving = [asyncio.create_task(proxy.serve()) for proxy in (old, new)]
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Acked()
        assert (old.told[1:], new.told[1:]) == ([], [zds.AddWorkload("a", INFO)])
        await agent.server.close()
        await asyncio.gather(*serving)
        old.close()
        new.close()

    play(agent, scene)


def test_e3_older_proxy_that_ends_after_the_newer_came_does_not_take_its_place(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        old, new = await agent.proxy(), await agent.proxy()
        old.close()
        await until(lambda: len(agent.server._proxies) == 1)
        serving = asyncio.create_task(new.serve())
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Acked()
        assert agent.connected == [True]
        await agent.server.close()
        await serving
        new.close()

    play(agent, scene)


def test_newest_proxy_that_dies_leaves_the_older_one_in_charge(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        old, new = await agent.proxy(), await agent.proxy()
        new.close()
        await until(lambda: len(agent.server._proxies) == 1)
        serving = asyncio.create_task(old.serve())
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Acked()
        await agent.server.close()
        await serving
        old.close()

    play(agent, scene)


def test_pods_that_only_a_newer_proxy_was_told_of_are_told_to_the_older_one_when_the_newer_dies(agent: Agent) -> None:
    """A take-over that fails: the new proxy ends before it was ready, the old one is in charge again."""

    async def scene(agent: Agent) -> None:
        old, new = await agent.proxy(), await agent.proxy()
        serving = [asyncio.create_task(proxy.serve()) for proxy in (old, new)]
        agent.entries = [enrolled("a"), NotLocated("b"), Enrolled("c", INFO, lambda: None)]
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Acked()
        agent.results.clear()
        new.close()
        await until(lambda: agent.results == [("a", Acked())])
        assert old.told[1:] == [zds.AddWorkload("a", INFO)]
        await agent.server.close()
        serving[1].cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        old.close()

    play(agent, scene)


def test_refusal_of_a_live_add_is_its_result(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        serving = asyncio.create_task(proxy.serve("port 15006 taken"))
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Nacked("port 15006 taken")
        assert agent.server.connected
        await agent.server.close()
        await serving
        proxy.close()

    play(agent, scene)


def test_e1_one_request_at_a_time(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        with descriptor() as fd:
            adds = [asyncio.create_task(agent.server.add(uid, INFO, fd)) for uid in "abc"]
            for uid in "abc":
                assert await proxy.next() == zds.AddWorkload(uid, INFO)
                with pytest.raises(BlockingIOError):
                    zds.receive(proxy.socket)
                await proxy.answer("no" if uid == "b" else "")
            assert await asyncio.gather(*adds) == [Acked(), Nacked("no"), Acked()]
        proxy.close()

    play(agent, scene)


def test_250_serial_adds_take_no_more_than_2_s(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        serving = asyncio.create_task(proxy.serve())
        began = time.monotonic()
        with descriptor() as fd:
            for number in range(250):
                assert await agent.server.add(f"pod-{number}", INFO, fd) == Acked()
        assert time.monotonic() - began <= 2
        await agent.server.close()
        await serving
        proxy.close()

    play(agent, scene)
