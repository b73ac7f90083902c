"""Which worker holds what of which pod: hand-overs sent, answered and ended."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from proxy.errors import printable
from proxy.link import close_descriptors
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

CutReport = Callable[[PodKey, int], None]
"""Told how many connections of a pod were cut."""


class Stage(Enum):
    ASKED = "asked"
    SERVING = "serving"
    RELEASED = "released"


@dataclass(slots=True)
class Tenure:
    """What one worker holds of a pod, from ServePod to PodForgotten."""

    sequence: int
    shared: bool
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
    sequences: dict[int, int]
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Handovers:
    """Keeps each pod with the workers that are to serve it. `count_cut` hears of what workers had to cut."""

    def __init__(self, workers: Callable[[], list[Worker]], count_cut: CutReport) -> None:
        self._workers = workers
        self._count_cut = count_cut
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
        sequences = {index: tenure.sequence for index, tenure in pod.tenures.items()}
        leaving = LeavingPod(pod.identity, pod.netns, sequences)
        self.leaving.append(leaving)
        if drain_s is not None:
            self.hasten(leaving, drain_s)
        self._end_if_gone(leaving)
        return leaving

    def hasten(self, leaving: LeavingPod, drain_s: float) -> None:
        for index in leaving.sequences:
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
            del pod.tenures[worker]
            self._leases.let_go(message.uid, worker)
            self._report_cut(pod.identity, message)
            return
        for leaving in self.leaving:
            if leaving.identity.uid == message.uid and leaving.sequences.get(worker) == message.sequence:
                del leaving.sequences[worker]
                self._report_cut(leaving.identity, message)
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
            leaving.sequences.pop(worker, None)
            self._end_if_gone(leaving)
        for pod in pods:
            if pod.tenures.pop(worker, None) is not None:
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
        if worker.pid is None:
            return  # told when it starts
        earlier = pod.tenures.get(index)
        serves = earlier is not None and earlier.stage is Stage.SERVING
        self._sequence += 1
        pod.tenures[index] = Tenure(self._sequence, shared, Stage.SERVING if serves else Stage.ASKED)
        tokens = 0 if serves else self._leases.open(pod.identity.uid, index)
        message = ServePod(pod.identity, pod.listeners.kinds, self._sequence, shared, tokens)
        worker.send(message, [pod.netns_fd, *(listener.fileno() for listener in pod.listeners.sockets)])

    def _tell_lease(self, index: int, message: GrantLease | RecallLease) -> None:
        self._workers()[index].send(message)

    def _end_if_gone(self, leaving: LeavingPod) -> None:
        if not leaving.sequences and leaving in self.leaving:
            self.leaving.remove(leaving)
            leaving.gone.set()

    def _report_cut(self, identity: PodIdentity, message: PodForgotten) -> None:
        if not message.cut:
            return
        self._count_cut((identity.namespace, identity.name), len(message.cut))
        oldest = max(message.cut, key=lambda cut: cut.age_s)
        _log.warning(
            "pod %s: %d connections cut when its drain was over; the oldest, %s %s, was %.0f s old",
            printable(f"{identity.namespace}/{identity.name}"),
            len(message.cut),
            oldest.direction.value,
            oldest.protocol,
            oldest.age_s,
        )
