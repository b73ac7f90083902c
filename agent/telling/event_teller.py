"""Events, written to the API server while it takes them: `kubectl describe pod` shows them."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from agent.events import PodEvent
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.resources import Resource
from agent.kube.watch import Pace
from agent.telling.event_objects import EventBook, Waiting, event_name, event_object, event_patch
from agent.telling.outcomes import Error, Outcome, Trouble, outcome_of
from agent.telling.pace import Bucket

_log: Final = logging.getLogger("headgate.telling")

EVENTS: Final = Resource("", ("v1",), "Event", "events")
RATE: Final = 10.0
BURST: Final = 50
"""A fifth of the kubelet's eventRecordQPS, 50, and half its eventBurst, 100 (kubelet.config.k8s.io/v1beta1)."""
LOOK_EVERY_S: Final = 1.0
KIND: Final = "event"
_ENDING: Final = "because it is being terminated"
"""plugin/pkg/admission/namespace/lifecycle: nothing is made in a namespace that goes, with 403."""


class EventWrites(Protocol):
    """What is asked of agent.kube.client.ApiClient."""

    async def create(self, path: str, body: Mapping[str, Any], /) -> Any: ...

    async def patch(self, path: str, change: Mapping[str, Any], /) -> Any: ...


class EventTeller:
    """Hears of events at once and writes them when it may. `time_s`: the wall clock, seconds since the epoch."""

    def __init__(
        self,
        client: EventWrites,
        node_name: str,
        pace: Pace,
        time_s: Callable[[], float],
        count: Callable[[str, Outcome], None],
    ) -> None:
        self._client = client
        self._node_name = node_name
        self._pace = pace
        self._time_s = time_s
        self._count = count
        self._book = EventBook()
        self._dropped = 0
        self._bucket = Bucket(RATE, BURST)
        self._trouble = Trouble("write Events", "create and patch of events")

    @property
    def problems(self) -> tuple[str, ...]:
        return (self._trouble.problem,) if self._trouble.problem else ()

    def heard(self, event: PodEvent) -> None:
        self._book.heard(event)

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.tell()
            await self._pace.sleep(LOOK_EVERY_S)

    async def tell(self) -> None:
        """All that is due now, until one fails for a reason that is not its own."""
        due = self._book.due(self._pace.now_s(), self._time_s())
        for _ in range(self._book.dropped - self._dropped):
            self._count(KIND, Outcome.DROPPED)
        self._dropped = self._book.dropped
        if not self._book.waits:
            self._trouble.went_well()
        for waiting in due:
            if (wait_s := self._bucket.take(self._pace.now_s())) > 0:
                await self._pace.sleep(wait_s)
            pause_s = await self._write(waiting)
            if pause_s > 0:
                await self._pace.sleep(pause_s)
                return

    async def leave(self) -> None:
        """What was recorded last, once."""
        for waiting in self._book.due(self._pace.now_s(), self._time_s()):
            if await self._write(waiting) > 0:
                return

    async def _write(self, waiting: Waiting) -> float:
        """Seconds for which no other is to be written."""
        event, chance = waiting.event, self._pace.chance()
        path = EVENTS.path("v1", event.namespace)
        try:
            if waiting.made:
                await self._client.patch(f"{path}/{event_name(event)}", event_patch(event))
            else:
                await self._client.create(path, event_object(event, self._node_name))
        except (ApiRefused, CannotReach, InvalidAccess) as error:
            outcome = Outcome.ABSENT if _ENDING in str(error) else outcome_of(error)
            self._count(KIND, outcome)
            return self._failed(waiting, outcome, error, chance)
        self._count(KIND, Outcome.DONE)
        self._book.written(waiting, self._pace.now_s())
        self._trouble.went_well()
        return 0.0

    def _failed(self, waiting: Waiting, outcome: Outcome, error: Error, chance: float) -> float:
        match outcome:
            case Outcome.CONFLICT if not waiting.made:  # written, but the answer was lost
                self._book.is_made(waiting, True)
            case Outcome.ABSENT if waiting.made:  # its time to live was over
                self._book.is_made(waiting, False)
            case Outcome.ABSENT:  # the namespace has gone, and the pod with it
                self._book.refused(waiting)
            case Outcome.REFUSED:
                _log.warning(
                    "an Event of pod %s/%s is not taken: %s", waiting.event.namespace, waiting.event.pod, error
                )
                self._book.refused(waiting)
            case _:
                wanted_s = error.retry_after_s if isinstance(error, ApiRefused) else None
                self._book.failed(waiting, self._pace.now_s(), chance, wanted_s)
                before = self._trouble.problem
                pause_s = self._trouble.met(error, chance)
                if self._trouble.problem != before:
                    _log.warning("%s", self._trouble.problem)
                return pause_s
        return 0.0
