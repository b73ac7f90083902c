"""What asyncio leaves out: waiting for a descriptor, a pause that ends early, and one that grows."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from socket import socket


async def readable(sock: socket) -> None:
    """Returns when the socket has something to read, end of file included."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def pause(seconds: float, woken: asyncio.Event) -> None:
    """Until the time is over or somebody sets `woken`, which is cleared."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()
    woken.clear()


@dataclass(slots=True)
class BackOff:
    """Doubles from `first_s` to `last_s`; `reset` after a success."""

    first_s: float
    last_s: float
    _next_s: float = 0.0

    def next_s(self) -> float:
        pause_s = self._next_s or self.first_s
        self._next_s = min(pause_s * 2, self.last_s)
        return pause_s

    def reset(self) -> None:
        self._next_s = 0.0
