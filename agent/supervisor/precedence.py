"""What may wait gives way: while pods are let into the mesh, nobody's redirection is proved."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATIENCE_S: Final = 2.0
"""250 pods are let in within a second (issue 3). Longer than two of them nothing of worth is delayed: a proof is due
each minute, and an announcement may be without its answer for five seconds (proxy.api.zds.REQUEST_TIMEOUT_S)."""


class Precedence:
    """Counts what goes first. Of one event loop."""

    def __init__(self) -> None:
        self._first = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around each step of a pod's way in."""
        self._first += 1
        self._none.clear()
        try:
            yield
        finally:
            self._first -= 1
            if not self._first:
                self._none.set()

    async def give_way(self, patience_s: float = PATIENCE_S) -> None:
        """Returns when nothing goes first, or after `patience_s`. Raises nothing."""
        try:
            async with asyncio.timeout(patience_s):
                # From one step to the next of a single pod nothing is counted for an instant: hence the loop.
                while self._first:
                    await self._none.wait()
        except TimeoutError:
            return
