"""The pods that are served: their namespaces and listeners, from announcement to departure."""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxy import descriptors
from proxy.datapath.netns import CLONE_NEWNET, Entry, OwnNetns
from proxy.errors import CannotServe, printable
from proxy.link import close_descriptors
from proxy.supervisor.cuts import Cut
from proxy.supervisor.handovers import Handovers, NetnsIdentity, PodKey, ServedPod, Stage
from proxy.supervisor.listener_source import Listeners
from proxy.supervisor.listeners import PodListeners, PortTaken, name_holders, port_taken_message
from proxy.supervisor.workers import Worker
from proxy.workerlink import AskLease, PodForgotten, PodIdentity, PodServed, ReturnLease

_log = logging.getLogger(__name__)

SERVE_TIMEOUT_S: Final = 4.0
"""The agent waits 5 s for an answer (istio cni/pkg/nodeagent/ztunnelserver.go, readWriteDeadline): a nack that tells
the reason must come before that."""
FORGET_TIMEOUT_S: Final = 2.0
"""A namespace must be free within 2 s of the pod's end."""

_NS_GET_NSTYPE: Final = 0xB703
"""include/uapi/linux/nsfs.h"""


class NotANetns(Exception):
    """The descriptor that came with an announcement is no network namespace: the peer breaks the protocol."""


@dataclass(frozen=True, slots=True)
class PodName:
    """How ZDS names a pod."""

    uid: str
    namespace: str
    name: str
    service_account: str

    def __str__(self) -> str:
        return printable(f"{self.namespace}/{self.name}")


@dataclass(frozen=True, slots=True)
class PendingPod:
    """A pod that was announced and could not be served; the agent announces it again. `forbidden`: the kernel did not
    let us (EPERM), which is no fault of the pod's."""

    name: PodName
    reason: str
    forbidden: bool = False


def netns_identity(netns_fd: int) -> NetnsIdentity:
    """Raises NotANetns."""
    try:
        kind = fcntl.ioctl(netns_fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        raise NotANetns("the descriptor beside `add` is not a network namespace")
    stat = os.fstat(netns_fd)
    return stat.st_dev, stat.st_ino


class Pods:
    """Every pod that the agent announced. One caller at a time: ZDS answers requests in order.

    `on_stopped` is called when one is served no more.
    """

    def __init__(
        self,
        entry: Entry,
        workers: Callable[[], list[Worker]],
        drain_s: float,
        source: Listeners,
        report_cut: Callable[[Cut], None] = lambda cut: None,
        on_stopped: Callable[[], None] = lambda: None,
    ) -> None:
        own = os.fstat(entry.fileno())
        self._own_netns = (own.st_dev, own.st_ino)
        self._serves_own = isinstance(entry, OwnNetns)
        self._handovers = Handovers(workers, report_cut)
        self._source = source
        self._drain_s = drain_s
        self._on_stopped = on_stopped
        self._served: dict[str, ServedPod] = {}
        self._pending: dict[str, PendingPod] = {}
        self._drains = False
        self.started = 0
        self.stopped = 0

    @property
    def served(self) -> list[ServedPod]:
        return list(self._served.values())

    @property
    def pending(self) -> list[PendingPod]:
        return list(self._pending.values())

    @property
    def held(self) -> frozenset[NetnsIdentity]:
        """Every namespace that we or our workers hold open: of pods that are served, and that are leaving."""
        served = frozenset(pod.netns for pod in self._served.values())
        return served | {leaving.netns for leaving in self._handovers.leaving}

    # ── What the agent asks ────────────────────────────────────────────────────────────────────────────────────────

    async def add(self, pod: PodName, netns_fd: int) -> None:
        """Serve a pod; returns when a worker holds the listeners. Takes the descriptor over, whatever happens.

        Announced again with the same namespace: nothing to do. With another one: the old is drained and replaced.
        Raises CannotServe (the text is the nack; nothing is left half open), NotANetns.
        """
        try:
            netns = netns_identity(netns_fd)
            known = self._served.get(pod.uid)
            if known is not None and known.netns == netns:
                await self._wait_served(known)
                return
            if known is not None:
                await self.forget(pod.uid, self._drain_s)
            if netns == self._own_netns and not self._serves_own:
                raise CannotServe(
                    f"pod {pod}: the namespace announced is the proxy's own, not a pod's: check the agent"
                )
            self._refuse_beyond_limit(pod)
            await self._serve(pod, netns, netns_fd)
            self._pending.pop(pod.uid, None)
        except CannotServe as refused:
            self._pending[pod.uid] = PendingPod(pod, str(refused), isinstance(refused.__cause__, PermissionError))
            raise
        finally:
            close_descriptors((netns_fd,))

    def _refuse_beyond_limit(self, pod: PodName) -> None:
        """Before it takes what those that are served need."""
        if len(self._served) >= (most := descriptors.most_pods()):
            raise CannotServe(
                f"pod {pod}: the proxy's descriptors are enough for {most} pods: raise LimitNOFILE of the container "
                "runtime (or ulimit -Hn) and start the proxy again"
            )

    async def _serve(self, pod: PodName, netns: NetnsIdentity, netns_fd: int) -> None:
        listeners = await self._open(pod, netns_fd)
        if self._drains:
            self._source.abandon(pod.uid)
            listeners.close()
            raise CannotServe(f"pod {pod}: this proxy is ending; the next one is told")
        identity = PodIdentity(pod.uid, pod.namespace, pod.name, pod.service_account, listeners.netns_cookie)
        # Its own copy: the pod may be forgotten, and closed with all it has, while this waits.
        served = ServedPod(identity, netns, fcntl.fcntl(netns_fd, fcntl.F_DUPFD_CLOEXEC, 0), listeners)
        self._served[pod.uid] = served
        self._handovers.settle(served)
        try:
            await self._wait_served(served)
        except BaseException:
            if self._served.get(pod.uid) is served:
                del self._served[pod.uid]
                self._handovers.leave(served, 0.0)
                self._source.abandon(pod.uid)
                served.close()
            raise
        self.started += 1
        _log.info("pod %s is served by worker %s", pod, ", ".join(map(str, served.workers)))

    async def _open(self, pod: PodName, netns_fd: int) -> PodListeners:
        try:
            return await self._source.obtain(pod.uid, netns_fd)
        except PortTaken as taken:
            holders = await asyncio.to_thread(name_holders, taken.inodes)
            raise CannotServe(f"pod {pod}: {port_taken_message(taken, holders)}") from taken
        except OSError as error:
            raise CannotServe(f"pod {pod}: its network namespace cannot be entered: {error}") from error

    async def _wait_served(self, pod: ServedPod) -> None:
        try:
            async with asyncio.timeout(SERVE_TIMEOUT_S):
                await pod.served.wait()
        except TimeoutError:
            name = printable(f"{pod.identity.namespace}/{pod.identity.name}")
            asked = ", ".join(map(str, pod.at(Stage.ASKED))) or "none runs"
            raise CannotServe(
                f"pod {name}: worker {asked} did not take it within {SERVE_TIMEOUT_S:g} s: see the proxy's log"
            ) from None

    async def forget(self, uid: str, drain_s: float = 0.0) -> None:
        """Stop serving a pod; unknown ones are no error. Nothing drains longer than this proxy's own time. Without a
        drain it returns when all workers have let go of the namespace, also those that drained it already, after
        FORGET_TIMEOUT_S at the latest."""
        drain_s = min(drain_s, self._drain_s)
        self._pending.pop(uid, None)
        leaving = [one for one in self._handovers.leaving if one.identity.uid == uid]
        if drain_s <= 0:
            for one in leaving:
                self._handovers.hasten(one, drain_s)
        pod = self._served.pop(uid, None)
        if pod is not None:
            leaving.append(self._handovers.leave(pod, drain_s))
            pod.close()
            self.stopped += 1
            self._on_stopped()
            _log.info("pod %s is no longer served", printable(f"{pod.identity.namespace}/{pod.identity.name}"))
        self._source.release(uid)
        if drain_s <= 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(FORGET_TIMEOUT_S):
                    for one in leaving:
                        await one.gone.wait()

    async def forget_ended(self, netns: NetnsIdentity) -> None:
        """This namespace has ended: nothing of it is held any more. Its pod may live on in another one."""
        for uid in [uid for uid, pod in self._served.items() if pod.netns == netns]:
            await self.forget(uid)
        for one in self._handovers.leaving:
            if one.netns == netns:
                self._handovers.hasten(one, 0.0)

    async def keep_only(self, uids: Iterable[str]) -> None:
        """Drain what the agent's snapshot did not name."""
        named = frozenset(uids)
        for uid in [uid for uid in (*self._served, *self._pending) if uid not in named]:
            await self.forget(uid, self._drain_s)

    # ── What becomes of workers ────────────────────────────────────────────────────────────────────────────────────

    def worker_ended(self, worker: int) -> None:
        """Its pods move to others at once; without another they wait for its successor."""
        self._handovers.note_end(worker, self.served)

    def settle(self) -> None:
        """A worker has started or become usable: pods that belong there go home."""
        for pod in self.served:
            self._handovers.settle(pod)

    def share_among(self, numbers: Mapping[PodKey, int]) -> None:
        """How many workers serve a pod, by namespace and name; nothing is cut by a change."""
        if self._handovers.share_among(numbers):
            self.settle()

    def note_served(self, worker: int, message: PodServed) -> None:
        if (pod := self._served.get(message.uid)) is not None:
            self._handovers.note_served(worker, pod, message)

    def note_forgotten(self, worker: int, message: PodForgotten) -> None:
        self._handovers.note_forgotten(worker, self._served.get(message.uid), message)

    def note_lease(self, worker: int, message: AskLease | ReturnLease) -> None:
        self._handovers.note_lease(worker, message)

    # ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_drain(self) -> None:
        """Serve nobody from here on: every listener and namespace of ours is closed. Workers are told by Stop; until
        they have let go, `forget` hastens them."""
        self._drains = True
        for pod in self._served.values():
            self._handovers.leave(pod, None)
            pod.close()
        self.stopped += len(self._served)
        self._served.clear()
        self._pending.clear()
