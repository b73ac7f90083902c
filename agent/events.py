"""What happened to a pod, told as Kubernetes tells it: values of core/v1 Event, aggregated, in a bounded ring.

Nothing here knows an API server: the admin socket shows what the ring holds, and a follower may tell others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from agent.pods import PodRef
from agent.printable import printable

WINDOW_S: Final = 60.0
"""One event a pod, reason and minute: who breaks rules in a loop must not fill the ring, nor an API server later
(client-go's EventCorrelator allows one object 25 at once, then one each five minutes)."""
CAPACITY: Final = 1000
"""Four a pod at 250 pods; 0.7 MB when each message is as long as it may be."""
MESSAGE_CHARACTERS: Final = 1024
"""Kubernetes refuses a longer note (pkg/apis/core/validation/events.go: NoteLengthLimit)."""
COMPONENT: Final = "headgate-agent"


class EventType(Enum):
    NORMAL = "Normal"
    WARNING = "Warning"


class Reason(Enum):
    """Machine-readable, UpperCamelCase as Kubernetes wants it."""

    DRIFTED = "RedirectionDrifted"
    HEALED = "RedirectionHealed"
    NOT_HEALED = "RedirectionNotHealed"
    CONNTRACK_FULL = "ConntrackTableFull"
    RULES_CHANGED = "RedirectionChanged"
    ANNOTATION_REFUSED = "AnnotationRefused"
    FAILED = "RedirectionFailed"
    PROBES_BLOCKED = "ProbesBlocked"
    PROBES_PASS = "ProbesPass"  # noqa: S105 - a reason, no word that opens anything
    ENROLLED = "RedirectionEnrolled"
    REPAIRED = "PodRepaired"


@dataclass(frozen=True, slots=True)
class PodEvent:
    """One event, maybe seen several times. Times are seconds since the epoch; `message` is the newest one."""

    namespace: str
    pod: str
    uid: str
    type: EventType
    reason: Reason
    message: str
    count: int
    first_s: float
    last_s: float

    def as_object(self) -> dict[str, Any]:
        """As `kubectl get events -o json` shows one."""
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "type": self.type.value,
            "reason": self.reason.value,
            "message": self.message,
            "count": self.count,
            "firstTimestamp": _timestamp(self.first_s),
            "lastTimestamp": _timestamp(self.last_s),
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": self.namespace,
                "name": self.pod,
                "uid": self.uid,
            },
            "source": {"component": COMPONENT},
        }


class Events:
    """The sink. `now_s` is the wall clock, seconds since the epoch. Not safe for threads: the event loop's."""

    def __init__(self, now_s: Callable[[], float], capacity: int = CAPACITY) -> None:
        self._now_s = now_s
        self._capacity = capacity
        self._events: dict[int, PodEvent] = {}  # by number, oldest first
        self._open: dict[tuple[str, Reason], int] = {}  # the event that another sighting may belong to
        self._next = 0
        self._follow: Callable[[PodEvent], None] | None = None

    def follow(self, heard: Callable[[PodEvent], None]) -> None:
        """`heard` is called with each event that is recorded, at each sighting. It does not raise."""
        self._follow = heard

    def record(self, pod: PodRef, kind: EventType, reason: Reason, message: str) -> PodEvent:
        """Counts with the pod's event of this reason when that began less than a minute ago; else it is a new one."""
        now_s = self._now_s()
        text = printable(message, MESSAGE_CHARACTERS)
        number = self._open.get((pod.uid, reason))
        if number is not None and 0 <= now_s - self._events[number].first_s < WINDOW_S:
            known = self._events[number]
            event = replace(known, type=kind, message=text, count=known.count + 1, last_s=now_s)
        else:
            number, self._next = self._next, self._next + 1
            self._open[pod.uid, reason] = number
            event = PodEvent(pod.namespace, pod.name, pod.uid, kind, reason, text, 1, now_s, now_s)
        self._events[number] = event
        if len(self._events) > self._capacity:
            self._drop_oldest()
        if self._follow is not None:
            self._follow(event)
        return event

    def all(self, namespace: str | None = None, pod: str | None = None) -> tuple[PodEvent, ...]:
        """By last sighting, the newest last; of one pod when asked so. Those of pods that are gone stay."""
        found = (event for event in self._events.values() if namespace is None or event.namespace == namespace)
        return tuple(sorted((e for e in found if pod is None or e.pod == pod), key=lambda event: event.last_s))

    def _drop_oldest(self) -> None:
        number = next(iter(self._events))
        oldest = self._events.pop(number)
        if self._open.get((oldest.uid, oldest.reason)) == number:
            del self._open[oldest.uid, oldest.reason]


def event_list(events: tuple[PodEvent, ...]) -> dict[str, Any]:
    """A Kubernetes List."""
    return {"apiVersion": "v1", "kind": "List", "items": [event.as_object() for event in events]}


def _timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, whole seconds (metav1.Time)."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
