"""Events as the API server wants them, and which of them are to be written next. Pure: time is given.

core/v1 and not events.k8s.io/v1, which allows no other note once an event is there
(pkg/apis/core/validation/events.go: ValidateEventUpdate): the newest sighting is the one that helps.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agent.events import CAPACITY, COMPONENT, WINDOW_S, PodEvent
from agent.kube.backoff import Backoff

CONTROLLER: Final = "headgate.io/agent"
_NAME_CHARACTERS: Final = 253
_INSTANCE_CHARACTERS: Final = 128
"""pkg/apis/core/validation/events.go: ReportingInstanceLengthLimit."""
KEPT_S: Final = 3600.0
"""kube-apiserver --event-ttl: what is older would be gone already."""


def event_name(event: PodEvent) -> str:
    """The same for each sighting of one event, and for no other: what was written without an answer is not written
    twice."""
    seen = f"{event.uid} {event.reason.value} {event.first_s!r}"
    suffix = "." + hashlib.blake2b(seen.encode(), digest_size=8).hexdigest()
    return event.pod[: _NAME_CHARACTERS - len(suffix)].rstrip("-.") + suffix


def event_object(event: PodEvent, node_name: str) -> dict[str, Any]:
    body = event.as_object()
    body["source"] = {"component": COMPONENT, "host": node_name}
    body["reportingComponent"] = CONTROLLER
    body["reportingInstance"] = f"{COMPONENT}-{node_name}"[:_INSTANCE_CHARACTERS]
    return {**body, "metadata": {"name": event_name(event), "namespace": event.namespace}}


def event_patch(event: PodEvent) -> dict[str, Any]:
    """What another sighting changes."""
    body = event.as_object()
    return {key: body[key] for key in ("count", "lastTimestamp", "message", "type")}


@dataclass(frozen=True, slots=True)
class Waiting:
    """`made`: it is there, and is to be changed."""

    event: PodEvent
    made: bool = False
    not_before_s: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)


class EventBook:
    """What the API server has still to hear, the newest sighting of each event. At most two writes for one: when it is
    new, and when its minute is over and it was seen again. `dropped`: how many were too many, or too old."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._waiting: dict[str, Waiting] = {}
        self._made: dict[str, float] = {}  # until when another sighting of it waits, seconds as in `now_s`
        self.dropped = 0

    @property
    def waits(self) -> bool:
        """Something is still to be written."""
        return bool(self._waiting)

    def heard(self, event: PodEvent) -> None:
        name = event_name(event)
        known = self._waiting.get(name)
        if known is not None:
            self._waiting[name] = replace(known, event=event)
            return
        until_s = self._made.get(name)
        self._waiting[name] = Waiting(event, until_s is not None, until_s or 0.0)
        if len(self._waiting) > self._capacity:
            self._drop(next(iter(self._waiting)))

    def due(self, now_s: float, time_s: float) -> list[Waiting]:
        """The oldest first. `now_s` is monotonic, `time_s` the wall clock that events have."""
        for name in [name for name, one in self._waiting.items() if time_s - one.event.last_s > KEPT_S]:
            self._drop(name)
        self._made = {name: until_s for name, until_s in self._made.items() if until_s > now_s}
        return [one for one in self._waiting.values() if one.not_before_s <= now_s]

    # ── What became of one; it may have been dropped meanwhile ─────────────────────────────────────────────────────
    def written(self, done: Waiting, now_s: float) -> None:
        """It is there as `done` has it; what was seen meanwhile waits for the minute's end."""
        name = event_name(done.event)
        latest = self._waiting.pop(name, done)
        self._made[name] = now_s + WINDOW_S
        if latest.event != done.event:
            self._waiting[name] = Waiting(latest.event, True, now_s + WINDOW_S)

    def is_made(self, waiting: Waiting, made: bool) -> None:
        """The API server says whether it is there, and not as was thought."""
        self._change(waiting, made=made)

    def failed(self, waiting: Waiting, now_s: float, chance: float, wanted_s: float | None = None) -> None:
        """Tried again later. `wanted_s`: the server's Retry-After. `chance` in [0, 1)."""
        backoff = waiting.backoff.failed()
        self._change(waiting, not_before_s=now_s + backoff.delay_s(chance, wanted_s), backoff=backoff)

    def refused(self, waiting: Waiting) -> None:
        """It will never be taken."""
        self._drop(event_name(waiting.event))

    def _change(self, waiting: Waiting, **changes: Any) -> None:
        name = event_name(waiting.event)
        if (known := self._waiting.get(name)) is not None:
            self._waiting[name] = replace(known, **changes)

    def _drop(self, name: str) -> None:
        if self._waiting.pop(name, None) is not None:
            self.dropped += 1
