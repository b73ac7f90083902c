"""Proxies that replace one another: asked to drain, taking over, or answering in a way of their own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from agent.lab.namespaces import Netns
from proxy.errors import CannotStart
from proxy.settings import ProxySettings
from proxy.supervisor.service import Supervisor
from tests.netns.proxy_supervisor.conftest import FAKE_WORKER, Running, running

MakeNetns = Callable[[], Netns]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
DRAIN_S = 30.0
"""Longer than any test: what ends by it shows."""


async def drain(run_dir: Path) -> int:
    """POST /drain and its status."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(run_dir / "proxy-admin.sock"))) as session,
        session.post("http://proxy/drain") as answer,
    ):
        return answer.status


@asynccontextmanager
async def draining(run_dir: Path, netns: Netns) -> AsyncIterator[Running]:
    """A proxy that serves `uid-1`, was asked to drain, and whose worker does not come to an end."""
    async with running(run_dir, "stubborn", drain_s=DRAIN_S) as proxy:
        await proxy.agent.connect()
        assert await proxy.agent.add("uid-1", netns.path) == ""
        assert await drain(run_dir) == 200
        try:
            yield proxy
        finally:
            proxy.supervisor.kill_workers()


def successor(run_dir: Path, ports: tuple[int, int] = (0, 0), drain_s: float = 0.0) -> Supervisor:
    (run_dir / "no-objects").mkdir(exist_ok=True)
    settings = ProxySettings(run_dir, run_dir / "no-objects", *ports, ("127.0.0.1",), drain_s, take_over=True)
    return Supervisor(settings, (sys.executable, str(FAKE_WORKER), "plain"))


@asynccontextmanager
async def serving(supervisor: Supervisor) -> AsyncIterator["asyncio.Task[None]"]:
    stop = asyncio.Event()
    task = asyncio.create_task(supervisor.serve(stop))
    try:
        yield task
    finally:
        stop.set()
        with suppress(CannotStart):
            await task


@asynccontextmanager
async def other_proxy(path: Path, answer: Answer, pods: str = "[]", cuts: Answer | None = None) -> AsyncIterator[None]:
    """Something that answers on an admin socket in its own way."""

    async def tell_pods(_: web.Request) -> web.StreamResponse:
        return web.Response(text=pods)

    app = web.Application()
    app.router.add_get("/pods", tell_pods)
    app.router.add_post("/drain", answer)
    if cuts is not None:
        app.router.add_get("/cuts", cuts)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError
