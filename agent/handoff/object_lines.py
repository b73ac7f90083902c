"""The objects that proxies are told of: the latest version of each, and what each proxy has still to hear."""

import asyncio
from collections.abc import Mapping
from typing import Final

from proxy.api import stream
from proxy.api.stream import ObjectName

CHUNK_BYTES: Final = 1 << 16
"""Written in one go: what asyncio buffers for a slow reader (its high-water mark), one object's line more at most."""

MAX_WAITING: Final = 10_000
"""Names that wait beyond those of living objects. Only a reader that stands still while objects come and go gets there:
it is sent away, and its next connection begins with what there is then."""

_SYNCED: Final = ObjectName("", "", "", "")
_SYNCED_LINE: Final = stream.encode(stream.Synced())


class ReaderTooSlow(Exception):
    """Too much has changed since this proxy last read: close its connection, it will come again."""


class ObjectLines:
    """Encoded once, by name, and shared by all proxies that listen."""

    def __init__(self) -> None:
        self.lines: dict[ObjectName, bytes] = {}
        self.complete = False
        """All objects are known: before, no proxy hears Synced."""
        self._feeds: set[ObjectFeed] = set()

    def update(self, changes: Mapping[ObjectName, bytes | None]) -> None:
        """A line for each new version, None for what is gone; what is as it was is told to nobody again. The first call
        brings all there is."""
        changed = [name for name, line in changes.items() if self.lines.get(name) != line]
        for name in changed:
            line = changes[name]
            if line is None:
                self.lines.pop(name, None)
            else:
                self.lines[name] = line
        told = dict.fromkeys(changed) if self.complete else dict.fromkeys((*changed, _SYNCED))
        self.complete = True
        for feed in self._feeds:
            feed.renew(told)

    def subscribe(self) -> "ObjectFeed":
        """For one proxy that has just connected; hand it back with the connection."""
        feed = ObjectFeed(self)
        self._feeds.add(feed)
        return feed

    def unsubscribe(self, feed: "ObjectFeed") -> None:
        self._feeds.discard(feed)


class ObjectFeed:
    """What one proxy has still to hear: first every object and Synced, then what changes.

    It holds names only, each once: a proxy that reads slowly hears of the latest version when it gets there, and costs
    no more memory than there are objects (and MAX_WAITING).
    """

    def __init__(self, objects: ObjectLines) -> None:
        self._objects = objects
        self._waiting: dict[ObjectName, None] = {}
        self._overrun = False
        self._more = asyncio.Event()
        if objects.complete:
            self.renew(dict.fromkeys((*objects.lines, _SYNCED)))

    def renew(self, names: Mapping[ObjectName, None]) -> None:
        """These have a new version, or are gone."""
        if self._overrun:
            return
        self._waiting.update(names)
        if len(self._waiting) > len(self._objects.lines) + MAX_WAITING:
            self._waiting.clear()
            self._overrun = True
        self._more.set()

    async def next_chunk(self) -> bytes:
        """Whole lines, some CHUNK_BYTES together; waits while there is nothing to tell. Raises ReaderTooSlow."""
        await self._more.wait()
        if self._overrun:
            raise ReaderTooSlow(f"it did not read while {MAX_WAITING} objects came and went")
        chunk: list[bytes] = []
        size = 0
        while self._waiting and size < CHUNK_BYTES:
            name = next(iter(self._waiting))
            del self._waiting[name]
            chunk.append(self._line(name))
            size += len(chunk[-1])
        if not self._waiting:
            self._more.clear()
        return b"".join(chunk)

    def _line(self, name: ObjectName) -> bytes:
        if name is _SYNCED:
            return _SYNCED_LINE
        line = self._objects.lines.get(name)
        return stream.encode(stream.ObjectGone(name)) if line is None else line
