"""Kubernetes objects from the API server, for the proxies of this node: a watch for each kind.

The proxies hear nothing before every kind was listed once: half a policy is another policy. A kind that the server has
not counts as listed and may come later; one that the agent may not list does not.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from agent.kube.backoff import SPREAD_S
from agent.kube.client import ApiClient
from agent.kube.resources import Resource
from agent.kube.watch import Hearing, Name, Pace, Watch
from agent.printable import printable
from agent.sources.kinds import KINDS, pruned
from agent.sources.objects import Changes
from proxy.api import stream
from proxy.api.stream import ObjectName

_log: Final = logging.getLogger("headgate.sources")


class KubernetesObjects:
    """`changes` as ObjectsDirectory has it. Run `watch` beside it, for as long as it is asked."""

    def __init__(
        self, client: ApiClient, pace: Pace, kinds: Sequence[Resource] = KINDS, spread_s: float = SPREAD_S
    ) -> None:
        self._pace = pace
        self._spread_s = spread_s
        self._known: dict[Resource, set[Name]] = {kind: set() for kind in kinds}
        self._pending: dict[ObjectName, bytes | None] = {}
        self._more = asyncio.Event()
        self._told = False
        self._watches = [Watch(client, kind, self._hearing(kind), pace) for kind in kinds]

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from being up to date, one line a kind."""
        return tuple(watch.problem for watch in self._watches if watch.problem)

    def of_kind(self, kind: Resource) -> Iterator[ObjectName]:
        """What there is of one kind that is watched."""
        return (_object_name(kind, name) for name in self._known[kind])

    async def watch(self) -> None:
        """Never returns."""
        await self._pace.sleep(self._spread_s * self._pace.chance())
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run())

    async def changes(self) -> Changes:
        """The next change; the first time, all objects, once every kind was listed."""
        while True:
            await self._more.wait()
            self._more.clear()
            if self._told or all(watch.complete for watch in self._watches):
                self._told = True
                told, self._pending = self._pending, {}
                return told

    def _hearing(self, kind: Resource) -> Hearing[bytes]:
        return Hearing(_line, partial(self._listed, kind), partial(self._seen, kind))

    def _listed(self, kind: Resource, found: Mapping[Name, bytes]) -> None:
        known = self._known[kind]
        for gone in known - found.keys():
            self._pending[_object_name(kind, gone)] = None
        for name, line in found.items():
            self._pending[_object_name(kind, name)] = line
        known.clear()
        known.update(found)
        # The watch is complete only when this returns: looked at when `changes` goes on.
        asyncio.get_running_loop().call_soon(self._more.set)

    def _seen(self, kind: Resource, name: Name, line: bytes | None) -> None:
        self._pending[_object_name(kind, name)] = line
        (self._known[kind].discard if line is None else self._known[kind].add)(name)
        self._more.set()


def _line(body: dict[str, Any]) -> bytes | None:
    """Of the object stream. None for what no proxy would read."""
    try:
        line = stream.encode(stream.ObjectSeen(pruned(body)))
    except RecursionError:
        _log.warning("%s: nested too deeply; it is left out", printable(str(body.get("kind")), 80))
        return None
    if len(line) <= stream.MAX_OBJECT_LINE_BYTES:
        return line
    _log.warning("%s: larger than any object may be; it is left out", printable(str(body.get("kind")), 80))
    return None


def _object_name(kind: Resource, name: Name) -> ObjectName:
    return ObjectName(kind.group, kind.kind, name.namespace, name.name)
