"""What became of each route, written into its status by the one agent of the cluster that holds the Lease."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from agent.handoff.verdicts import Verdicts
from agent.kube.backoff import Backoff
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.resources import Resource
from agent.kube.watch import Pace
from agent.sources.kinds import KINDS
from agent.telling.outcomes import Error, Outcome, Trouble, outcome_of
from agent.telling.pace import Bucket
from agent.telling.route_status import (
    Body,
    has_our_entry,
    has_service_parent,
    status_patch,
    wanted_parents,
    without_ours,
)
from proxy.api.stream import JUDGED_GROUP, ObjectName, Verdict

_log: Final = logging.getLogger("headgate.telling")

ROUTES: Final = tuple(kind for kind in KINDS if kind.group == JUDGED_GROUP)
LOOK_EVERY_S: Final = 2.0
RATE: Final = 5.0
BURST: Final = 10
"""client-go's defaults for a client (rest/config.go: DefaultQPS, DefaultBurst)."""
KIND: Final = "route"


class RouteWrites(Protocol):
    """What is asked of agent.kube.client.ApiClient."""

    async def patch(self, path: str, change: Mapping[str, Any], /) -> Any: ...


class Routes(Protocol):
    """What is asked of agent.sources.kubernetes_objects.KubernetesObjects."""

    def of_kind(self, kind: Resource, /) -> Iterator[ObjectName]: ...


@dataclass(frozen=True, slots=True)
class _Known:
    """Of one route: what was decided upon. `concerns`: it has a Service for a parent, or an entry of ours. `settled`:
    nothing is left to be written for this line and verdict."""

    line: bytes
    verdict: Verdict | None
    concerns: bool
    settled: bool = False
    not_before_s: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)


class RouteTeller:
    """`wanted`: there is a route whose status is ours to write. `lines`: of the object stream, by name. `holds`: this
    agent is the one that writes."""

    def __init__(
        self,
        client: RouteWrites,
        routes: Routes,
        lines: Mapping[ObjectName, bytes],
        verdicts: Verdicts,
        pace: Pace,
        time_s: Callable[[], float],
        *,
        holds: Callable[[], bool],
        count: Callable[[str, Outcome], None],
    ) -> None:
        self._client = client
        self._routes = routes
        self._lines = lines
        self._verdicts = verdicts
        self._pace = pace
        self._time_s = time_s
        self._holds = holds
        self._count = count
        self._known: dict[ObjectName, _Known] = {}
        self._bucket = Bucket(RATE, BURST)
        self._trouble = Trouble("write the status of routes", "patch of the routes' status")

    @property
    def wanted(self) -> bool:
        return any(known.concerns for known in self._known.values())

    @property
    def problems(self) -> tuple[str, ...]:
        return (self._trouble.problem,) if self._trouble.problem else ()

    async def run(self) -> None:
        """Never returns."""
        while True:
            self.look()
            await self.tell()
            await self._pace.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Which routes there are. What has changed is to be decided upon again."""
        before, self._known = self._known, {}
        for kind in ROUTES:
            for name in self._routes.of_kind(kind):
                line, verdict = self._lines.get(name), self._verdicts.of(name)
                if line is None:
                    continue
                known = before.get(name)
                if known is None or known.line != line:
                    known = _Known(line, verdict, _concerns(_body(line)))
                elif known.verdict != verdict:
                    known = replace(known, verdict=verdict, settled=False)
                self._known[name] = known
        self._verdicts.keep_only(self._known.__contains__)
        if all(known.settled for known in self._known.values() if known.concerns):
            self._trouble.went_well()

    async def tell(self) -> None:
        """All that is due now, while this agent is the one that writes."""
        for name, known in list(self._known.items()):
            if not known.concerns or known.settled or self._pace.now_s() < known.not_before_s:
                continue
            if not self._holds():
                return
            body = _body(known.line)
            parents = wanted_parents(body, known.verdict, self._time_s())
            if parents is None:
                self._known[name] = replace(known, settled=True)
                continue
            if (wait_s := self._bucket.take(self._pace.now_s())) > 0:
                await self._pace.sleep(wait_s)
            pause_s = await self._write(name, known, status_patch(body, parents))
            if pause_s > 0:
                await self._pace.sleep(pause_s)
                return

    async def leave(self) -> None:
        """No entry of ours stays in any route that is known, as far as that is permitted."""
        for name, known in self._known.items():
            body = _body(known.line)
            if (parents := without_ours(body)) is None:
                continue
            try:
                await self._client.patch(_path(name, body), status_patch(body, parents))
            except (ApiRefused, InvalidAccess) as error:
                _log.warning("%s %s/%s keeps the status that it has: %s", name.kind, name.namespace, name.name, error)
            except CannotReach as error:
                _log.warning("routes keep the status that they have: %s", error)
                return

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _write(self, name: ObjectName, known: _Known, change: Body) -> float:
        """Seconds for which no other is to be written."""
        chance = self._pace.chance()
        try:
            await self._client.patch(_path(name, _body(known.line)), change)
        except (ApiRefused, CannotReach, InvalidAccess) as error:
            return self._failed(name, known, error, chance)
        self._count(KIND, Outcome.DONE)
        self._trouble.went_well()
        self._known[name] = replace(known, settled=True)  # until the watch tells of what was written
        return 0.0

    def _failed(self, name: ObjectName, known: _Known, error: Error, chance: float) -> float:
        """Where it has changed meanwhile (409), the watch brings what it is now."""
        outcome = outcome_of(error)
        self._count(KIND, outcome)
        backoff = known.backoff.failed()
        wanted_s = error.retry_after_s if isinstance(error, ApiRefused) else None
        again_s = self._pace.now_s() + backoff.delay_s(chance, wanted_s)
        self._known[name] = replace(known, not_before_s=again_s, backoff=backoff)
        if outcome is Outcome.REFUSED:
            _log.warning("%s %s/%s: its status is not taken: %s", name.kind, name.namespace, name.name, error)
        before = self._trouble.problem
        pause_s = self._trouble.met(error, chance)
        if self._trouble.problem and self._trouble.problem != before:
            _log.warning("%s", self._trouble.problem)
        return pause_s


def _body(line: bytes) -> Body:
    body: Body = json.loads(line)["object"]
    return body


def _concerns(body: Body) -> bool:
    return has_service_parent(body) or has_our_entry(body)


def _path(name: ObjectName, body: Body) -> str:
    (kind,) = (one for one in ROUTES if one.kind == name.kind)
    version = str(body["apiVersion"]).rpartition("/")[2]
    return f"{kind.path(version, name.namespace)}/{name.name}/status"
