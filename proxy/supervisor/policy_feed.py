"""Brings every worker to the newest policy: only what it lacks, in slices, one generation at a time."""

import asyncio
import logging
import pickle
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from proxy.model.snapshot import PolicySnapshot
from proxy.policy.refs import NOTHING, RefTable
from proxy.policy.rows import slices
from proxy.workerlink import PolicySlice, PolicySwitch

_log = logging.getLogger(__name__)

Delta = tuple[PolicySlice | PolicySwitch, ...]
"""Slices, then the switch."""


def delta_from(base: PolicySnapshot, names: RefTable, pods_required: bool = False) -> Delta:
    """What brings a worker that has `base` in force to the newest snapshot of `names`."""
    cuts = (PolicySlice(pickle.dumps(cut, pickle.HIGHEST_PROTOCOL)) for cut in slices(names.rows_from(base)))
    return (*cuts, PolicySwitch(names.newest.generation, pods_required))


class Hearer(Protocol):
    """What the feed needs of a worker: its place, and a way to its present process."""

    @property
    def index(self) -> int: ...

    def send(self, message: PolicySlice | PolicySwitch) -> None: ...


@dataclass(slots=True, eq=False)
class _Fed:
    """One process. `base` is what it has in force, `sent` what it was sent beyond that and has not switched to yet."""

    worker: Hearer
    base: PolicySnapshot = NOTHING
    sent: PolicySnapshot | None = None
    asked: bool = False


class PolicyFeed:
    """A worker hears of one generation at a time; what comes meanwhile is told it in one step afterwards.

    Deltas are made on `executor`, the one thread that compiles policy too: nothing else touches the table of names.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._names = RefTable()
        self._fed: dict[int, _Fed] = {}
        self._newest: PolicySnapshot | None = None
        self._pods_required = False
        self._latest_delta: tuple[int, int, Delta] = (-1, -1, ())
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, policy: PolicySnapshot, *, pods_required: bool = False) -> None:
        """A new generation is to be in force everywhere. `pods_required`: a pod is served once its object is known."""
        self._newest, self._pods_required = policy, pods_required
        for fed in self._fed.values():
            self._bring_up(fed)

    def started(self, worker: Hearer) -> None:
        """A new process is in this worker's place: it knows nothing."""
        fed = self._fed[worker.index] = _Fed(worker)
        self._bring_up(fed)

    def ended(self, worker: Hearer) -> None:
        """Its process is gone; old names are not kept for it."""
        self._fed.pop(worker.index, None)

    def in_force(self, worker: Hearer, generation: int) -> None:
        """The worker has switched."""
        fed = self._fed.get(worker.index)
        if fed is not None and fed.sent is not None and fed.sent.generation == generation:
            fed.base, fed.sent = fed.sent, None
            self._bring_up(fed)

    def _bring_up(self, fed: _Fed) -> None:
        newest = self._newest
        if newest is None or fed.asked or fed.sent is not None or fed.base.generation >= newest.generation:
            return
        fed.asked = True
        task = asyncio.get_running_loop().create_task(self._tell(fed, newest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, fed: _Fed, newest: PolicySnapshot) -> None:
        bases = [one.base.generation for one in self._fed.values() if one.base is not NOTHING]
        oldest = min(bases, default=newest.generation)
        make = partial(self._delta, fed.base, newest, oldest, self._pods_required)
        try:
            target, delta = await asyncio.get_running_loop().run_in_executor(self._executor, make)
        except Exception:
            # Ours, whatever provoked it: the worker stays on the policy that it has, until the next one comes.
            _log.exception("policy generation %d cannot be told to worker %d", newest.generation, fed.worker.index)
            return
        finally:
            fed.asked = False
        if self._fed.get(fed.worker.index) is not fed:
            return
        fed.sent = target
        for message in delta:
            fed.worker.send(message)

    def _delta(
        self, base: PolicySnapshot, newest: PolicySnapshot, oldest: int, pods_required: bool
    ) -> tuple[PolicySnapshot, Delta]:
        """On the policy thread. Workers that are at the same place share what was pickled for the first."""
        names = self._names
        if names.newest.generation < newest.generation:
            names.advance(newest)
            names.forget_before(oldest)
        target = names.newest
        if self._latest_delta[:2] != (base.generation, target.generation):
            self._latest_delta = (base.generation, target.generation, delta_from(base, names, pods_required))
        return target, self._latest_delta[2]
