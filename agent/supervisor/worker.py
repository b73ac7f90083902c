"""One pod's events, one at a time and in order: two changes of one namespace never overlap (B46)."""

import asyncio
import logging
import math
import zlib
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from agent.reconcile import LifeSettings, State, begin, step
from agent.reconcile.life import (
    Action,
    Begin,
    Drain,
    Due,
    Event,
    Heal,
    Install,
    Left,
    Life,
    ProofsTaken,
    ProofsWait,
    Prove,
    Remove,
    Seen,
    Step,
    Timer,
    Wake,
    Withdraw,
)
from agent.supervisor.effects import Effect

_log: Final = logging.getLogger("headgate.pods")
_PROVE_SPREAD: Final = 0.1
"""Pods that were enrolled together are not proved together for ever: each minute is up to 10 % shorter or longer."""

_TOGETHER_S: Final = 2.0
"""Proofs that are not urgent begin at multiples of this: eight at a time with 250 pods. What a proof costs is waking up
as much as working, and the loop wakes once for eight whose reports come together."""
WAIT_TOLD_AFTER_S: Final = 1.0
"""A proof has as long for itself (agent.kernel.probe.TIMEOUT_S): a proxy that starts and has its policy sooner, as in
most clusters, changes no pod's state."""
_URGENT_S: Final = 20.0
"""Proofs that are due sooner are those of a pod that is not proved: somebody waits."""

_LEVELS: Final = {
    State.FAILED: logging.WARNING,
    State.PENDING: logging.WARNING,
    State.DRIFTED: logging.DEBUG,  # told in full where it is heard (agent.supervisor.reports)
    State.INSTALLED: logging.INFO,
    State.PROVED: logging.INFO,
    State.LEAVING: logging.INFO,
    State.DISABLED: logging.INFO,
    State.GONE: logging.INFO,
}
"""The steps between two states that last are details."""


class Means(Protocol):
    """What a worker needs of agent.supervisor.effects.Effects."""

    async def perform(self, life: Life, effect: Effect) -> Event: ...

    @property
    def proofs_wait(self) -> bool: ...

    async def prove(self, life: Life) -> Event: ...


class PodWorker:
    """The life of one pod in one namespace. `changed` hears of each change; `successor` of a life to begin beside;
    `hand_on` of what a source told here and is for the pod's present life, this one being over or handed over."""

    def __init__(
        self,
        seen: Seen,
        settings: LifeSettings,
        means: Means,
        changed: Callable[["PodWorker", Life | None], None],
        successor: Callable[[Seen], None],
        hand_on: Callable[[str, Seen | Left], None],
    ) -> None:
        self._settings = settings
        self._means = means
        self._changed = changed
        self._successor = successor
        self._hand_on = hand_on
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._proof: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[Life]] = []
        self._first = begin(seen, settings)
        self.life = self._first[0]
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._changed(self, None)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pod {self.life.pod}")

    def post(self, event: Event) -> None:
        """The event takes its turn. Harmless after the end."""
        self._events.put_nowait(event)

    async def proved(self) -> Life:
        """The life right after the next proofs, or when these have to wait for the proxy, or at its end."""
        waiting: asyncio.Future[Life] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return await waiting

    async def ended(self) -> None:
        """Until GONE. Raises nothing: a fault was logged."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def cancel(self) -> None:
        """End without another action: what is in force stays in force."""
        tasks = [task for task in (self._task, self._proof) if task is not None]
        for task in tasks:
            task.cancel()
        self._silence()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._answer_all()

    # ── The loop ───────────────────────────────────────────────────────────────────────────────────────────────────
    async def _run(self) -> None:
        await self._follow(self._first)
        while self.life.state is not State.GONE:
            event = await self._events.get()
            await self._follow(step(self.life, event, self._settings))
            if isinstance(event, ProofsTaken | ProofsWait):
                self._answer_all()
        self._silence()
        self._answer_all()
        self._pass_on()

    def _pass_on(self) -> None:
        """What a source told while actions went on is for the pod's present life, before anything told later: a pod
        may be back within milliseconds."""
        for event in [self._events.get_nowait() for _ in range(self._events.qsize())]:
            if isinstance(event, Seen | Left):
                self._hand_on(self.life.pod.uid, event)
            else:
                self._events.put_nowait(event)

    async def _follow(self, first: Step) -> None:
        """One event's consequences to their end: outcomes come before whatever else has happened meanwhile."""
        outcomes: deque[Event] = deque()
        following: Step | None = first
        while following is not None:
            life, actions = following
            before, self.life = self.life, life
            if life != before:
                self._tell(before)
            for action in actions:
                outcome = await self._perform(action)
                if outcome is not None:
                    outcomes.append(outcome)
            following = step(self.life, outcomes.popleft(), self._settings) if outcomes else None

    async def _perform(self, action: Action) -> Event | None:
        match action:
            case Wake(timer=timer, after_s=after_s):
                self._wake(timer, after_s)
            case Prove():
                self._begin_proof()
            case Begin(seen=seen):
                self._successor(seen)
                self._pass_on()
            case Install() | Heal() | Drain() | Remove() | Withdraw():
                self._end_proof()  # what it would find is about to change
                return await self._means.perform(self.life, action)
            case _:
                return await self._means.perform(self.life, action)
        return None

    def _wake(self, timer: Timer, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if timer is Timer.PROVE:
            after_s *= 1 + _PROVE_SPREAD * (zlib.crc32(self.life.pod.uid.encode()) / 0x80000000 - 1)
        loop = asyncio.get_running_loop()
        due_s = loop.time() + after_s
        if timer is Timer.PROVE and after_s > _URGENT_S:
            due_s = math.ceil(due_s / _TOGETHER_S) * _TOGETHER_S
        self._timer = loop.call_at(due_s, self.post, Due(timer))

    def _begin_proof(self) -> None:
        self._end_proof()
        self._proof = asyncio.get_running_loop().create_task(self._prove(self.life))

    async def _prove(self, life: Life) -> None:
        told = asyncio.get_running_loop().call_later(WAIT_TOLD_AFTER_S, self._tell_wait)
        try:
            self.post(await self._means.prove(life))
        finally:
            told.cancel()

    def _tell_wait(self) -> None:
        if self._means.proofs_wait:
            self.post(ProofsWait())

    def _end_proof(self) -> None:
        if self._proof is not None:
            self._proof.cancel()
            self._proof = None

    def _silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end_proof()

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(self.life)

    def _tell(self, before: Life) -> None:
        life = self.life
        if (life.state, life.reason) != (before.state, before.reason):
            level = _LEVELS.get(life.state, logging.DEBUG)
            reason = f": {life.reason}" if life.reason else ""
            fields = {"pod": str(life.pod), "uid": life.pod.uid, "state": life.state.value}
            _log.log(level, "pod %s is %s%s", life.pod, life.state.value, reason, extra=fields)
        self._changed(self, before)
