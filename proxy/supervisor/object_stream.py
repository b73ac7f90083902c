"""Objects as the agent streams them: taken in on the policy thread, in force once all of them have come."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from proxy.api import stream
from proxy.config.object_table import ObjectTable
from proxy.config.objects import ObjectSet
from proxy.supervisor.verdicts import Verdicts

_log = logging.getLogger(__name__)

MAX_PENDING_BYTES: Final = 2 * stream.MAX_OBJECT_LINE_BYTES
"""Lines that wait to be understood; beyond it nothing is read from the agent, which keeps the latest of each object."""
FOREIGN_AGENT_S: Final = 1.0
"""An agent that is connected over ZDS and has had no object stream for so long has none (istio-cni): ours listens there
before it speaks ZDS."""

_BEGIN: Final = b""
"""Stands between the lines of one connection and those of the next."""


class ObjectStream:
    """The object stream as a source of policy, and what its connection is told of (proxy.supervisor.agent_link).

    `without_objects` is called when the agent has said, or shown, that no objects will come: there is no policy then.
    """

    def __init__(
        self,
        without_objects: Callable[[], None],
        agent_connected: Callable[[], bool],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._without_objects = without_objects
        self._agent_connected = agent_connected
        self._clock_s = clock_s
        self._refused_since_s: float | None = None
        self._table = ObjectTable()
        self._pending: deque[bytes] = deque()
        # Two sums rather than one difference: each is written by one thread only.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self.verdicts = Verdicts()
        self.streamed = False
        """Objects come this way: a pod is served once its own is known."""

    # ── What the connection tells ──────────────────────────────────────────────────────────────────────────────────

    def greeted(self, hello: stream.Hello) -> None:
        """A connection begins. What is in force stays until the stream has told everything."""
        if hello.objects == "stream":
            self.streamed = True
            self._put(_BEGIN)
        elif self.streamed:
            _log.warning("the agent streams objects no more: the policy in force stays as it is")
        else:
            self._without_objects()

    async def heard(self, line: bytes) -> None:
        """A line that followed the greeting; returns when there is room for the next."""
        self._put(line)
        while self._put_bytes - self._taken_bytes > MAX_PENDING_BYTES:
            self._room.clear()
            await self._room.wait()

    def refused(self) -> None:
        """Nobody listens for the object stream."""
        if self.streamed or not self._agent_connected():
            self._refused_since_s = None
            return
        now_s = self._clock_s()
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        elif now_s - self._refused_since_s >= FOREIGN_AGENT_S:
            self._without_objects()

    def _put(self, line: bytes) -> None:
        self._pending.append(line)
        self._put_bytes += len(line)
        self._more.set()

    # ── What policy asks ───────────────────────────────────────────────────────────────────────────────────────────

    async def wait(self) -> None:
        self._room.set()
        self.verdicts.renew()
        await self._more.wait()
        self._more.clear()

    def next(self) -> ObjectSet | None:
        """On the policy thread: takes in what has come so far."""
        heard = 0
        while self._pending:
            line = self._pending.popleft()
            heard += 1
            self._taken_bytes += len(line)
            self._take(line)
        return self._table.objects() if heard and self._table.complete else None

    def _take(self, line: bytes) -> None:
        if line is _BEGIN:
            self._table.begin()
            return
        try:
            message = stream.decode(line)
        except stream.InvalidMessage as error:
            # Not silently: an object may be missing for it. The agent writes each line whole or not at all.
            _log.error("a line of the object stream cannot be understood: %s", error)
            return
        match message:
            case stream.ObjectSeen():
                self.verdicts.judged(self._table.put(message))
            case stream.ObjectGone():
                self._table.drop(message)
                self.verdicts.gone(message.name)
            case stream.Synced():
                for key in self._table.finish():
                    self.verdicts.gone(stream.ObjectName(*key))
