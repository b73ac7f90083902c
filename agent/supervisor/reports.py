"""What is known and told of each pod beside its life: drift, connections outside the mesh, a full conntrack table.

One place decides what becomes a metric, a log line and an Event, so that the three never disagree.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.events import Events, EventType, Reason
from agent.kernel.conntrack import Table
from agent.metrics import AgentMetrics
from agent.plan import FlowKey, RedirectPlan, diff_plan
from agent.pods import NetnsId
from agent.pods.probe_path import ProbePath
from agent.printable import printable
from agent.reconcile import Life, State
from agent.reconcile.life import Drifted
from agent.supervisor.inside import Applied
from agent.supervisor.unsteered import Unsteered

_log: Final = logging.getLogger("headgate.drift")

TOLD_CONNECTIONS: Final = 10
"""Named in a line; an Event's message ends at 1,024 characters, and an IPv6 connection takes up to 96."""
Key = str
"""One pod in one namespace: a pod whose sandbox was made anew has two lives for a while."""


def key_of(life: Life) -> Key:
    return _key(life.pod.uid, life.netns_id)


def _key(uid: str, netns_id: NetnsId) -> Key:
    return f"{uid} {netns_id}"


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """`listed`: the node gives its probes of this pod their address; `paths`: as they were last tried, none yet."""

    listed: bool
    paths: tuple[ProbePath, ...] = ()

    @property
    def failing(self) -> tuple[ProbePath, ...]:
        return tuple(path for path in self.paths if path.fails)


@dataclass(slots=True)
class PodFacts:
    """`drifts`: how often the kernel was found to hold something else than planned; `drift`: what it was last. `probes`
    None: they meet the proxy like anybody's connections."""

    unsteered: Unsteered = field(default_factory=Unsteered)
    foreign: tuple[str, ...] = ()
    drifts: int = 0
    drift: str = ""
    found_s: float = 0.0  # monotonic; when the drift was found that is not healed yet
    conntrack_full: bool = False
    conntrack_dropped: int | None = None
    probes: ProbeFacts | None = None
    complained: str = ""  # what was last told to be wrong with the pod


NO_FACTS: Final = PodFacts()


class PodReports:
    """By life. `now_s` is a monotonic clock. On the event loop."""

    def __init__(self, metrics: AgentMetrics, events: Events, now_s: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._events = events
        self._now_s = now_s
        self._facts: dict[Key, PodFacts] = {}

    def of(self, life: Life) -> PodFacts:
        return self._facts.get(key_of(life), NO_FACTS)

    def forget(self, life: Life) -> None:
        self._facts.pop(key_of(life), None)

    # ── What the pod asks for ──────────────────────────────────────────────────────────────────────────────────────
    def changed(self, life: Life) -> None:
        """What is wrong with the pod is told once, however often it is found again."""
        stays = life.capturing and life.state is not State.LEAVING
        complaint = life.complaint if stays else ""
        wrong = complaint or (life.reason if life.state is State.FAILED else "")
        if not wrong:
            if life.state is State.PROVED and (facts := self._facts.get(key_of(life))) is not None:
                facts.complained = ""
            return
        facts = self._known(life)
        if facts.complained == wrong:
            return
        facts.complained = wrong
        reason, told = Reason.FAILED, wrong
        if complaint:
            reason, told = Reason.ANNOTATION_REFUSED, f"{wrong}; the rules in force stay as they are"
            _log.warning("pod %s: %s", life.pod, told, extra={"pod": str(life.pod)})
        self._events.record(life.pod, EventType.WARNING, reason, told)

    def rewished(self, life: Life, before: RedirectPlan, plan: RedirectPlan, applied: Applied) -> None:
        """Other rules are in force, because the pod asks for them."""
        change = diff_plan(before, plan)
        parts = (("added", change.added), ("changed", change.changed), ("removed", change.removed))
        rules = "; ".join(f"{what}: {', '.join(ids)}" for what, ids in parts if ids) or "in another order"
        message = f"the rules are changed as the pod asks ({rules})"
        if applied.replanned:
            fate = "were reset" if applied.ended else "stay outside the mesh until they end"
            message += (
                f"; {len(applied.replanned)} connections that they would steer {fate}: {_named(applied.replanned)}"
            )
        self._events.record(life.pod, EventType.NORMAL, Reason.RULES_CHANGED, message)
        _log.info("pod %s: %s", life.pod, message, extra={"pod": str(life.pod)})

    # ── Drift ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def drifted(self, life: Life, event: Drifted) -> None:
        facts = self._known(life)
        facts.drifts += 1
        facts.drift = _what(event)
        facts.found_s = self._now_s()
        self._metrics.drifted(life.pod)
        self._events.record(life.pod, EventType.WARNING, Reason.DRIFTED, facts.drift)
        _log.warning(
            "pod %s drifted: %s", life.pod, facts.drift,
            extra={"pod": str(life.pod), "changes": list(event.changes), "by": event.by},
        )  # fmt: skip

    def healed(self, life: Life, applied: Applied) -> None:
        facts = self._known(life)
        if facts.found_s:
            self._metrics.healed(max(0.0, self._now_s() - facts.found_s - applied.counting_s))
            facts.found_s = 0.0
        self._outside(life, applied)
        if not applied.changed:
            return
        message = f"in force again: {_cost(applied)}" + (f" (was: {facts.drift})" if facts.drift else "")
        self._events.record(life.pod, EventType.NORMAL, Reason.HEALED, message)
        _log.warning(
            "pod %s is healed: %s", life.pod, _cost(applied),
            extra={"pod": str(life.pod), "slipped": len(applied.slipped), "cut": applied.cut,
                   "ended": len(applied.ended), "seconds": round(applied.seconds, 4)},
        )  # fmt: skip

    def not_healed(self, life: Life, reason: str) -> None:
        self._events.record(life.pod, EventType.WARNING, Reason.NOT_HEALED, reason)

    def foreign(self, life: Life, chains: tuple[str, ...]) -> None:
        """Chains of others that may take a connection before ours do, or that write our marks."""
        facts = self._known(life)
        facts.foreign = tuple(printable(chain) for chain in chains)
        self._metrics.foreign_chains(life.pod, len(chains))
        if chains:
            _log.warning("pod %s: others' rules may interfere: %s", life.pod, "; ".join(facts.foreign))

    # ── Connections ────────────────────────────────────────────────────────────────────────────────────────────────
    def installed(self, life: Life, applied: Applied) -> None:
        """Put in force for the first time, found in force, or replaced: what a former agent left may have differed."""
        if applied.slipped or applied.cut:
            self.healed(life, applied)
        else:
            self._outside(life, applied)

    def unsteered(self, life: Life, found: Unsteered) -> None:
        self._known(life).unsteered = found
        self._metrics.unsteered(life.pod, "grandfathered", len(found.grandfathered))
        self._metrics.unsteered(life.pod, "drift", len(found.slipped))
        self._metrics.unsteered(life.pod, "rules_changed", len(found.replanned))

    def _outside(self, life: Life, applied: Applied) -> None:
        self.unsteered(life, applied.unsteered)
        if applied.ended:
            _log.warning("pod %s: connections outside the mesh were reset: %s", life.pod, _named(applied.ended))

    # ── Probes ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def probed(self, life: Life, found: ProbeFacts) -> None:
        """Told when a way is found shut, and when none is any more: the pod itself is well, and its state stays."""
        facts = self._known(life)
        before, facts.probes = facts.probes, found
        told = frozenset(path.address for path in before.failing) if before is not None else frozenset()
        for path in found.failing:
            if path.address not in told:
                message = f"kubelet's probes fail: {path.reason}; {path.remedy}"
                self._events.record(life.pod, EventType.WARNING, Reason.PROBES_BLOCKED, message)
                _log.warning("pod %s: %s", life.pod, message, extra={"pod": str(life.pod)})
        if told and found.paths and not found.failing:
            message = "kubelet's probes reach the pod again"
            self._events.record(life.pod, EventType.NORMAL, Reason.PROBES_PASS, message)
            _log.info("pod %s: %s", life.pod, message, extra={"pod": str(life.pod)})

    # ── conntrack ──────────────────────────────────────────────────────────────────────────────────────────────────
    def conntrack(self, life: Life, table: Table) -> None:
        """Told when the table becomes full, and when it no longer is: packets that find no room are dropped."""
        facts = self._known(life)
        before, facts.conntrack_dropped = facts.conntrack_dropped, table.dropped
        dropped = 0 if table.dropped is None else table.dropped - (before or 0)
        # Entries end all the time: between two that are refused there may be room for a moment.
        full = table.is_full or (dropped > 0 and before is not None)
        if full == facts.conntrack_full:
            return
        facts.conntrack_full = full
        self._metrics.conntrack_full(life.pod, full)
        if not full:
            _log.warning("pod %s: its conntrack table has room again (%d of %d)", life.pod, table.entries, table.limit)
            return
        message = (
            f"the conntrack table of the pod's namespace is full ({table.entries} of {table.limit} entries, "
            f"{dropped} packets dropped): new connections fail; close some, or raise net.netfilter.nf_conntrack_max"
        )
        self._events.record(life.pod, EventType.WARNING, Reason.CONNTRACK_FULL, message)
        _log.warning("pod %s: %s", life.pod, message)

    def _known(self, life: Life) -> PodFacts:
        return self._facts.setdefault(key_of(life), PodFacts())


def _what(event: Drifted) -> str:
    changes = "; ".join(event.changes) or "the rules are not the plan"
    return f"{changes}, changed by {event.by}" if event.by else changes


def _cost(applied: Applied) -> str:
    """What the absence of the rules has cost, in words."""
    slipped = f"{len(applied.slipped)} connections went past the mesh meanwhile"
    if applied.slipped:
        fate = "were reset" if applied.ended else "live on"
        slipped += f" and {fate}: {_named(applied.slipped)}"
    return f"{slipped}; {applied.cut} steered connections were cut"


def _named(flows: Iterable[FlowKey]) -> str:
    """Local and remote end of ten at most."""
    ordered = sorted(flows, key=str)
    named = ", ".join(f"{_end(flow[0], flow[1])} - {_end(flow[2], flow[3])}" for flow in ordered[:TOLD_CONNECTIONS])
    more = len(ordered) - TOLD_CONNECTIONS
    return f"{named} and {more} more" if more > 0 else named


def _end(address: object, port: int) -> str:
    text = str(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
