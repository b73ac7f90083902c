"""All pods of the node: which worker an event belongs to, and what is to be told of them."""

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Protocol

from agent.handoff.zds import Enrolled, SnapshotEntry
from agent.handoff.zds import NotLocated as ZdsNotLocated
from agent.metrics import AgentMetrics
from agent.reconcile import Event, Life, LifeSettings, Seen, State, Telling, telling
from agent.reconcile.life import Left, Stop
from agent.sources.events import PodGone, SourceEvent
from agent.supervisor.effects import descriptor, workload_info
from agent.supervisor.reports import key_of
from agent.supervisor.worker import Means, PodWorker


class Forget(Protocol):
    """What is to be let go with a life: agent.supervisor.effects.Effects.forget."""

    def __call__(self, life: Life, *, replaced: bool) -> None: ...


class Registry:
    """Workers by uid. A pod whose sandbox was made anew has two for a while: the new one here, the old one ending."""

    def __init__(
        self,
        settings: LifeSettings,
        means: Means,
        metrics: AgentMetrics,
        forget: Forget,
        tell: Callable[[Life], None] = lambda life: None,
    ):
        """`tell` hears of each change of a pod's present life."""
        self._tell = tell
        self._settings = settings
        self._means = means
        self._metrics = metrics
        self._forget = forget
        self._current: dict[str, PodWorker] = {}
        self._ending: set[PodWorker] = set()

    # ── What happens ───────────────────────────────────────────────────────────────────────────────────────────────
    def heard(self, event: SourceEvent) -> None:
        if isinstance(event, PodGone):
            self.post(event.uid, Left())
            return
        self._told(event.pod.uid, Seen(event.pod, event.netns_path, event.netns_id))

    def post(self, uid: str, event: Event) -> None:
        """Nothing happens when no such pod is known."""
        worker = self._current.get(uid)
        if worker is not None:
            worker.post(event)

    def worker_of(self, key: str) -> PodWorker | None:
        """Of the life with this key (agent.supervisor.reports), ending ones included."""
        uid = key.partition(" ")[0]
        current = self._current.get(uid)
        candidates = [*self._ending, *(() if current is None else (current,))]
        return next((worker for worker in candidates if key_of(worker.life) == key), None)

    async def stop(self, timeout_s: float) -> list[Life]:
        """Take every pod out of the mesh at once; the lives that could not end in time."""
        workers = [*self._current.values(), *self._ending]
        for worker in workers:
            worker.post(Stop())
        if workers:
            ends = [asyncio.ensure_future(worker.ended()) for worker in workers]
            await asyncio.wait(ends, timeout=timeout_s)
        left = [worker.life for worker in workers if worker.life.state is not State.GONE]
        await self.abandon()
        return left

    async def abandon(self) -> None:
        """Stop deciding; what is in force stays in force."""
        workers = [*self._current.values(), *self._ending]
        await asyncio.gather(*(worker.cancel() for worker in workers))

    # ── What is known ──────────────────────────────────────────────────────────────────────────────────────────────
    def lives(self) -> tuple[Life, ...]:
        """By namespace and name."""
        lives = (worker.life for worker in self._current.values() if worker.life.state is not State.GONE)
        return tuple(sorted(lives, key=lambda life: (life.pod.namespace, life.pod.name, life.pod.uid)))

    def life(self, uid: str) -> Life | None:
        """The pod's present one, None when it has ended."""
        worker = self._current.get(uid)
        return None if worker is None or worker.life.state is State.GONE else worker.life

    def knows(self, uid: str) -> bool:
        """Such a pod is here and has not ended."""
        return self.life(uid) is not None

    def find(self, namespace: str, name: str) -> PodWorker | None:
        workers = self._current.values()
        return next((w for w in workers if (w.life.pod.namespace, w.life.pod.name) == (namespace, name)), None)

    def snapshot(self) -> tuple[SnapshotEntry, ...]:
        """What a proxy that connects must serve. A pod that is not looked at yet is kept: the agent may have been
        restarted, and the proxy must not let go of what it serves."""
        return tuple(_entries(worker.life for worker in self._current.values()))

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _told(self, uid: str, event: Seen | Left) -> None:
        worker = self._current.get(uid)
        if worker is not None and worker.life.state is not State.GONE:
            worker.post(event)
        elif isinstance(event, Seen):
            self._begin(event)

    def _begin(self, seen: Seen) -> None:
        former = self._current.get(seen.pod.uid)
        if former is not None and former.life.state is not State.GONE:
            self._ending.add(former)
        worker = PodWorker(seen, self._settings, self._means, self._changed, self._begin, self._told)
        self._current[seen.pod.uid] = worker
        worker.start()

    def _changed(self, worker: PodWorker, before: Life | None) -> None:
        life = worker.life
        current = self._current.get(life.pod.uid) is worker
        if life.state is State.GONE:
            self._ending.discard(worker)
            self._forget(life, replaced=not current)
            if current:
                del self._current[life.pod.uid]
                self._metrics.pod_gone(life.pod)
        elif current:
            self._metrics.pod_state(life.pod, life.state.value)
            self._tell(life)
            if before is not None and before.installed and not life.installed:
                self._metrics.not_enrolled(life.pod)


def _entries(lives: Iterable[Life]) -> Iterable[SnapshotEntry]:
    for life in lives:
        match telling(life):
            case Telling.SERVE:
                yield Enrolled(life.pod.uid, workload_info(life), functools.partial(descriptor, life))
            case Telling.KEEP:
                yield ZdsNotLocated(life.pod.uid)
            case Telling.OMIT:
                pass
