"""Our own client in a test: open for as long as it is used, and every connection of it really closed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.kube.watch import Watch
from tests.apiserver.caller import ANSWER_S


@asynccontextmanager
async def client_of(access: Access) -> AsyncIterator[ApiClient]:
    client = ApiClient(access, time.monotonic, time.time)
    try:
        yield client
    finally:
        await client.close()
        # A connection that was left in the middle of a watch says good-bye by TLS and waits for the answer: a loop that
        # ends meanwhile leaves its transport behind. One descriptor is the loop's own.
        selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        await held(lambda: len(selector.get_map()) <= 1, "every connection closed")


async def settled(watches: Sequence[Watch[Any]]) -> None:
    """Each is open, or waits for its kind to come. One that is cancelled while it connects leaves a transport behind:
    CPython 3.11 closes none whose TLS has not begun."""
    await held(
        lambda: all(watch._followed_since_s is not None or not watch._served for watch in watches), "open watches"
    )


async def held(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + ANSWER_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {ANSWER_S:g} s: {what}"
        await asyncio.sleep(0.02)
