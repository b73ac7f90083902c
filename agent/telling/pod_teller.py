"""Each pod's status, written onto it: one request at a time, no more than a node's kubelet would make."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.watch import Pace
from agent.pods import Pairs, PodRef
from agent.pods.told import STATUS
from agent.reconcile import Life
from agent.sources.kinds import PODS
from agent.sources.kube_pod import NodePod
from agent.telling.outcomes import Error, Outcome, Trouble, outcome_of
from agent.telling.pace import Bucket
from agent.telling.pod_status import Standing, StatusBook, Word, patch, status_of

_log: Final = logging.getLogger("headgate.telling")

LOOK_EVERY_S: Final = 0.5
"""A look at 250 pods takes 1 ms (measured)."""
RATE: Final = 20.0
BURST: Final = 40
"""Pods that a node starts in a second, at the most that is asked of it; well below the kubelet's own 50 and 100
(kubelet.config.k8s.io/v1beta1: kubeAPIQPS, kubeAPIBurst), which needs several writes for a pod that starts."""
LEAVING_AT_ONCE: Final = 8
"""250 pods of an API server that takes 10 ms for each are some 0.3 s."""
KIND: Final = "status"
REFUSED_SHOWN: Final = 3


class PodWrites(Protocol):
    """What is asked of agent.kube.client.ApiClient."""

    async def patch(self, path: str, change: Mapping[str, Any], /) -> Any: ...


class NodePods(Protocol):
    """What is asked of agent.sources.kubernetes_pods.KubernetesPods."""

    def of_node(self) -> Iterator[tuple[NodePod, str]]: ...


class PodTeller:
    """`run` it once the source has told of all pods: before, one that has no life may have one soon."""

    def __init__(
        self,
        client: PodWrites,
        pods: NodePods,
        life: Callable[[str], Life | None],
        pace: Pace,
        *,
        count: Callable[[str, Outcome], None],
        enrolled: Callable[[Life], None],
    ) -> None:
        """`life`: the present one of a uid. `count`: of each write. `enrolled`: told that a pod is, on its object, and
        was not before."""
        self._client = client
        self._pods = pods
        self._life = life
        self._pace = pace
        self._count = count
        self._enrolled = enrolled
        self._book = StatusBook()
        self._bucket = Bucket(RATE, BURST)
        self._trouble = Trouble("write pods' status", "patch of pods/status")
        self._refused: dict[str, str] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        """Of pods that are refused one by one the first few: a policy may refuse them all."""
        refused = list(self._refused.values())
        more = len(refused) - REFUSED_SHOWN
        shown = [*refused[:REFUSED_SHOWN], *((f"and of {more} more pods",) if more > 0 else ())]
        return tuple(problem for problem in (self._trouble.problem, *shown) if problem)

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.tell()
            await self._pace.sleep(LOOK_EVERY_S)

    async def tell(self) -> None:
        """All that is due now, until one fails for a reason that is not its own."""
        due = self._book.due(self._standings(), self._pace.now_s())
        self._forget_troubles()
        for standing in due:
            if (wait_s := self._bucket.take(self._pace.now_s())) > 0:
                await self._pace.sleep(wait_s)
            if not self._is_so(standing):
                continue  # the next look's
            pause_s = await self._write(standing)
            if pause_s > 0:
                await self._pace.sleep(pause_s)
                return

    async def leave(self) -> None:
        """Nothing of ours stays on the pods of this node, as far as that is permitted."""
        shown = [pod.ref for pod, _ in self._pods.of_node() if pod.told or self._book.has_tried(pod.ref.uid)]
        turn = asyncio.Semaphore(LEAVING_AT_ONCE)
        left = await asyncio.gather(*(self._clear(pod, turn) for pod in shown))
        if told := [one for one in left if one]:
            _log.warning("the status of %d of %d pods stays on them: %s", len(told), len(shown), told[0])

    async def _clear(self, pod: PodRef, turn: asyncio.Semaphore) -> str:
        async with turn:
            try:
                await self._client.patch(_path(pod), patch(pod, ()))
            except (ApiRefused, CannotReach, InvalidAccess) as error:
                gone = outcome_of(error) in (Outcome.ABSENT, Outcome.CONFLICT)
                return "" if gone else f"pod {pod}: {error}"
        return ""

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _standings(self) -> Iterator[Standing]:
        for pod, waits in self._pods.of_node():
            yield Standing(pod.ref, pod.told, status_of(self._life(pod.ref.uid), waits))

    def _forget_troubles(self) -> None:
        """A problem is one while there is something to be written."""
        behind = self._book.behind
        self._refused = {uid: refused for uid, refused in self._refused.items() if uid in behind}
        if not behind:
            self._trouble.went_well()

    def _is_so(self, standing: Standing) -> bool:
        """Still, while others were written."""
        life = self._life(standing.pod.uid)
        if life is None:
            return standing.wanted.word in (Word.NOTHING, Word.PENDING)
        return status_of(life) == standing.wanted

    async def _write(self, standing: Standing) -> float:
        """Seconds for which no other is to be written."""
        pod, chance = standing.pod, self._pace.chance()
        self._book.tries(standing)
        try:
            await self._client.patch(_path(pod), patch(pod, standing.wanted.pairs()))
        except (ApiRefused, CannotReach, InvalidAccess) as error:
            return self._failed(standing, error, chance)
        self._count(KIND, Outcome.DONE)
        self._book.written(standing, self._pace.now_s())
        self._trouble.went_well()
        self._refused.pop(pod.uid, None)
        life = self._life(pod.uid)
        if life is not None and standing.wanted.word is Word.ENROLLED and not _says_enrolled(standing.shown):
            self._enrolled(life)
        return 0.0

    def _failed(self, standing: Standing, error: Error, chance: float) -> float:
        outcome = outcome_of(error)
        self._count(KIND, outcome)
        wanted_s = error.retry_after_s if isinstance(error, ApiRefused) else None
        self._book.failed(standing, self._pace.now_s(), chance, wanted_s)
        before = self._trouble.problem
        if outcome is Outcome.REFUSED:
            refused = f"pod {standing.pod}: its status cannot be written: {error}"
            if self._refused.get(standing.pod.uid) != refused:
                self._refused[standing.pod.uid] = refused
                _log.warning("%s", refused)
        pause_s = self._trouble.met(error, chance)
        if self._trouble.problem and self._trouble.problem != before:
            _log.warning("%s", self._trouble.problem)
        return pause_s


def _path(pod: PodRef) -> str:
    """The subresource: of all that is a pod's, who may patch it may change labels and annotations, but not its spec."""
    return f"{PODS.path('v1', pod.namespace)}/{pod.name}/status"


def _says_enrolled(shown: Pairs) -> bool:
    return dict(shown).get(STATUS) == Word.ENROLLED.value
