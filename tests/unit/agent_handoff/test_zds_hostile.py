"""The agent's ZDS server against clients that are silent, hostile or too many."""

import asyncio
import socket
from contextlib import suppress

import pytest

from agent.handoff import zds as server_module
from agent.handoff.listening import SocketTaken
from agent.handoff.zds import Acked, Enrolled, Nacked, NoProxy, ZdsServer
from proxy.api import zds
from tests.unit.agent_handoff.client import Proxy, descriptor
from tests.unit.agent_handoff.scene import INFO, SHORT_S, Agent, play


# ── Silence ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_silent_proxy_is_a_refusal_and_its_late_answer_is_not_taken_for_the_next_ones(impatient: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Nacked("no answer within 0.2 s")
            assert await proxy.next() == zds.AddWorkload("a", INFO)
            second = asyncio.create_task(agent.server.add("b", INFO, fd))
            await proxy.answer("late, and meant for a")
            assert await proxy.next() == zds.AddWorkload("b", INFO)
            await proxy.answer()
            assert await second == Acked()
        assert agent.server.connected
        proxy.close()

    play(impatient, scene)


def test_proxy_silent_twice_is_sent_away(impatient: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        with descriptor() as fd:
            assert isinstance(await agent.server.add("a", INFO, fd), Nacked)
            assert await agent.server.add("b", INFO, fd) == NoProxy()
        assert not agent.server.connected
        proxy.close()

    play(impatient, scene)


def test_caller_that_gives_up_leaves_the_order_intact(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        with descriptor() as fd:
            first = asyncio.create_task(agent.server.add("a", INFO, fd))
            assert await proxy.next() == zds.AddWorkload("a", INFO)
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
            second = asyncio.create_task(agent.server.add("b", INFO, fd))
            await proxy.answer("meant for a")
            assert await proxy.next() == zds.AddWorkload("b", INFO)
            await proxy.answer()
            assert await second == Acked()
        proxy.close()

    play(agent, scene)


def test_proxy_without_hello_is_sent_away(impatient: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = Proxy(agent.path)
        assert await proxy.closed_by_agent()
        proxy.close()

    play(impatient, scene)


def test_proxy_that_dies_while_asked_is_no_proxy(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        with descriptor() as fd:
            adding = asyncio.create_task(agent.server.add("a", INFO, fd))
            await proxy.next()
            proxy.close()
            assert await adding == NoProxy()
        assert agent.connected == [True, False]

    play(agent, scene)


# ── Hostility ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("message", [b"\xff\xff", b"\x08\x00", b"x" * 1025, b"\x0a\x00"])
def test_bad_hello_closes_the_connection(agent: Agent, message: bytes) -> None:
    async def scene(agent: Agent) -> None:
        proxy = Proxy(agent.path)
        proxy.socket.send(message)
        assert await proxy.closed_by_agent()
        assert not agent.server.connected
        proxy.close()

    play(agent, scene)


@pytest.mark.parametrize(
    ("data", "count"),
    [(b"x" * 1025, 0), (b"x" * 1025, 1), (b"\x0a\x00", 1), (b"\x0a\x00", 20), (b"\xff", 0), (b"", 0)],
    ids=["too long", "too long with a descriptor", "descriptor", "too many descriptors", "no ack", "empty"],
)
def test_bad_answer_closes_connection_and_descriptors(agent: Agent, data: bytes, count: int) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        with descriptor() as fd:
            adding = asyncio.create_task(agent.server.add("a", INFO, fd))
            await proxy.next()
            zds.send(proxy.socket, data, [fd] * count)
            assert await adding == NoProxy()
            assert await proxy.closed_by_agent()
        proxy.close()

    play(agent, scene)


def test_answer_that_nobody_asked_for_closes_the_connection(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        await proxy.answer()
        assert await proxy.closed_by_agent()
        proxy.close()

    play(agent, scene)


def test_hostile_proxy_does_not_disturb_the_good_one(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        good = await agent.proxy()
        bad = Proxy(agent.path)
        bad.socket.send(b"\xff\xff\xff")
        assert await bad.closed_by_agent()
        serving = asyncio.create_task(good.serve())
        with descriptor() as fd:
            assert await agent.server.add("a", INFO, fd) == Acked()
        await agent.server.close()
        await serving
        good.close()
        bad.close()

    play(agent, scene)


def test_name_too_long_for_any_proxy_is_a_refusal(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        proxy = await agent.proxy()
        with descriptor() as fd:
            result = await agent.server.add("a", zds.WorkloadInfo("n" * 1100, "", ""), fd)
        assert isinstance(result, Nacked) and "at most 1024" in result.reason
        assert agent.server.connected
        proxy.close()

    play(agent, scene)


def test_snapshot_that_fails_is_not_left_half_told(agent: Agent) -> None:
    def broken() -> int | None:
        raise RuntimeError("a fault of ours")

    agent.entries = [Enrolled("a", INFO, broken)]

    async def scene(agent: Agent) -> None:
        proxy = Proxy(agent.path)
        await proxy.hello()
        assert await proxy.closed_by_agent()
        proxy.close()

    play(agent, scene)


def test_second_agent_is_refused_and_the_first_still_serves(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        with pytest.raises(SocketTaken, match="listens there already"):
            await ZdsServer(list).start(agent.path)
        (await agent.proxy()).close()

    play(agent, scene)


def test_accepting_is_limited_in_pace(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ACCEPT_INTERVAL_S", 3600.0)

    async def scene(agent: Agent) -> None:
        first = await agent.proxy()
        second = Proxy(agent.path)
        await second.hello()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second._receive(), SHORT_S)
        first.close()
        second.close()

    play(agent, scene)


def test_socket_is_seqpacket_and_gone_after_close(agent: Agent) -> None:
    async def scene(agent: Agent) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream, pytest.raises(OSError):
            stream.connect(str(agent.path))

    play(agent, scene)
    assert not agent.path.exists()
