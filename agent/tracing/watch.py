"""A trace while it runs: the kernel's sockets, the table, and what is gathered of both.

Made inside a namespace (agent.cli.target.Namespace.call), then used from any thread: sockets stay where they were made.
"""

import os
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Self

from agent.kernel import conntrack_news, nft_owned, nftrace
from agent.kernel.conntrack_news import Connection, Direction
from agent.kernel.netlink import Netlink
from agent.kernel.nft_messages import NETLINK_NETFILTER
from agent.kernel.nft_owned import OwnedTable
from agent.kernel.nftrace import TraceSocket
from agent.kernel.refused import KernelRefused
from agent.tracing import known
from agent.tracing.filter import Filter
from agent.tracing.gathering import QUIET_S, Gathered, Gathering
from agent.tracing.joining import joined
from agent.tracing.known import Known
from agent.tracing.table import NAME_PREFIX, PER_SECOND, script
from agent.tracing.traced import Loss, Trace, TracedPacket

_NAMES: Final = 10**9
_AT_ONCE: Final = 2000
"""Messages read before what is done is handed out: some 30 ms."""
_CONNECTIONS_KEPT: Final = 65_536
"""New connections that no traced packet has claimed yet; the oldest go first."""


@dataclass(slots=True)
class _Heard:
    """New connections, by the kernel's id and by what their first packet looked like."""

    by_id: dict[int, Connection] = field(default_factory=dict)
    by_first: dict[tuple[object, ...], Connection] = field(default_factory=dict)

    def add(self, connection: Connection) -> None:
        self.by_id[connection.ct_id] = connection
        self.by_first[_first(connection)] = connection
        if len(self.by_id) > _CONNECTIONS_KEPT:
            oldest = self.by_id.pop(next(iter(self.by_id)))
            self.by_first.pop(_first(oldest), None)

    def of(self, packet: Gathered) -> Connection | None:
        if (ct_id := packet.ct_id) is not None:
            return self.by_id.get(ct_id)
        return self.by_first.get((packet.sent.protocol, *packet.sent.ends))


def _first(connection: Connection) -> tuple[object, ...]:
    sent = connection.original
    return connection.protocol, sent.source, sent.source_port, sent.destination, sent.destination_port


class Watch:
    """Raises KernelRefused or OSError when the namespace does not let it; then nothing is left there."""

    def __init__(self, wanted: Filter, per_second: int = PER_SECOND, buffer_bytes: int = nftrace.BUFFER_BYTES) -> None:
        # The process's number alone may be that of another container's, which traces the same namespace.
        self.table = f"{NAME_PREFIX}{os.getpid()}-{secrets.randbelow(_NAMES)}"
        self._heard = _Heard()
        self._gathering = Gathering(self.table)
        self._drained_s = time.monotonic()
        # Wall clock and monotonic clock of one moment: packets are dated by both.
        self._epoch_s = time.time() - time.monotonic()
        with ExitStack() as made:
            # Listeners first: entries are told only when somebody listened as they were made.
            self._connections = made.enter_context(TraceSocket.of_connections())
            self._trace = made.enter_context(TraceSocket(buffer_bytes=buffer_bytes))
            self._netlink = made.enter_context(Netlink(NETLINK_NETFILTER))
            made.enter_context(OwnedTable(self.table, script(self.table, wanted, per_second)))
            self.known = known.read()
            self.interfaces = dict(socket.if_nameindex())
            self._poll = select.poll()
            for sock in (self._trace, self._connections):
                self._poll.register(sock.fileno(), select.POLLIN)
            self._made = made.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the table away."""
        self._made.close()

    def wait(self, timeout_s: float) -> None:
        """Until there is something to read."""
        self._poll.poll(max(0.0, timeout_s) * 1000)

    def read(self) -> int:
        """What is there, at most some thousand messages; how many it were."""
        count = 0
        for data in self._connections.read(_AT_ONCE):
            count += 1
            if (connection := conntrack_news.decode(data)) is not None:
                self._heard.add(connection)
        now_s = time.monotonic()
        of_trace = 0
        for data in self._trace.read(_AT_ONCE):
            of_trace += 1
            if (event := nftrace.decode(data)) is not None:
                self._gathering.take(event, now_s)
        if of_trace < _AT_ONCE:
            self._drained_s = now_s
        return count + of_trace

    def read_all(self, at_most_s: float = 2.0) -> None:
        """Until nothing is there."""
        until = time.monotonic() + at_most_s
        while self.read() and time.monotonic() < until:
            pass

    def done(self, quiet_s: float = QUIET_S) -> Iterator[TracedPacket]:
        """Packets that have gone their way since the last call."""
        # Of what still waits in the socket nobody knows yet whose it is, however long a busy reader lets it wait.
        for packet in self._gathering.done(self._drained_s, quiet_s):
            connection = self._heard.of(packet) or self._looked_up(packet)
            yield joined(packet, self.known, self.interfaces, connection, self.table, self._epoch_s + packet.begun_s)

    def _looked_up(self, packet: Gathered) -> Connection | None:
        """Of one that was there before the trace."""
        with suppress(OSError):
            found = conntrack_news.find(self._netlink, packet.sent.protocol, Direction(*packet.sent.ends))
            if found is not None and packet.ct_id in (None, found.ct_id):  # else it is another zone's
                return found
        return None

    def loss(self) -> Loss:
        """So far. What was not read yet counts as lost: ask when `read` finds nothing more."""
        counted = nft_owned.counters(self._netlink, self.table).values()
        meant, begun = (sum(numbers[place] for numbers in counted if len(numbers) == 2) for place in (0, 1))
        return Loss(begun, self._gathering.read, self._trace.lost(), meant - begun, self._connections.lost())

    def learn(self, now: Known) -> bool:
        """Another reading of the rules; whether they changed."""
        differs = self.known.differs(now)
        self.known = self.known.later(now)
        return differs


def run(
    watch: Watch,
    show: Callable[[TracedPacket], None],
    until_s: float,
    at_most: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Shows each packet as it is done, until `until_s` (monotonic), until `at_most` were (0: any number), or until
    `stopped`; how many it were."""
    shown = 0
    ending = False
    while not ending and not (at_most and shown >= at_most):
        left = until_s - time.monotonic()
        ending = left <= 0 or stopped()
        if ending:
            watch.read_all()
        else:
            watch.wait(min(left, QUIET_S / 2))
            watch.read()
        for packet in watch.done(0.0 if ending else QUIET_S):
            show(packet)
            shown += 1
            if at_most and shown >= at_most:
                break
    return shown


def trace_while(wanted: Filter, act: Callable[[], object], *, quiet_s: float = 0.2, at_most_s: float = 3.0) -> Trace:
    """Traces what is sent while `act` runs, in the namespace of the calling thread, until nothing was told for
    `quiet_s`, or for `at_most_s`. `act` is called after the table is in force; its exception passes, and then nothing
    is left there. Raises KernelRefused or OSError."""
    with Watch(wanted) as watch:
        act()
        until = time.monotonic() + at_most_s
        while (left := until - time.monotonic()) > 0:
            watch.wait(min(quiet_s, left))
            if not watch.read():
                break
        packets = tuple(watch.done(quiet_s=0.0))
        return Trace(packets, watch.loss(), notes(watch))


def notes(watch: Watch) -> tuple[str, ...]:
    """What else is to be known of a trace; in the namespace's own thread. Raises nothing."""
    said = [
        f"iptables-legacy holds rules ({family}): they send no trace, what they do is not shown"
        for family in watch.known.legacy
    ]
    said += [f"not read: {reason}" for reason in watch.known.unread]
    try:
        if known.generation() != watch.known.generation and watch.learn(known.read()):
            said.append("the rules were changed while they were traced; what is not as it was is marked")
    except (OSError, KernelRefused) as error:
        said.append(f"whether the rules were changed meanwhile cannot be told: {error}")
    return tuple(said)
