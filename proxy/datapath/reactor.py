"""The worker's one loop: readiness and timers.

Not asyncio: per connection its transports and protocols cost several times the system calls (feasibility part 2: raw
epoll 5,139 connections/s, uvloop 2,996), and the path of a request needs nothing of it.
"""

import heapq
import select
import time
from collections.abc import Callable
from itertools import count
from typing import Final

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
"""Reset, or both directions ended; epoll tells of it unasked."""

TICK_S: Final = 1.0
"""Grain of idle and header time-outs, which are tens of seconds."""

Handler = Callable[[int], None]


class Reactor:
    """Dispatches readiness to handlers, level-triggered: a handler may leave work for the next turn.

    Descriptors that are closed in a turn are deaf for the rest of it: their number may belong to a new connection
    already, for which the turn's events were not meant. What is really there is told again in the next.
    """

    __slots__ = ("_closed", "_epoll", "_handlers", "_order", "_stopped", "_ticks", "_timers")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._ticks: list[Callable[[float], None]] = []
        self._order = count()
        self._closed: set[int] = set()  # in this turn
        self._stopped = False

    def watch(self, fd: int, handler: Handler, events: int = READABLE) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def rewire(self, fd: int, handler: Handler) -> None:
        """Another owner for a watched descriptor; no system call."""
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed (closing alone would do for epoll, not for the handler)."""
        if self._handlers.pop(fd, None) is not None:
            self._closed.add(fd)
            self._epoll.unregister(fd)

    def close_watched(self, fd: int) -> None:
        """Drop the handler of a descriptor that is closed next, and that nothing else refers to: epoll drops it by
        itself (epoll(7), Q6), which spares a system call a connection."""
        self._handlers.pop(fd, None)
        self._closed.add(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Cannot be cancelled: the callback looks whether it is still wanted."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), callback))

    def on_tick(self, callback: Callable[[float], None]) -> None:
        """Called about every TICK_S with `time.monotonic()`."""
        self._ticks.append(callback)

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until `stop`. An exception of a handler ends the worker: its supervisor starts another."""
        poll = self._epoll.poll
        handlers = self._handlers
        closed = self._closed
        timers = self._timers
        next_tick = time.monotonic() + TICK_S
        while not self._stopped:
            wake = min(next_tick, timers[0][0]) if timers else next_tick
            for fd, events in poll(max(0.0, wake - time.monotonic()), 512):
                handler = handlers.get(fd)
                if handler is not None and fd not in closed:
                    handler(events)
            closed.clear()
            now = time.monotonic()
            while timers and timers[0][0] <= now:
                heapq.heappop(timers)[2]()
            if now >= next_tick:
                next_tick = now + TICK_S
                for tick in self._ticks:
                    tick(now)

    def close(self) -> None:
        self._epoll.close()
