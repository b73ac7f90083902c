"""Requests that go on when who asked for them is cancelled: what was sent cannot be taken back, and who leaves has to
come after it."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from agent.kube.client import ApiClient


class SettlingClient:
    """As agent.kube.client.ApiClient, as far as telling needs it."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[Any]] = set()

    async def get(self, path: str) -> Any:
        return await self._client.get(path)

    async def create(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._to_its_end(self._client.create(path, body))

    async def update(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._to_its_end(self._client.update(path, body))

    async def patch(self, path: str, change: Mapping[str, Any]) -> Any:
        return await self._to_its_end(self._client.patch(path, change))

    async def settled(self) -> None:
        """Every request has been answered, or has failed."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Nothing is waited for any more. The client is another's to close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _to_its_end(self, request: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.create_task(request)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who asked may be gone
