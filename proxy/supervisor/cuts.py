"""Connections that this proxy ended before they had ended by themselves: counted once, where they can be scraped.

Until another proxy takes this one's metrics port that is its own page. From then on it is the other one's, which asks
for the cuts (GET /cuts on the admin socket) before it takes over, and hears each as it happens.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum

from proxy.telemetry.series import CounterKey


class Why(Enum):
    DRAIN_OVER = "drain_over"  # its pod left, or the proxy ended, and it lived on beyond the drain
    WORKER_ENDED = "worker_ended"  # the process that held it was killed


@dataclass(frozen=True, slots=True)
class Cut:
    """`number` connections of a pod."""

    namespace: str
    pod: str
    why: Why
    number: int

    @property
    def key(self) -> CounterKey:
        return CounterKey(
            "headgate_connections_cut", ("namespace", "pod", "reason"), (self.namespace, self.pod, self.why.value)
        )


def encode(cut: Cut) -> bytes:
    """One line."""
    return json.dumps({**asdict(cut), "why": cut.why.value}).encode() + b"\n"


def decode(line: bytes) -> Cut:
    """Raises ValueError, also for a line that was not told to its end."""
    if not line.endswith(b"\n"):
        raise ValueError("half a line")
    told = json.loads(line)
    if not isinstance(told, dict) or told.keys() != {"namespace", "pod", "why", "number"}:
        raise ValueError(f"no cut: {line[:100]!r}")
    number = told["number"]
    if not isinstance(told["namespace"], str) or not isinstance(told["pod"], str):
        raise ValueError(f"no pod: {line[:100]!r}")
    if type(number) is not int or number < 1:
        raise ValueError(f"no number of connections: {line[:100]!r}")
    return Cut(told["namespace"], told["pod"], Why(told["why"]), number)


class Cuts:
    """`count` puts one on the own metrics page."""

    def __init__(self, count: Callable[[Cut], None]) -> None:
        self._count = count
        self._hearers: set[asyncio.Queue[Cut | None]] = set()
        self._handed_over = False

    @property
    def heard(self) -> bool:
        """Somebody else counts."""
        return self._handed_over and bool(self._hearers)

    def report(self, cut: Cut) -> None:
        if not self._handed_over:
            self._count(cut)
            return
        for hearer in self._hearers:
            hearer.put_nowait(cut)

    def hand_over(self) -> None:
        """Another proxy is about to have the metrics port: what was counted stays here, what comes is told."""
        self._handed_over = True

    @contextmanager
    def hear(self) -> Iterator[asyncio.Queue[Cut | None]]:
        """What is told from now on; None when there will be no more."""
        told: asyncio.Queue[Cut | None] = asyncio.Queue()
        self._hearers.add(told)
        try:
            yield told
        finally:
            self._hearers.discard(told)

    def end(self) -> None:
        """All has been reported."""
        for hearer in self._hearers:
            hearer.put_nowait(None)
