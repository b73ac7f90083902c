"""Holds the Lease while there is something to write for a cluster, and one agent of a thousand is to write it."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.resources import Resource
from agent.kube.watch import Pace
from agent.telling.lease import DURATION_S, RENEW_WITHIN_S, RETRY_S, Observed, observed, record_of, released, taken
from agent.telling.outcomes import Error, Outcome, Trouble, outcome_of

_log: Final = logging.getLogger("headgate.telling")

LEASES: Final = Resource("coordination.k8s.io", ("v1",), "Lease", "leases")
NAME: Final = "headgate-route-status"
LOOK_EVERY_S: Final = 60.0
"""client-go's candidates look every 2 s: of a thousand agents that were 500 requests a second. What they would write
can wait for a minute or two."""
KIND: Final = "lease"


class LeaseWrites(Protocol):
    """What is asked of agent.kube.client.ApiClient."""

    async def get(self, path: str, /) -> Any: ...

    async def create(self, path: str, body: Mapping[str, Any], /) -> Any: ...

    async def update(self, path: str, body: Mapping[str, Any], /) -> Any: ...


class LeaseHolder:
    """`holds`: others may not write now. `wanted`: whether there is anything to be written at all; while there is not,
    nothing is asked. `spread_s`: a thousand agents that come to want it together do not ask together."""

    def __init__(
        self,
        client: LeaseWrites,
        namespace: str,
        identity: str,
        pace: Pace,
        time_s: Callable[[], float],
        *,
        wanted: Callable[[], bool],
        count: Callable[[str, Outcome], None],
        spread_s: float,
    ) -> None:
        self._client = client
        self._collection = LEASES.path("v1", namespace)
        self._namespace = namespace
        self._identity = identity
        self._pace = pace
        self._time_s = time_s
        self._wanted = wanted
        self._count = count
        self._spread_s = spread_s
        self._observed: Observed | None = None
        self._renewed_s: float | None = None
        self._trouble = Trouble("take the Lease of route status", f"get, create and update of leases in {namespace}")

    @property
    def holds(self) -> bool:
        """Ends well before another one may take it."""
        return self._renewed_s is not None and self._pace.now_s() < self._renewed_s + RENEW_WITHIN_S

    @property
    def problems(self) -> tuple[str, ...]:
        return (self._trouble.problem,) if self._trouble.problem else ()

    async def run(self) -> None:
        """Never returns."""
        while True:
            while not self._wanted():
                await self.release()
                self._trouble.went_well()
                await self._pace.sleep(RETRY_S)
            await self._pace.sleep(self._spread_s * self._pace.chance())
            while self._wanted():
                await self._pace.sleep(await self.look())

    async def look(self) -> float:
        """Takes or renews it where that may be done; seconds until the next look."""
        before = self._observed
        try:
            await self._take(self._pace.now_s())
        except (ApiRefused, CannotReach, InvalidAccess) as error:
            return self._failed(error)
        self._trouble.went_well()
        if self.holds:
            return RETRY_S
        # Once soon, whether it is renewed at all: its holder may have been killed.
        known = before is not None and self._observed is not None and before.record.holder
        return (LOOK_EVERY_S if known else DURATION_S) * (1.0 + self._pace.chance())

    async def release(self) -> None:
        """Whoever looks next may take it."""
        if self._renewed_s is None:
            return
        self._renewed_s = self._observed = None
        try:
            found = await self._found()  # the version known here may not be the last: `run` may have been cancelled
            if found is None or record_of(found).holder != self._identity:
                return
            now = observed(found, None, self._pace.now_s())
            await self._update(now, released(now.record, self._time_s()))
        except (ApiRefused, CannotReach, InvalidAccess) as error:
            _log.info("the Lease of route status runs out by itself: %s", error)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _take(self, now_s: float) -> None:
        """`now_s`: before anything is asked, so that what is held is never held for longer than others believe."""
        if not self.holds or self._observed is None:
            found = await self._found()
            if found is None:
                spec = taken(None, self._identity, self._time_s())
                self._took(await self._client.create(self._collection, self._lease(spec)), now_s)
                return
            self._observed = observed(found, self._observed, self._pace.now_s())
            held_by_other = self._observed.record.holder != self._identity
            if held_by_other and not self._observed.is_free(self._pace.now_s()):
                self._renewed_s = None
                return
        spec = taken(self._observed.record, self._identity, self._time_s())
        self._took(await self._update(self._observed, spec), now_s)

    async def _found(self) -> Any:
        """None: there is none."""
        try:
            return await self._client.get(f"{self._collection}/{NAME}")
        except ApiRefused as error:
            if error.status != 404:
                raise
            return None

    async def _update(self, before: Observed, spec: Mapping[str, Any]) -> Any:
        return await self._client.update(f"{self._collection}/{NAME}", self._lease(spec, before.version))

    def _lease(self, spec: Mapping[str, Any], version: str = "") -> dict[str, Any]:
        metadata = {"name": NAME, "namespace": self._namespace, **({"resourceVersion": version} if version else {})}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def _took(self, lease: Any, now_s: float) -> None:
        self._count(KIND, Outcome.DONE)
        if not self.holds:
            _log.info("this agent writes the status of routes")
        self._observed, self._renewed_s = observed(lease, None, now_s), now_s

    def _failed(self, error: Error) -> float:
        outcome = outcome_of(error)
        self._count(KIND, outcome)
        held = self.holds
        if outcome in (Outcome.CONFLICT, Outcome.ABSENT):  # another one was quicker, or took it away
            self._renewed_s = None
        if not self.holds and held:
            _log.warning("this agent writes the status of routes no more: %s", error)
        before = self._trouble.problem
        pause_s = self._trouble.met(error, self._pace.chance())
        if self._trouble.problem and self._trouble.problem != before:
            _log.warning("%s", self._trouble.problem)
        return RETRY_S if held else max(RETRY_S, pause_s)
