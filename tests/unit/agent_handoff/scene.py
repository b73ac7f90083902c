"""A ZDS server on stage: what it is asked for its snapshot, and what it told its owner."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.handoff.zds import AddResult, Enrolled, SnapshotEntry, ZdsServer
from proxy.api import zds
from tests.unit.agent_handoff.client import Proxy, open_descriptors

INFO = zds.WorkloadInfo("web", "shop", "default")
SHORT_S = 0.2


@dataclass
class Agent:
    """A server and what it told its owner."""

    path: Path
    entries: list[SnapshotEntry] = field(default_factory=list)
    timeout_s: float = 5.0
    results: list[tuple[str, AddResult]] = field(default_factory=list)
    connected: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = ZdsServer(
            self._snapshot, lambda u, r: self.results.append((u, r)), self.connected.append, self.timeout_s
        )

    def _snapshot(self) -> Sequence[SnapshotEntry]:
        return list(self.entries)

    async def proxy(self, began_ns: int = 0) -> Proxy:
        """A proxy that has said hello and taken the snapshot."""
        proxy = Proxy(self.path)
        await proxy.snapshot(began_ns)
        return proxy


def enrolled(uid: str) -> Enrolled:
    return Enrolled(uid, INFO, lambda: os.open("/proc/self/ns/net", os.O_RDONLY))


def play(agent: Agent, scene: Callable[[Agent], Awaitable[None]]) -> None:
    """Runs a scene with the server up; afterwards no descriptor is left."""

    async def run() -> None:
        before = open_descriptors()
        await agent.server.start(agent.path)
        try:
            await scene(agent)
        finally:
            await agent.server.close()
        await until(lambda: open_descriptors() == before)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
