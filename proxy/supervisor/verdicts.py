"""What was decided on objects whose kind has a status for that: found on the policy thread, told to the agent."""

import asyncio
from collections import deque
from typing import Final

from proxy.api import stream
from proxy.api.stream import ObjectName, Verdict
from proxy.config.objects import Admitted

CHUNK: Final = 64
"""Verdicts that are sent together, 130 KB at the most: a proof that comes meanwhile waits for no more."""
_ABSENT: Final = 0


class Verdicts:
    """Each is told once a connection, and again when it is another; what waits is held once, in its latest version."""

    def __init__(self) -> None:
        self._found: deque[Verdict | ObjectName] = deque()  # from thread to loop
        self._latest: dict[ObjectName, Verdict] = {}
        self._waiting: dict[ObjectName, None] = {}
        self._more = asyncio.Event()

    # ── On the policy thread ───────────────────────────────────────────────────────────────────────────────────────
    def judged(self, admitted: Admitted | None) -> None:
        if admitted is not None and admitted.raw.key.group == stream.JUDGED_GROUP:
            self._found.append(verdict_of(admitted))

    def gone(self, name: ObjectName) -> None:
        if name.group == stream.JUDGED_GROUP:
            self._found.append(name)

    # ── On the loop ────────────────────────────────────────────────────────────────────────────────────────────────
    def renew(self) -> None:
        """What was found is to be told."""
        while self._found:
            found = self._found.popleft()
            if not isinstance(found, Verdict):
                self._latest.pop(found, None)
                self._waiting.pop(found, None)
            elif self._latest.get(found.name) != found:
                self._latest[found.name] = found
                self._waiting[found.name] = None
        if self._waiting:
            self._more.set()

    def begin(self) -> None:
        """Somebody listens who has heard nothing yet."""
        self._waiting = dict.fromkeys(self._latest)
        if self._waiting:
            self._more.set()

    async def next_chunk(self) -> bytes:
        """Whole lines; waits while there is nothing to tell."""
        while True:
            await self._more.wait()
            names = list(self._waiting)[:CHUNK]
            for name in names:
                del self._waiting[name]
            if not self._waiting:
                self._more.clear()
            if names:
                return b"".join(stream.encode(self._latest[name]) for name in names)


def verdict_of(admitted: Admitted) -> Verdict:
    raw, rejection = admitted.raw, admitted.rejection
    name = ObjectName(raw.key.group, raw.key.kind, raw.key.namespace, raw.key.name)
    metadata = raw.body.get("metadata")
    generation = metadata.get("generation") if isinstance(metadata, dict) else None
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        generation = _ABSENT
    if rejection is None:
        return Verdict(name, generation, True)
    return Verdict(name, generation, False, rejection.field, rejection.reason)
