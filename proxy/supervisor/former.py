"""What the former proxy cuts while it drains: told to its successor, which has the metrics port by then."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp

from proxy.errors import printable
from proxy.supervisor.cuts import Cut, decode

_log = logging.getLogger(__name__)

HELLO_S: Final = 5.0
"""The former one answers between two turns of its loop, as to everything a successor asks (take_over.ANSWER_S)."""


class FormerProxy:
    """GET /cuts of the proxy on `admin_socket`, from before its hand-over until its end. `report` gets each cut.

    One that is killed has told what it has told; one of a version that knows no /cuts tells nothing: its log does.
    """

    def __init__(self, admin_socket: Path, report: Callable[[Cut], None]) -> None:
        self._admin_socket = admin_socket
        self._report = report
        self._number = 0
        self._hearing: asyncio.Task[None] | None = None

    async def hear(self) -> None:
        """Returns when the former one will tell us, or will not."""
        greeted = asyncio.get_running_loop().create_future()
        self._hearing = asyncio.create_task(self._hear(greeted))
        await asyncio.wait((greeted, self._hearing), timeout=HELLO_S, return_when=asyncio.FIRST_COMPLETED)

    async def ended(self, within_s: float) -> None:
        """Returns when it has told everything, or when the time is over; at once when it does not tell."""
        if self._hearing is not None:
            await asyncio.wait((self._hearing,), timeout=within_s)

    async def close(self) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.wait((self._hearing,))

    async def _hear(self, greeted: asyncio.Future[None]) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=HELLO_S)
        connector = aiohttp.UnixConnector(str(self._admin_socket))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get("http://proxy/cuts") as answer,
            ):
                if answer.status != 200:
                    _log.warning("the former proxy is of another version: what it cuts is in its log only")
                    return
                greeted.set_result(None)
                async for line in answer.content:
                    self._take(decode(line))
            _log.info("the former proxy has ended; it cut %d connections", self._number)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _log.warning(
                "the former proxy tells no more of what it cuts, %d connections so far: %s",
                self._number,
                printable(str(error) or type(error).__name__),
            )

    def _take(self, cut: Cut) -> None:
        self._number += cut.number
        self._report(cut)
