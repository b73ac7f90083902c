"""Which worker holds what of which pod: hand-overs sent, answered and ended."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from proxy.errors import printable
from proxy.link import close_descriptors
from proxy.supervisor.cuts import Cut, Why
from proxy.supervisor.leases import Leases
from proxy.supervisor.listeners import PodListeners
from proxy.supervisor.placement import next_move, place
from proxy.supervisor.workers import Worker
from proxy.workerlink import (
    AskLease,
    ForgetPod,
    GrantLease,
    PodForgotten,
    PodIdentity,
    PodServed,
    RecallLease,
    ReleasePod,
    ReturnLease,
    ServePod,
)

_log = logging.getLogger(__name__)

NetnsIdentity = tuple[int, int]
"""(st_dev, st_ino)"""

PodKey = tuple[str, str]
"""Namespace and name, as policy objects name a pod."""


class Stage(Enum):
    ASKED = "asked"
    SERVING = "serving"
    RELEASED = "released"


@dataclass(slots=True)
class Tenure:
    """What one worker holds of a pod, from ServePod to PodForgotten."""

    sequence: int
    shared: bool
    count_slot: int
    stage: Stage = Stage.ASKED


@dataclass(slots=True, eq=False)
class ServedPod:
    """Owns the namespace's descriptor and the listeners; both are sent again to each worker that begins to serve it.
    `served` is set while at least one worker accepts."""

    identity: PodIdentity
    netns: NetnsIdentity
    netns_fd: int
    listeners: PodListeners
    tenures: dict[int, Tenure] = field(default_factory=dict)
    served: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> PodKey:
        return self.identity.namespace, self.identity.name

    @property
    def workers(self) -> list[int]:
        """Those that accept for it."""
        return self.at(Stage.SERVING)

    def at(self, *stages: Stage) -> list[int]:
        return [index for index, tenure in self.tenures.items() if tenure.stage in stages]

    def close(self) -> None:
        self.listeners.close()
        close_descriptors((self.netns_fd,))


@dataclass(slots=True, eq=False)
class LeavingPod:
    """No longer served; some workers hold connections of it still. `gone` is set when the last has let go."""

    identity: PodIdentity
    netns: NetnsIdentity
    tenures: dict[int, Tenure]
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Handovers:
    """Keeps each pod with the workers that are to serve it. `report_cut` hears of what workers had to cut."""

    def __init__(self, workers: Callable[[], list[Worker]], report_cut: Callable[[Cut], None]) -> None:
        self._workers = workers
        self._cut = report_cut
        self._leases = Leases(self._tell_lease)
        self._numbers: Mapping[PodKey, int] = {}
        self._sequence = 0
        self.leaving: list[LeavingPod] = []

    def share_among(self, numbers: Mapping[PodKey, int]) -> bool:
        """How many workers serve a pod; 1 where nothing is said. Whether that changed: `settle` the pods then."""
        changed = dict(numbers) != dict(self._numbers)
        self._numbers = numbers
        return changed

    def settle(self, pod: ServedPod) -> None:
        """The next step towards the workers that are to serve the pod now; nothing when they do."""
        wanted = place(pod.identity.uid, self._candidates(), self._numbers.get(pod.key, 1))
        move = next_move(wanted, pod.at(Stage.ASKED, Stage.SERVING), pod.workers)
        shared = len(wanted) > 1
        for index in move.serve:
            self._hand_over(pod, index, shared)
        for index in pod.workers:
            if index in wanted and pod.tenures[index].shared != shared:
                self._hand_over(pod, index, shared)
        for index in move.release:
            pod.tenures[index].stage = Stage.RELEASED
            self._workers()[index].send(ReleasePod(pod.identity.uid))

    def leave(self, pod: ServedPod, drain_s: float | None) -> LeavingPod:
        """Tell all workers that the pod leaves; with None they know already."""
        uid = pod.identity.uid
        self._leases.drop(uid)
        leaving = LeavingPod(pod.identity, pod.netns, dict(pod.tenures))
        self.leaving.append(leaving)
        if drain_s is not None:
            self.hasten(leaving, drain_s)
        self._end_if_gone(leaving)
        return leaving

    def hasten(self, leaving: LeavingPod, drain_s: float) -> None:
        for index in leaving.tenures:
            self._workers()[index].send(ForgetPod(leaving.identity.uid, drain_s))

    # ── What workers say ───────────────────────────────────────────────────────────────────────────────────────────

    def note_served(self, worker: int, pod: ServedPod, message: PodServed) -> None:
        tenure = pod.tenures.get(worker)
        if tenure is not None and tenure.sequence == message.sequence and tenure.stage is Stage.ASKED:
            tenure.stage = Stage.SERVING
            pod.served.set()
            self.settle(pod)

    def note_forgotten(self, worker: int, pod: ServedPod | None, message: PodForgotten) -> None:
        """`pod` is the one that is served under this uid now, if any: it may be another."""
        tenure = None if pod is None else pod.tenures.get(worker)
        if pod is not None and tenure is not None and tenure.sequence == message.sequence:
            self._end_tenure(worker, pod.tenures)
            self._leases.let_go(message.uid, worker)
            self._report_drained(pod.identity, message)
            return
        for leaving in self.leaving:
            tenure = leaving.tenures.get(worker)
            if leaving.identity.uid == message.uid and tenure is not None and tenure.sequence == message.sequence:
                self._end_tenure(worker, leaving.tenures)
                self._report_drained(leaving.identity, message)
                self._end_if_gone(leaving)
                return

    def note_lease(self, worker: int, message: AskLease | ReturnLease) -> None:
        match message:
            case AskLease(key):
                self._leases.asked(worker, key)
            case ReturnLease(key, tokens):
                self._leases.returned(worker, key, tokens)

    def note_end(self, worker: int, pods: list[ServedPod]) -> None:
        """The process is gone, and what it held: its pods move on at once."""
        for leaving in tuple(self.leaving):
            if (tenure := leaving.tenures.pop(worker, None)) is not None:
                self._report_lost(leaving.identity, worker, tenure)
            self._end_if_gone(leaving)
        for pod in pods:
            if (tenure := pod.tenures.pop(worker, None)) is not None:
                self._report_lost(pod.identity, worker, tenure)
                self._leases.let_go(pod.identity.uid, worker)
                if not pod.workers:
                    pod.served.clear()
            self.settle(pod)

    # ── Steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _candidates(self) -> list[int]:
        """Those that can accept at once; else those that will soon; else all, for the one that starts first."""
        workers = self._workers()
        usable = [worker.index for worker in workers if worker.usable]
        running = usable or [worker.index for worker in workers if worker.pid is not None]
        return running or [worker.index for worker in workers]

    def _hand_over(self, pod: ServedPod, index: int, shared: bool) -> None:
        worker = self._workers()[index]
        if worker.pid is None or worker.open_counts is None:
            return  # told when it starts
        earlier = pod.tenures.get(index)
        serves = earlier is not None and earlier.stage is Stage.SERVING
        self._sequence += 1
        slot = worker.open_counts.take() if earlier is None else earlier.count_slot
        pod.tenures[index] = Tenure(self._sequence, shared, slot, Stage.SERVING if serves else Stage.ASKED)
        tokens = 0 if serves else self._leases.open(pod.identity.uid, index)
        message = ServePod(pod.identity, pod.listeners.kinds, self._sequence, shared, tokens, slot)
        worker.send(message, [pod.netns_fd, *(listener.fileno() for listener in pod.listeners.sockets)])

    def _tell_lease(self, index: int, message: GrantLease | RecallLease) -> None:
        self._workers()[index].send(message)

    def _end_if_gone(self, leaving: LeavingPod) -> None:
        if not leaving.tenures and leaving in self.leaving:
            self.leaving.remove(leaving)
            leaving.gone.set()

    def _end_tenure(self, worker: int, tenures: dict[int, Tenure]) -> None:
        counts = self._workers()[worker].open_counts
        if counts is not None:
            counts.free(tenures[worker].count_slot)
        del tenures[worker]

    def _report_lost(self, identity: PodIdentity, worker: int, tenure: Tenure) -> None:
        counts = self._workers()[worker].open_counts
        number = 0 if counts is None else counts.number(tenure.count_slot)
        if not number:
            return
        self._cut(Cut(identity.namespace, identity.name, Why.WORKER_ENDED, number))
        _log.warning(
            "pod %s: %d connections cut by the end of worker %d",
            printable(f"{identity.namespace}/{identity.name}"),
            number,
            worker,
        )

    def _report_drained(self, identity: PodIdentity, message: PodForgotten) -> None:
        if not message.cut:
            return
        self._cut(Cut(identity.namespace, identity.name, Why.DRAIN_OVER, len(message.cut)))
        oldest = max(message.cut, key=lambda cut: cut.age_s)
        _log.warning(
            "pod %s: %d connections cut when its drain was over; the oldest, %s %s, was %.0f s old",
            printable(f"{identity.namespace}/{identity.name}"),
            len(message.cut),
            oldest.direction.value,
            oldest.protocol,
            oldest.age_s,
        )
