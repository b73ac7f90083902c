"""A capture while it runs: packets held back until conntrack has told of their connections, then written.

Made inside a namespace (agent.cli.target.Namespace.call), then used from any thread: sockets stay where they were made.
"""

import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Self

from agent.capture import frames
from agent.capture.output import Captured, Output
from agent.capture.translations import Belongs, Seen, Translations, comment
from agent.kernel import conntrack_news
from agent.kernel.netlink import Netlink
from agent.kernel.nft_messages import NETLINK_NETFILTER
from agent.kernel.nftrace import TraceSocket
from agent.kernel.packets import BUFFER_BYTES, OUTGOING, Frame, PacketSocket
from agent.tracing.filter import Filter
from agent.tracing.headers import Headers

SNAPLEN: Final = 262_144
"""tcpdump's."""
_HEADERS: Final = 512
"""Read of each packet, however short it is to be written: what it is, is told by these."""

HELD_S: Final = 0.3
"""A new connection is told of when its first packet has passed all rules (nf_conntrack_core.c: __nf_conntrack_confirm),
which over lo is after it was caught: microseconds, but where a program holds it back (NFQUEUE)."""
_HELD_AT_MOST: Final = 20_000
"""Packets; beyond, they are written without waiting."""
_AT_ONCE: Final = 2000
_TICK_S: Final = 0.1
_LAST_S: Final = 1.0


class Capture:
    """Raises OSError when the namespace does not let it. It hears from when it is made."""

    def __init__(self, wanted: Filter, snaplen: int = SNAPLEN, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.written = 0
        self.skipped: set[str] = set()
        self._wanted = wanted
        self._translations = Translations()
        self._held: deque[tuple[float, int, Frame]] = deque()  # when read, how many were lost before it
        self._lost_before = self._told_lost = self._missing = 0
        with ExitStack() as made:
            # News first, then what is there, then packets: no connection of a packet falls between.
            self._connections = made.enter_context(TraceSocket.of_connections())
            netlink = made.enter_context(Netlink(NETLINK_NETFILTER))
            for connection in conntrack_news.translated(netlink):
                self._translations.add(connection)
            self._packets = made.enter_context(PacketSocket(max(snaplen, _HEADERS), buffer_bytes))
            self._poll = select.poll()
            for sock in (self._packets, self._connections):
                self._poll.register(sock.fileno(), select.POLLIN)
            self._made = made.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    @property
    def lost(self) -> int:
        """Packets that were not read, so far."""
        return self._packets.lost()

    @property
    def unnamed(self) -> int:
        """Packets of interfaces whose name is no UTF-8, so far: they are not captured."""
        return self._packets.unnamed

    @property
    def unheard(self) -> int:
        """Connections whose packets may lack a comment, so far."""
        return self._connections.lost()

    def run(self, output: Output, until_s: float, count: int, stopped: Callable[[], bool]) -> None:
        """Until `until_s` (monotonic), until `count` packets were written (0: any number), or until `stopped`. Raises
        OSError when the output cannot be written."""
        ending = False
        while not ending and not (count and self.written >= count):
            left = until_s - time.monotonic()
            ending = left <= 0 or stopped()
            if not ending:
                self._poll.poll(min(left, _TICK_S) * 1000)
            last_s = time.monotonic() + _LAST_S
            while self._read() and ending and time.monotonic() < last_s:
                pass  # what came before the end is there to be read; what comes after it must not go on for ever
            self._write(output, time.monotonic() - (0.0 if ending else HELD_S), count)
            output.flush()

    def _read(self) -> bool:
        """Whether there may be more."""
        now_s, before = time.monotonic(), len(self._held)
        for frame in self._packets.read(_AT_ONCE):
            self._held.append((now_s, self._lost_before, frame))
            self._lost_before = 0
        # The buffer was full behind what it had: they are missing before the next one.
        lost = self._packets.lost()
        self._lost_before += lost - self._told_lost
        self._told_lost = lost
        for data in self._connections.read(_AT_ONCE):
            if (connection := conntrack_news.decode(data)) is not None:
                self._translations.add(connection)
        return len(self._held) - before >= _AT_ONCE

    def _write(self, output: Output, before_s: float, count: int) -> None:
        """What was read before `before_s`."""
        while self._held and (self._held[0][0] <= before_s or len(self._held) > _HELD_AT_MOST):
            if count and self.written >= count:
                return
            _, lost, frame = self._held.popleft()
            self._missing += lost
            if (packet := self._captured(frame)) is not None:
                self._missing = 0
                output.take(packet)
                self.written += 1

    def _captured(self, frame: Frame) -> Captured | None:
        """None for one that is not meant."""
        link_type = frames.LINK_TYPES.get(frame.hardware)
        if link_type is None or not frame.interface:
            self.skipped.add(frame.interface or "an interface that went")
            return None
        if self._wanted.interface not in (None, frame.interface):
            return None
        found = frames.of(link_type, frame.data)
        seen = Seen.TRANSLATED if frame.kind == OUTGOING or frame.interface == "lo" else Seen.AS_SENT
        belongs = None if found is None else self._translations.of(found, seen)
        if not self._is_meant(found, belongs):
            return None
        told = "" if belongs is None else comment(belongs, seen)
        return Captured(frame, link_type, found, told, self._missing)

    def _is_meant(self, found: Headers | None, belongs: Belongs | None) -> bool:
        """A connection is meant by what its packets look like before translation and after."""
        wanted = self._wanted
        if not wanted.names_ends:
            return True
        if found is None:
            return False
        if wanted.either_way(found.protocol, *found.ends):
            return True
        if belongs is None:
            return False
        connection = belongs.connection
        return any(
            wanted.either_way(connection.protocol, way.source, way.source_port, way.destination, way.destination_port)
            for way in (connection.original, connection.reply)
        )
