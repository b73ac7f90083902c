"""The webhook from start to end."""

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from agent.errors import CannotStart
from agent.kube.access import Access
from agent.kube.backoff import Backoff
from agent.kube.client import ApiClient
from agent.webhook.answering import Answering
from agent.webhook.keeper import INTERVAL_S, Keeper, Names
from agent.webhook.metrics import WebhookMetrics
from agent.webhook.review import Mutate
from agent.webhook.tls import Presented

_log: Final = logging.getLogger("headgate.webhook")

LINGER_S: Final = 10.0
"""Reviews are answered on for so long after SIGTERM: API servers reach a replica until kube-proxy has heard that it is
not ready, and a refused connection is a refused pod."""
_IDLE_S: Final = 300.0
"""Longer than API servers keep an idle connection (net/http: 90 s), so that it is never closed under a question."""
_UNTIL_CLOSED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`port`, `health_port` 0: the kernel chooses. `bind` empty: every address."""

    access: Access
    names: Names
    port: int
    health_port: int
    bind: tuple[str, ...] = ()
    linger_s: float = LINGER_S


async def serve(settings: WebhookSettings, mutate: Mutate) -> None:
    """Runs until SIGTERM or SIGINT. Raises CannotStart."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    client = ApiClient(settings.access, time.monotonic, time.time)
    try:
        await run(settings, client, mutate, stopping)
    finally:
        await client.close()


async def run(settings: WebhookSettings, client: ApiClient, mutate: Mutate, stopping: asyncio.Event) -> None:
    """Until `stopping` is set, and for `linger_s` more. Raises CannotStart."""
    presented, chance = Presented(), random.Random()  # noqa: S311 - spreads load; nothing secret hangs on it
    keeper = Keeper(client, settings.names, presented, time.time)
    answering = Answering(mutate, lambda: keeper.standing, WebhookMetrics(), time.time)
    async with (
        _listening(answering.health(), settings, settings.health_port),
        _beside(look_on(keeper, chance.random), stopping),
    ):
        # Without a certificate nobody could be answered: who connects so early is refused, and asks another replica.
        await _first_of(keeper.serves, stopping)
        if not stopping.is_set():
            async with _listening(answering.reviews(), settings, settings.port, presented):
                answering.listening = True
                _log.info("reviews are answered on port %s", settings.port)
                await stopping.wait()
                answering.leaving = True
                await asyncio.sleep(settings.linger_s)


async def look_on(keeper: Keeper, chance: Callable[[], float]) -> None:
    """For ever: what is due, and what others have changed. `chance` in [0, 1)."""
    backoff = Backoff()
    while True:
        backoff = Backoff() if await keeper.look() else backoff.failed()
        await asyncio.sleep(backoff.delay_s(chance()) if backoff.failures else INTERVAL_S)


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> AsyncIterator[None]:
    """While the block runs. Should it end before, that is a fault: all stops, and it is raised."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: stopping.set())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


@contextlib.asynccontextmanager
async def _listening(
    application: web.Application, settings: WebhookSettings, port: int, presented: Presented | None = None
) -> AsyncIterator[None]:
    """Raises CannotStart. Over TLS with `presented`."""
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, shutdown_timeout=_UNTIL_CLOSED_S, keepalive_timeout=_IDLE_S
    )
    await runner.setup()
    context = None if presented is None else presented.context
    try:
        for address in settings.bind or (None,):
            try:
                await web.TCPSite(runner, address, port, ssl_context=context).start()
            except OSError as error:
                raise CannotStart(f"port {port}: {error.strerror or error}; choose another, or a --bind") from error
        yield
    finally:
        await runner.cleanup()
