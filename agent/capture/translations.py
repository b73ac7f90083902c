"""Which connection a captured packet is of, and what translation hides of it. Pure.

A packet of a translated connection looks in four ways, by direction and by whether translation is behind it. What is
sent here is seen after translation, and over lo, too; what arrives by another interface, before.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.kernel.conntrack_news import Connection, Direction
from agent.pods import IPAddress
from agent.tracing.headers import Headers, end
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT

KEPT: Final = 32_768
"""Translated connections that are remembered, those that no packet was seen of for longest go first: 60 MB."""
_STEERED: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT})

_Key = tuple[int, IPAddress, int | None, IPAddress, int | None]


class Seen(Enum):
    """Where a packet was caught."""

    TRANSLATED = "after translation"  # sent here, or over lo
    AS_SENT = "before translation"  # arriving from elsewhere


@dataclass(frozen=True, slots=True)
class Belongs:
    """`answers`: the packet goes against the direction in which the connection was opened."""

    connection: Connection
    answers: bool


class Translations:
    """The translated connections that are known so far, by what their packets look like."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._by_look: dict[tuple[Seen, _Key], Belongs] = {}
        self._by_id: dict[int, Connection] = {}

    def add(self, connection: Connection) -> None:
        """One that is not translated is not kept."""
        if connection.original == _reverse(connection.reply):
            return
        for look, belongs in _looks(connection).items():
            self._by_look[look] = belongs
        self._by_id.pop(connection.ct_id, None)
        self._by_id[connection.ct_id] = connection
        if len(self._by_id) > self._kept:
            self._forget(self._by_id.pop(next(iter(self._by_id))))

    def _forget(self, oldest: Connection) -> None:
        for look, belongs in _looks(oldest).items():
            if self._by_look.get(look) == belongs:  # the same ports may be another connection's by now
                del self._by_look[look]

    def of(self, packet: Headers, seen: Seen) -> Belongs | None:
        found = self._by_look.get((seen, (packet.protocol, *packet.ends)))
        if found is not None:  # the latest goes last
            self._by_id[found.connection.ct_id] = self._by_id.pop(found.connection.ct_id)
        return found


def _looks(connection: Connection) -> dict[tuple[Seen, _Key], Belongs]:
    original, reply = connection.original, connection.reply
    opens, answers = Belongs(connection, answers=False), Belongs(connection, answers=True)
    return {
        (Seen.AS_SENT, _key(connection, original)): opens,
        (Seen.TRANSLATED, _key(connection, _reverse(reply))): opens,
        (Seen.AS_SENT, _key(connection, reply)): answers,
        (Seen.TRANSLATED, _key(connection, _reverse(original))): answers,
    }


def _key(connection: Connection, way: Direction) -> _Key:
    return connection.protocol, way.source, way.source_port, way.destination, way.destination_port


def _reverse(way: Direction) -> Direction:
    return Direction(way.destination, way.destination_port, way.source, way.source_port)


def comment(belongs: Belongs, seen: Seen) -> str:
    """`to 10.96.0.10:80 before translation (steered to 15001)`; of an answer `from 127.0.0.1:15001 before translation
    (steered to 15001)`; of what arrives, `to 10.0.0.5:15006 after translation (steered to 15006)`."""
    original, reply = belongs.connection.original, belongs.connection.reply
    was, becomes = (reply, _reverse(original)) if belongs.answers else (original, _reverse(reply))
    other = was if seen is Seen.TRANSLATED else becomes
    here = becomes if seen is Seen.TRANSLATED else was
    parts = []
    if _at_source(other) != _at_source(here):
        parts.append(f"from {end(*_at_source(other))}")
    if _at_destination(other) != _at_destination(here):
        parts.append(f"to {end(*_at_destination(other))}")
    steered = f" (steered to {reply.source_port})" if reply.source_port in _STEERED else ""
    when = "before translation" if seen is Seen.TRANSLATED else "after translation"
    return f"{' '.join(parts)} {when}{steered}" if parts else ""


def _at_source(way: Direction) -> tuple[IPAddress, int | None]:
    return way.source, way.source_port


def _at_destination(way: Direction) -> tuple[IPAddress, int | None]:
    return way.destination, way.destination_port
