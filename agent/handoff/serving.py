"""Whether the proxies that are connected serve, or wait for their policy: as they say themselves on objects.sock."""

import asyncio
from contextlib import suppress


class Serving:
    """Whoever dials a pod waits in vain while every proxy waits. One that says nothing serves: an older one, a foreign
    one, or one that had its policy before it came."""

    def __init__(self) -> None:
        self._serves: dict[object, bool] = {}
        self._answered = asyncio.Event()
        self._answered.set()

    @property
    def waits(self) -> bool:
        """A proxy is connected, and there is none that serves."""
        return not self._answered.is_set()

    def came(self, proxy: object) -> None:
        """A connection begins. Nothing is decided by that: if it has no policy, it says so at once."""
        self._serves[proxy] = True

    def heard(self, proxy: object, serves: bool) -> None:
        self._serves[proxy] = serves
        self._judge()

    def gone(self, proxy: object) -> None:
        """Its connection has ended; unknown ones are no error."""
        self._serves.pop(proxy, None)
        self._judge()

    async def until(self, patience_s: float) -> None:
        """Returns when nothing is waited for any more, or after `patience_s`. Raises nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while self.waits:  # once more where another proxy has come, and waits too
                    await self._answered.wait()

    def _judge(self) -> None:
        if self._serves and not any(self._serves.values()):
            self._answered.clear()
        else:
            self._answered.set()
