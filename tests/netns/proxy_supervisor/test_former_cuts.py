"""What a proxy that is being replaced cuts is counted by its successor, whom somebody can scrape."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from agent.lab.namespaces import Netns
from proxy.api import zds
from proxy.supervisor.cuts import Cut, Why, encode
from proxy.supervisor.former import FormerProxy
from proxy.supervisor.service import Supervisor
from tests.netns.fd_store.pods import Agent
from tests.netns.proxy_supervisor.conftest import Running, running, until
from tests.netns.proxy_supervisor.take_overs import (
    DRAIN_S,
    MakeNetns,
    never,
    other_proxy,
    serving,
    successor,
)
from tests.netns.proxy_supervisor.test_pods import in_thread
from tests.unit.proxy_supervisor.fake_worker import HELD


def cut_series(why: str, number: int) -> str:
    return f'headgate_connections_cut_total{{namespace="shop",pod="uid-1",reason="{why}"}} {number}\n'


async def metrics(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return await answer.text()


@asynccontextmanager
async def taken_over(
    run_dir: Path, netns: Netns, drain_s: float = 0.0
) -> AsyncIterator[tuple[Running, Supervisor, Path]]:
    """A proxy whose worker holds HELD connections of `uid-1` to the end of its drain, which comes with a word in the
    fifo; and the successor that has taken its place."""
    fifo = run_dir / "fifo"
    os.mkfifo(fifo)
    async with Agent(run_dir / "fds.sock"), running(run_dir, f"holding:{fifo}", drain_s=DRAIN_S) as former:
        await former.agent.connect()
        assert await former.agent.add("uid-1", netns.path) == ""
        heir = successor(run_dir, drain_s=drain_s)
        async with serving(heir):
            await former.agent.connect()
            assert await former.agent.add("uid-1", netns.path) == ""
            await former.agent.ask(zds.SnapshotSent())
            await until("readiness", lambda: heir.readiness.unready() == [])
            try:
                yield former, heir, fifo
            finally:
                former.supervisor.kill_workers()


def test_what_the_former_one_cuts_at_the_end_of_its_drain_is_on_the_successors_page(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        async with taken_over(tmp_path, make_netns()) as (_, heir, fifo):
            port = heir.admin.metrics_ports[0]
            assert "headgate_connections_cut" not in await metrics(port)
            await in_thread(fifo.write_text, "now")
            await until("the count", lambda: _holds(port, cut_series("drain_over", HELD)))

    asyncio.run(scenario())


def test_what_a_worker_of_the_former_one_held_when_it_was_killed_is_on_the_successors_page(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        async with taken_over(tmp_path, make_netns()) as (former, heir, _):
            former.supervisor.kill_workers()
            port = heir.admin.metrics_ports[0]
            await until("the count", lambda: _holds(port, cut_series("worker_ended", HELD)))

    asyncio.run(scenario())


def test_a_third_proxy_hears_of_the_first_ones_cuts_through_the_second(tmp_path: Path, make_netns: MakeNetns) -> None:
    """The second has nothing left to do: it stays for that alone."""

    async def scenario() -> None:
        netns = make_netns()
        async with taken_over(tmp_path, netns, DRAIN_S) as (former, _, fifo):
            third = successor(tmp_path)
            async with serving(third), asyncio.timeout(20):
                while third.readiness.unfit():  # the others are connected as well, and may be next in the queue
                    await former.agent.connect()
                    await former.agent.add("uid-1", netns.path)
                    await former.agent.ask(zds.SnapshotSent())
                await until("readiness", lambda: third.readiness.unready() == [])
                await in_thread(fifo.write_text, "now")
                port = third.admin.metrics_ports[0]
                await until("the count", lambda: _holds(port, cut_series("drain_over", HELD)))

    asyncio.run(scenario())


async def _holds(port: int, series: str) -> bool:
    return series in await metrics(port)


def test_a_former_proxy_that_is_killed_has_told_what_it_has_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a line is none."""
    path = tmp_path / "admin.sock"
    told = Cut("shop", "web-1", Why.DRAIN_OVER, 3)

    async def dies(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(encode(told) + encode(told)[:20])
        assert request.transport is not None
        request.transport.close()
        return answer

    async def scenario() -> None:
        cut: list[Cut] = []
        former = FormerProxy(path, cut.append)
        async with other_proxy(path, never, cuts=dies):
            await former.hear()
            await former.ended(5.0)
        assert cut == [told]
        await former.close()

    asyncio.run(scenario())
    assert "tells no more of what it cuts, 3 connections so far" in caplog.text


def test_a_former_proxy_that_knows_no_cuts_or_has_ended_costs_the_take_over_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "admin.sock"

    async def scenario() -> None:
        for _ in range(2):  # the second time nobody is there
            former = FormerProxy(path, pytest.fail)
            async with asyncio.timeout(2):
                await former.hear()
                await former.ended(1.0)
                await former.close()

    async def old_version() -> None:
        async with other_proxy(path, never):
            await scenario()

    asyncio.run(old_version())
    assert "of another version: what it cuts is in its log only" in caplog.text
    asyncio.run(scenario())
