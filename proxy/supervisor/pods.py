"""The pods that are served: their namespaces, listeners and workers, from announcement to departure."""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from proxy.datapath.netns import CLONE_NEWNET, NetnsEntry
from proxy.errors import CannotServe, printable
from proxy.link import close_descriptors
from proxy.supervisor.listeners import PodListeners, PortTaken, name_holders, open_listeners, port_taken_message
from proxy.supervisor.workers import Worker, worker_of
from proxy.workerlink import ForgetPod, PodForgotten, PodIdentity, PodServed, ServePod

_log = logging.getLogger(__name__)

SERVE_TIMEOUT_S: Final = 4.0
"""The agent waits 5 s for an answer (istio cni/pkg/nodeagent/ztunnelserver.go, readWriteDeadline): a nack that tells
the reason must come before that."""
FORGET_TIMEOUT_S: Final = 2.0
"""A namespace must be free within 2 s of the pod's end."""

_NS_GET_NSTYPE: Final = 0xB703
"""include/uapi/linux/nsfs.h"""

NetnsIdentity = tuple[int, int]
"""(st_dev, st_ino)"""


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


@dataclass(slots=True)
class ServedPod:
    """Owns the namespace's descriptor and the listeners; both are sent again to a worker that replaces another."""

    identity: PodIdentity
    netns: NetnsIdentity
    netns_fd: int
    listeners: PodListeners
    worker: int
    served: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        self.listeners.close()
        close_descriptors((self.netns_fd,))


@dataclass(frozen=True, slots=True)
class PendingPod:
    """A pod that was announced and could not be served; the agent announces it again."""

    name: PodName
    reason: str


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
    """Every pod that the agent announced. One caller at a time: ZDS answers requests in order."""

    def __init__(self, entry: NetnsEntry, workers: Callable[[], list[Worker]], drain_s: float) -> None:
        own = os.fstat(entry.fileno())
        self._own_netns = (own.st_dev, own.st_ino)
        self._entry = entry
        self._workers = workers
        self._drain_s = drain_s
        self._served: dict[str, ServedPod] = {}
        self._pending: dict[str, PendingPod] = {}
        self._forgetting: dict[str, asyncio.Event] = {}
        self.started = 0
        self.stopped = 0

    @property
    def served(self) -> list[ServedPod]:
        return list(self._served.values())

    @property
    def pending(self) -> list[PendingPod]:
        return list(self._pending.values())

    async def add(self, pod: PodName, netns_fd: int) -> None:
        """Serve a pod; returns when its worker holds the listeners. Takes the descriptor over, whatever happens.

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
            if netns == self._own_netns:
                raise CannotServe(
                    f"pod {pod}: the namespace announced is the proxy's own, not a pod's: check the agent"
                )
            await self._serve(pod, netns, netns_fd)
            netns_fd = -1
            self._pending.pop(pod.uid, None)
        except CannotServe as refused:
            self._pending[pod.uid] = PendingPod(pod, str(refused))
            raise
        finally:
            if netns_fd >= 0:
                close_descriptors((netns_fd,))

    async def _serve(self, pod: PodName, netns: NetnsIdentity, netns_fd: int) -> None:
        listeners = await self._open(pod, netns_fd)
        identity = PodIdentity(pod.uid, pod.namespace, pod.name, pod.service_account, listeners.netns_cookie)
        index = worker_of(pod.uid, len(self._workers()))
        served = ServedPod(identity, netns, netns_fd, listeners, index)
        self._served[pod.uid] = served
        self._hand_over(served)
        try:
            await self._wait_served(served)
        except BaseException:
            # The descriptor stays the caller's: it closes it.
            del self._served[pod.uid]
            self._workers()[index].send(ForgetPod(pod.uid, 0.0))
            listeners.close()
            raise
        self.started += 1
        _log.info("pod %s is served by worker %d", pod, index)

    async def _open(self, pod: PodName, netns_fd: int) -> PodListeners:
        try:
            return open_listeners(self._entry, netns_fd)
        except PortTaken as taken:
            holders = await asyncio.to_thread(name_holders, taken.inodes)
            raise CannotServe(f"pod {pod}: {port_taken_message(taken, holders)}") from taken
        except OSError as error:
            raise CannotServe(f"pod {pod}: its network namespace cannot be entered: {error}") from error

    def _hand_over(self, pod: ServedPod) -> None:
        descriptors = [pod.netns_fd, *(listener.fileno() for listener in pod.listeners.sockets)]
        self._workers()[pod.worker].send(ServePod(pod.identity, pod.listeners.kinds), descriptors)

    async def _wait_served(self, pod: ServedPod) -> None:
        try:
            async with asyncio.timeout(SERVE_TIMEOUT_S):
                await pod.served.wait()
        except TimeoutError:
            name = printable(f"{pod.identity.namespace}/{pod.identity.name}")
            raise CannotServe(
                f"pod {name}: worker {pod.worker} did not take it within {SERVE_TIMEOUT_S:g} s: see the proxy's log"
            ) from None

    async def forget(self, uid: str, drain_s: float = 0.0) -> None:
        """Stop serving a pod; unknown ones are no error. Without a drain it returns when the worker has let go of the
        namespace, after FORGET_TIMEOUT_S at the latest."""
        self._pending.pop(uid, None)
        pod = self._served.pop(uid, None)
        if pod is None:
            return
        gone = self._forgetting.setdefault(uid, asyncio.Event())
        self._workers()[pod.worker].send(ForgetPod(uid, drain_s))
        pod.close()
        self.stopped += 1
        _log.info("pod %s is no longer served", printable(f"{pod.identity.namespace}/{pod.identity.name}"))
        if drain_s <= 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(FORGET_TIMEOUT_S):
                    await gone.wait()

    async def keep_only(self, uids: Iterable[str]) -> None:
        """Drain what the agent's snapshot did not name."""
        named = frozenset(uids)
        for uid in [uid for uid in (*self._served, *self._pending) if uid not in named]:
            await self.forget(uid, self._drain_s)

    def replay(self, worker: Worker) -> None:
        """Tell a worker that has just started of every pod it serves."""
        for gone in self._forgetting.values():
            gone.set()
        self._forgetting.clear()
        for pod in self._served.values():
            if pod.worker == worker.index:
                self._hand_over(pod)

    def note_served(self, message: PodServed) -> None:
        if (pod := self._served.get(message.uid)) is not None:
            pod.served.set()

    def note_forgotten(self, message: PodForgotten) -> None:
        if (gone := self._forgetting.pop(message.uid, None)) is not None:
            gone.set()
        if message.cut_connections:
            _log.warning("pod %s left with %d connections cut", printable(message.uid), message.cut_connections)

    def close(self) -> None:
        """Close every listener and namespace; the workers were told to stop."""
        for pod in self._served.values():
            pod.close()
        self.stopped += len(self._served)
        self._served.clear()
        self._pending.clear()
