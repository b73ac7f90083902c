"""kubelet's probes: the node's rules for them kept in force, and their way to each pod tried.

Looked at every few seconds, whoever changed what: who installs them once and looks away loses them with the next
`nft flush ruleset` (istio #60607). Nothing fails for them: without them the probes meet the proxy like anybody's.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.kernel.netns import NetnsRefused
from agent.kernel.node_rules import Held
from agent.kernel.refused import KernelRefused
from agent.plan.node_rules import Pods, tag_of
from agent.pods import IPAddress
from agent.pods.probe_path import ProbePath
from agent.reconcile import Life, State
from agent.supervisor.reports import Key, PodReports, ProbeFacts, key_of

_log: Final = logging.getLogger("headgate.probes")

LOOK_EVERY_S: Final = 5.0
"""kubelet's probes: every ten seconds, three in a row until a container is ended (periodSeconds, failureThreshold)."""
GATHER_S: Final = 1.0
"""Pods that start together are told of together: a round takes 7 ms of a core with 250 pods of both families, and until
it is their turn their probes meet the proxy."""
FIRST_TRY_S: Final = 3.0
"""After a pod is in the node's set: duplicate address detection takes up to two seconds (RFC 4862 5.4.2)."""
TRY_EVERY_S: Final = 300.0
TRY_AGAIN_S: Final = 30.0
"""Of a way that is open, and of one that is not: a try costs a millisecond or two, with iptables some thirty."""
TRIES_AT_ONCE: Final = 16
IDLE_S: Final = 1.0
_UNDECIDED: Final = frozenset({State.SEEN, State.LOCATED, State.PLANNED, State.ANNOUNCED, State.PENDING})
_TRIED: Final = frozenset({State.INSTALLED, State.PROVED})

Try = Callable[[Life, tuple[IPAddress, ...]], Awaitable[tuple[ProbePath, ...]]]
"""From the node's namespace to these addresses of the pod. Raises KernelRefused, NetnsRefused, OSError."""


Own = Callable[[Life], Awaitable[frozenset[IPAddress]]]
"""The addresses that the pod's namespace has. Raises NetnsRefused, OSError."""


class Table(Protocol):
    """agent.supervisor.node_table.NodeTable."""

    async def put_right(self, steered: Pods, settling: frozenset[str], /) -> tuple[Held, Pods]: ...

    async def remove(self) -> bool: ...


@dataclass(slots=True)
class _Known:
    """Of one life. `own`: which addresses are its namespace's, None where nobody has looked yet. `due_s`: monotonic,
    when its ways are tried next."""

    life: Life
    own: frozenset[IPAddress] | None = None
    due_s: float = 0.0

    @property
    def lacks(self) -> bool:
        """One address of the pod's suffices to enrol it; another may come later, or be somebody else's."""
        return self.life.capturing and not (self.own is not None and self.own.issuperset(self.life.pod.addresses))


class NodeProbes:
    """agent.supervisor.followers.Follower. On the event loop."""

    def __init__(
        self, table: Table, own: Own, try_ways: Try, reports: PodReports, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`now_s` is a monotonic clock."""
        self._table = table
        self._own = own
        self._try_ways = try_ways
        self._reports = reports
        self._now_s = now_s
        self._known: dict[Key, _Known] = {}
        self._listed: Pods = {}
        self._changed = asyncio.Event()
        self._put: tuple[Pods, frozenset[str]] = ({}, frozenset())
        self._was_there = False
        self.problem = ""

    # ── What is told ───────────────────────────────────────────────────────────────────────────────────────────────
    def told(self, life: Life) -> None:
        known = self._known.setdefault(key_of(life), _Known(life))
        known.life = life
        self._changed.set()

    def gone(self, life: Life, *, replaced: bool) -> None:
        if self._known.pop(key_of(life), None) is not None:
            self._changed.set()

    # ── What is done ───────────────────────────────────────────────────────────────────────────────────────────────
    async def run(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._keep())
            both.create_task(self._try_all())

    async def leave(self) -> None:
        """After `run`: nothing of ours stays in the node's namespace."""
        try:
            await self._table.remove()
        except (KernelRefused, OSError) as error:
            _log.warning("the node's rules for probes stay: %s", error)

    async def _keep(self) -> None:
        while True:
            await self._look_inside()
            await self._put_right()
            await asyncio.sleep(GATHER_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._differs()

    async def _differs(self) -> None:
        """Until other pods are to be there than at the last round. Most of what a life tells changes nothing here."""
        put = self._put
        while (self._steered(), self._settling()) == put and not self._unseen():
            self._changed.clear()
            await self._changed.wait()
            await asyncio.sleep(GATHER_S)

    def _unseen(self) -> bool:
        return any(known.own is None and known.life.capturing for known in self._known.values())

    async def _look_inside(self) -> None:
        """What a Pod object says to be its address may be the API server's: what the node sends there keeps its own."""
        for known in [known for known in self._known.values() if known.lacks]:
            try:
                known.own = await self._own(known.life)
            except (NetnsRefused, OSError):  # the pod goes, and its life says so
                known.own = frozenset()

    async def _put_right(self) -> None:
        self._put = steered, settling = self._steered(), self._settling()
        try:
            held, wanted = await self._table.put_right(steered, settling)
        except (KernelRefused, OSError) as error:  # somebody changed them meanwhile, or they cannot be had here
            self._fault(str(error))
            return
        self._fault("")
        self._tell_of(held)
        self._listed = wanted
        self._report()

    def _steered(self) -> dict[IPAddress, str]:
        """The later of two pods with one address has it: the earlier one has not been told of as gone yet."""
        return {
            address: tag_of(known.life.pod.uid)
            for known in self._known.values()
            if known.life.capturing
            for address in known.life.pod.addresses
            if address in (known.own or ())
        }

    def _settling(self) -> frozenset[str]:
        return frozenset(tag_of(known.life.pod.uid) for known in self._known.values() if known.life.state in _UNDECIDED)

    def _fault(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.warning("the node's rules for probes are not in force: %s", problem)
        self.problem = problem

    def _tell_of(self, held: Held) -> None:
        if self._was_there and not held.whole:
            what = "had been changed" if held.there else "were gone"
            _log.warning("the node's rules for probes %s; they are in force again", what)
        self._was_there = True

    # ── The way to each pod ────────────────────────────────────────────────────────────────────────────────────────
    async def _try_all(self) -> None:
        while True:
            due = [known for known in self._known.values() if self._is_due(known)][:TRIES_AT_ONCE]
            await asyncio.gather(*(self._try(known) for known in due))
            await asyncio.sleep(IDLE_S)

    def _is_due(self, known: _Known) -> bool:
        """The first time a while after the pod came into the set."""
        life = known.life
        if life.state not in _TRIED or not life.capturing or not self._is_listed(life):
            known.due_s = 0.0
            return False
        if known.due_s == 0.0:
            known.due_s = self._now_s() + FIRST_TRY_S
        return known.due_s <= self._now_s()

    async def _try(self, known: _Known) -> None:
        life = known.life
        try:
            paths = await self._try_ways(life, self._listed_of(life))
        except (KernelRefused, NetnsRefused, OSError) as error:  # the pod goes, or cannot be read: its life says so
            _log.debug("pod %s: the way of its probes cannot be tried: %s", life.pod, error)
            paths = ()
        open_ = bool(paths) and not any(path.fails for path in paths)
        known.due_s = self._now_s() + (TRY_EVERY_S if open_ else TRY_AGAIN_S)
        if self._known.get(key_of(life)) is known:
            self._reports.probed(known.life, ProbeFacts(self._is_listed(life), paths))

    def _is_listed(self, life: Life) -> bool:
        return bool(self._listed_of(life))

    def _listed_of(self, life: Life) -> tuple[IPAddress, ...]:
        tag = tag_of(life.pod.uid)
        return tuple(address for address in life.pod.addresses if self._listed.get(address) == tag)

    def _report(self) -> None:
        for known in self._known.values():
            before = self._reports.of(known.life).probes
            listed = self._is_listed(known.life)
            if before is None or before.listed != listed:
                paths = () if before is None or not listed else before.paths
                self._reports.probed(known.life, ProbeFacts(listed, paths))
