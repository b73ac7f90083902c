"""Pods that slipped through: they started while our plugin was not in the chain, and were enrolled as they were.

Nothing is wrong with their rules; but what they had opened before goes on past the mesh for as long as it lives. With
--repair=delete-pod such a pod is deleted, so that its controller makes one that starts steered. Only what that mends:
one that cannot be enrolled at all (a taken port, a bad annotation) would be the same again.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

from agent.events import Events, EventType, Reason
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.watch import Pace
from agent.pods.replaceable import Replaceable, replaceable
from agent.reconcile import Life, State
from agent.sources.kinds import PODS
from agent.supervisor.reports import PodFacts

_log: Final = logging.getLogger("headgate.repair")

PATIENCE_S: Final = 60.0
"""How long such connections may live: most end by themselves, and what lives longer lives for hours."""
EVERY_S: Final = 30.0
"""One pod of a node at a time: its successor must have come before the next one goes."""
OWNER_AGAIN_S: Final = 600.0
"""Of one controller: that its pods are in this state again says that to delete them does not help."""
LOOK_EVERY_S: Final = 5.0
_STEERED: Final = frozenset({State.INSTALLED, State.PROVED})


class Deletes(Protocol):
    """What is asked of agent.kube.client.ApiClient."""

    async def get(self, path: str, /) -> Any: ...

    async def delete(self, path: str, options: Mapping[str, Any] | None = None, /) -> Any: ...


class Repair:
    """`lives`: all present ones; `facts`: of one. `problem`: why the last attempt was in vain, "" when it was not."""

    def __init__(
        self,
        client: Deletes,
        pace: Pace,
        lives: Callable[[], tuple[Life, ...]],
        facts: Callable[[Life], PodFacts],
        events: Events,
    ) -> None:
        self._client = client
        self._pace = pace
        self._lives = lives
        self._facts = facts
        self._events = events
        self._since_s: dict[str, float] = {}
        self._owners_s: dict[str, float] = {}
        self._spared: dict[str, str] = {}
        self.problem = ""

    async def run(self) -> None:
        """Never returns."""
        while True:
            deleted = await self.look()
            await self._pace.sleep(EVERY_S if deleted else LOOK_EVERY_S)

    async def look(self) -> bool:
        """Whether a pod was deleted: one at the most, whose connections have been outside for longest."""
        now_s = self._pace.now_s()
        outside = {life.pod.uid: life for life in self._lives() if self._is_outside(life)}
        self._since_s = {uid: self._since_s.get(uid, now_s) for uid in outside}
        self._spared = {uid: why for uid, why in self._spared.items() if uid in outside}
        self._owners_s = {owner: at_s for owner, at_s in self._owners_s.items() if now_s - at_s < OWNER_AGAIN_S}
        for uid, since_s in sorted(self._since_s.items(), key=lambda pair: pair[1]):
            if now_s - since_s < PATIENCE_S:
                break
            try:
                if await self._deleted(outside[uid], now_s):
                    return True
            except (ApiRefused, CannotReach, InvalidAccess) as error:
                if isinstance(error, ApiRefused) and error.status in (404, 409):
                    continue  # it has gone or changed since it was read
                self._tell(f"pod {outside[uid].pod} cannot be deleted to repair it: {error}")
                return False
        return False

    def _is_outside(self, life: Life) -> bool:
        return life.state in _STEERED and bool(self._facts(life).unsteered.grandfathered)

    async def _deleted(self, life: Life, now_s: float) -> bool:
        """Raises ApiRefused, CannotReach, InvalidAccess."""
        pod = life.pod
        path = f"{PODS.path('v1', pod.namespace)}/{quote(pod.name, safe='')}"
        found = replaceable(await self._client.get(path), pod.uid)
        if isinstance(found, Replaceable) and found.owner in self._owners_s:
            found = "another pod of its controller was deleted a moment ago"
        if not isinstance(found, Replaceable):
            self._spare(life, found)
            return False
        number = len(self._facts(life).unsteered.grandfathered)
        await self._client.delete(path, {"preconditions": dict(found.preconditions)})
        self._owners_s[found.owner] = now_s
        why = f"{number} connections were open before it was steered and go past the mesh; its controller replaces it"
        self._events.record(pod, EventType.WARNING, Reason.REPAIRED, f"deleted: {why}")
        _log.warning("pod %s is deleted: %s", pod, why)
        self.problem = ""
        return True

    def _spare(self, life: Life, why: str) -> None:
        """Told once a pod and reason."""
        if self._spared.get(life.pod.uid) != why:
            self._spared[life.pod.uid] = why
            _log.info("pod %s has connections past the mesh and is not deleted: %s", life.pod, why)

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem
