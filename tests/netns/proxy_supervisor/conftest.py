"""A supervisor with fake workers and a fake agent, over real sockets and real network namespaces."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from proxy.settings import ProxySettings
from proxy.supervisor.service import Supervisor
from tests.netns.proxy_supervisor.fake_agent import FakeAgent

FAKE_WORKER = Path(__file__).parents[2] / "unit" / "proxy_supervisor" / "fake_worker.py"
WAIT_S = 10.0


async def until(what: str, condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for a condition, asked every few milliseconds, within a bound."""
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                answer = condition()
                if answer if isinstance(answer, bool) else await answer:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S:g} s: {what}") from None


class Running:
    """A supervisor that serves, and its operator's view."""

    def __init__(self, supervisor: Supervisor, agent: FakeAgent, run_dir: Path, stop: asyncio.Event) -> None:
        self.supervisor = supervisor
        self.agent = agent
        self.run_dir = run_dir
        self.stop = stop

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; readiness and metrics from their ports, the rest from the admin socket."""
        admin = self.supervisor.admin
        port = {"/metrics": admin.metrics_ports, "/healthz/ready": admin.ready_ports}.get(path)
        unix = aiohttp.UnixConnector(str(self.run_dir / "proxy-admin.sock")) if port is None else None
        async with aiohttp.ClientSession(connector=unix) as session:
            url = f"http://127.0.0.1:{port[0]}{path}" if port else f"http://proxy{path}"
            async with session.get(url) as answer:
                return answer.status, await answer.text()

    async def ready(self) -> bool:
        return (await self.get("/healthz/ready"))[0] == 200


@asynccontextmanager
async def running(
    run_dir: Path,
    mode: str = "plain",
    config_dir: Path | None = None,
    drain_s: float = 0.0,
    agents_objects: bool = False,
) -> AsyncIterator[Running]:
    """A supervisor on free ports, ended on leaving. Its policy is that of an empty directory unless one is given;
    `agents_objects`: it has none and asks the agent."""
    agent = FakeAgent(run_dir)
    if config_dir is None and not agents_objects:
        config_dir = run_dir / "no-objects"
        config_dir.mkdir(exist_ok=True)
    settings = ProxySettings(run_dir, config_dir, 0, 0, ("127.0.0.1",), drain_s)
    supervisor = Supervisor(settings, (sys.executable, str(FAKE_WORKER), mode))
    stop = asyncio.Event()
    serving = asyncio.create_task(supervisor.serve(stop))
    try:
        await until("admin socket", lambda: serving.done() or (run_dir / "proxy-admin.sock").exists())
        yield Running(supervisor, agent, run_dir, stop)
    finally:
        stop.set()
        try:
            await serving
        finally:
            await agent.close_sockets()
