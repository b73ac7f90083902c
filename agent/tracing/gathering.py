"""The kernel's trace messages, gathered by packet. Pure: the caller tells the time.

A packet begins where a rule of this trace's own table marks it; messages of packets that another trace marked are left
out. Over lo the kernel gives it another trace id: it is known again by what translation leaves as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from agent.kernel.nftrace import RULE, TraceEvent
from agent.tracing import headers
from agent.tracing.headers import Headers, Identity

QUIET_S: Final = 0.1
"""A packet that no message told of for so long has gone its way: a namespace is passed in microseconds. One that a
program holds back (NFQUEUE) may be told in two parts."""
_AGAIN_S: Final = 1.0
_INET: Final = 1  # NFPROTO_INET: the family of our table


@dataclass(slots=True)
class Gathered:
    """The messages of one packet, in the kernel's order."""

    number: int
    begun_s: float
    sent: Headers
    mark: int = 0
    iif: int = 0
    events: list[TraceEvent] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    last_s: float = 0.0

    @property
    def ct_id(self) -> int | None:
        return next((event.ct_id for event in reversed(self.events) if event.ct_id is not None), None)


class Gathering:
    """`read`: how often a packet was seen to be marked by this trace: once for each hook that marks."""

    def __init__(self, table: str) -> None:
        self.read = 0
        self._table = table
        self._count = 0
        self._open: dict[int, Gathered] = {}
        self._by_id: dict[int, Gathered] = {}
        self._by_identity: dict[Identity, Gathered] = {}

    def take(self, event: TraceEvent, now_s: float) -> None:
        packet = self._by_id.get(event.trace_id)
        if event.table == self._table and event.family == _INET and event.kind == RULE and event.handle:
            self.read += 1
            packet = self._begun(event, packet, now_s)
        elif packet is None and event.network:
            seen = headers.of(event.nfproto, event.network, event.transport)
            packet = self._known_again(event, seen, now_s) if seen is not None else None
        if packet is None:
            return
        packet.events.append(event)
        packet.last_s = now_s

    def _begun(self, event: TraceEvent, had: Gathered | None, now_s: float) -> Gathered | None:
        """The packet that a rule of ours marked: a new one, or one that comes back over lo."""
        seen = headers.of(event.nfproto, event.network, event.transport)
        if seen is None:
            return None
        if event.iif and (again := self._known_again(event, seen, now_s)) is not None:
            return again
        # The kernel makes the id of the buffer's address, which the next packet may get (nf_tables_trace.c).
        if had is not None:
            had.ids.discard(event.trace_id)
        self._count += 1
        packet = Gathered(self._count, now_s, seen, event.mark, event.iif, ids={event.trace_id})
        self._open[packet.number] = self._by_id[event.trace_id] = packet
        self._by_identity[seen.identity] = packet
        return packet

    def _known_again(self, event: TraceEvent, seen: Headers, now_s: float) -> Gathered | None:
        packet = self._by_identity.get(seen.identity)
        if packet is None or now_s - packet.last_s > _AGAIN_S:
            return None
        before = packet.ct_id
        if before is not None and event.ct_id is not None and before != event.ct_id:
            return None
        if (had := self._by_id.get(event.trace_id)) is not None:
            had.ids.discard(event.trace_id)
        packet.ids.add(event.trace_id)
        self._by_id[event.trace_id] = packet
        return packet

    def done(self, now_s: float, quiet_s: float = QUIET_S) -> Iterator[Gathered]:
        """Those that have gone their way, in the order in which they began; they are forgotten here."""
        gone = [packet for packet in self._open.values() if now_s - packet.last_s >= quiet_s]
        for packet in gone:
            del self._open[packet.number]
            for trace_id in packet.ids:
                self._by_id.pop(trace_id, None)
            if self._by_identity.get(packet.sent.identity) is packet:
                del self._by_identity[packet.sent.identity]
            yield packet
