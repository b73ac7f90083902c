"""What a load counts: requests by outcome, what was lost and when, latencies. Values; no sockets, no clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from agent.lab import figures

MOST_DISTINCT: Final = 64
"""Clients and pods told apart by their answers; a server that answers nonsense must not fill memory."""
MOST_LOSSES: Final = 10_000
"""Told one by one; further ones are counted by reason only. A load that loses more has nothing left to judge."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One request that was not answered as it should be. Times are CLOCK_MONOTONIC, the same for all processes of the
    machine: whoever killed something can tell what was lost by it. `opened_ns`: connect(2) began; `sent_ns`: the
    request was due; `reused`: its connection had answered before."""

    reason: str
    opened_ns: int
    sent_ns: int
    failed_ns: int
    reused: bool


@dataclass(slots=True)
class Phase:
    """What was counted between two marks."""

    name: str
    sent: int = 0
    ok: int = 0
    connected: int = 0
    closed_idle: int = 0
    """Connections that the other side ended between two requests: opened anew, nothing is lost."""
    reasons: Counter[str] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    pods: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    latencies_ns: list[int] = field(default_factory=list)
    connects_ns: list[int] = field(default_factory=list)
    in_flight: int = 0

    def answered(self, latency_ns: int, body: bytes) -> None:
        """One good answer."""
        self.ok += 1
        self.latencies_ns.append(latency_ns)
        pod, client = _who(body)
        for counter, key in ((self.pods, pod), (self.clients, client)):
            counter[key if key in counter or len(counter) < MOST_DISTINCT else "others"] += 1

    def lost(self, loss: Loss) -> None:
        self.reasons[loss.reason] += 1
        if len(self.losses) < MOST_LOSSES:
            self.losses.append(loss)

    def as_json(self) -> dict[str, Any]:
        """`latency_ns` and `connect_ns` by percentile; `buckets` as figures.BOUNDS_NS."""
        ordered, connects = sorted(self.latencies_ns), sorted(self.connects_ns)
        return {
            "sent": self.sent,
            "ok": self.ok,
            "failed": sum(self.reasons.values()),
            "reasons": dict(self.reasons),
            "losses": [asdict(loss) for loss in self.losses],
            "connected": self.connected,
            "closed_idle": self.closed_idle,
            "pods": dict(self.pods),
            "clients": dict(self.clients),
            "latency_ns": _percentiles(ordered, (50, 90, 99, 99.9, 100)),
            "connect_ns": _percentiles(connects, (50, 99, 99.9, 100)),
            "buckets": list(figures.buckets(ordered)),
        }


def together(phases: Sequence[Phase]) -> Phase:
    """All phases as one, named "all"."""
    whole = Phase("all")
    for phase in phases:
        whole.sent += phase.sent
        whole.ok += phase.ok
        whole.connected += phase.connected
        whole.closed_idle += phase.closed_idle
        whole.reasons += phase.reasons
        whole.losses += phase.losses
        whole.pods += phase.pods
        whole.clients += phase.clients
        whole.latencies_ns += phase.latencies_ns
        whole.connects_ns += phase.connects_ns
    return whole


def _percentiles(ordered: Sequence[int], shares: Sequence[float]) -> dict[str, int]:
    return {f"p{share:g}": figures.percentile(ordered, share / 100) for share in shares}


def _who(body: bytes) -> tuple[str, str]:
    """Which pod answered and which client address it saw, as the lab's servers tell in their JSON."""
    try:
        answer = json.loads(body)
        return str(answer["pod"])[:64], str(answer["client"])[:64]
    except (ValueError, KeyError, TypeError):
        return "unknown", "unknown"
