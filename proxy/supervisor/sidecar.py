"""`headgate proxy --sidecar`: the proxy of the one pod that it lives in. No agent names pods to it or keeps its
listeners: the pod lives as long as its containers do, and while this one is away the rules lead to closed ports."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from proxy.api import stream
from proxy.api.constants import PROXY_MARK
from proxy.datapath.netns import OwnNetns
from proxy.datapath.standing import Standing
from proxy.errors import CannotServe, CannotStart, printable
from proxy.settings import ProxySettings
from proxy.supervisor import trials
from proxy.supervisor.handovers import PodKey
from proxy.supervisor.listener_source import ASK_AGAIN_S, FORMER_WORKERS_S
from proxy.supervisor.listeners import PodListeners, PortTaken, name_holders, open_listeners
from proxy.supervisor.node_policy import NodePolicy
from proxy.supervisor.pods import PodName, Pods
from proxy.supervisor.service import Supervisor, serve_until_told
from proxy.supervisor.sidecar_standing import find_standing
from proxy.supervisor.surroundings import Parts
from proxy.workerlink import ProofSeen

_log = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
"""Between two hand-overs to a worker that does not take them."""


def run(settings: ProxySettings, pod: PodName) -> None:
    """Serve the own pod until SIGTERM or SIGINT, then drain and return. Raises CannotStart."""
    asyncio.run(_run(settings, pod))


async def _run(settings: ProxySettings, pod: PodName) -> None:
    permitted = trials.permissions()
    source = OwnListeners()
    await source.open()
    try:
        standing = await find_standing(permitted)
        if standing.marks:
            source.mark()
        supervisor = Supervisor(settings, surroundings=OwnPod(pod, source, standing, settings.workers))
    except BaseException:
        source.close()
        raise
    await serve_until_told(supervisor)


class OwnListeners:
    """The pod's listeners, opened before anything else: what is tried out needs them, and a taken port is told early.

    `close` closes those that were not given away.
    """

    def __init__(self) -> None:
        self._marks = False
        self.entry = OwnNetns()
        self._opened: PodListeners | None = None

    async def open(self) -> None:
        """Raises CannotStart."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + FORMER_WORKERS_S
        while self._opened is None:
            try:
                self._opened = self._open()
            except PortTaken as taken:
                if loop.time() >= ends_s:
                    raise await _cannot_have(taken) from taken
                await asyncio.sleep(ASK_AGAIN_S)
            except CannotServe as refused:
                raise CannotStart(str(refused)) from refused

    def _open(self) -> PodListeners:
        return open_listeners(self.entry, self.entry.fileno(), marks=self._marks)

    def mark(self) -> None:
        """As a node's are: the rules know this proxy by it."""
        self._marks = True
        if self._opened is not None:
            for listener in self._opened.sockets:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)

    async def obtain(self, uid: str, netns_fd: int) -> PodListeners:
        """Those that are open; opened again when no worker took them the first time."""
        given, self._opened = self._opened, None
        return self._open() if given is None else given

    def release(self, uid: str) -> None: ...

    def abandon(self, uid: str) -> None: ...

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self.entry.close()


async def _cannot_have(taken: PortTaken) -> CannotStart:
    holders = await asyncio.to_thread(name_holders, taken.inodes)
    who = holders or "a socket whose process cannot be seen from here"
    return CannotStart(
        f"port {taken.port}/tcp{taken.family} of this pod is already taken by {who}: take the other sidecar out, or "
        "move that application to another port"
    )


class OwnPod:
    """Names one pod, once."""

    connected: Final = False
    until_then: Final[Parts] = ()

    def __init__(self, pod: PodName, source: OwnListeners, standing: Standing, workers: int) -> None:
        self.entry = source.entry
        self.source = source
        self.worker_options = ("--standing", standing.words())
        self._pod = pod
        self._workers = workers
        self._served = False
        self._leaving = asyncio.Event()

    def attend(self, pods: Pods, policy: NodePolicy, on_change: Callable[[], None], in_force: asyncio.Event) -> None:
        self._pods, self._policy, self._on_change = pods, policy, on_change

    @property
    def to_the_end(self) -> Parts:
        return (self._announce,)

    async def _announce(self) -> None:
        if self._policy.objects is not None:
            self._policy.objects.greeted(stream.Hello(objects="none"))
        while not self._leaving.is_set():
            try:
                await self._pods.add(self._pod, os.dup(self.entry.fileno()))
            except CannotServe as refused:
                _log.warning("%s; trying again", printable(str(refused), 1000))
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await self._leaving.wait()
            else:
                self._served = True
                self._on_change()
                return

    @property
    def missing(self) -> str:
        return "" if self._served else "no worker has taken the pod's listeners yet"

    def shares(self, asked: Mapping[PodKey, int]) -> Mapping[PodKey, int]:
        """Every worker is there for this pod."""
        return {(self._pod.namespace, self._pod.name): self._workers}

    def pod_came(self) -> None: ...

    def note_proof(self, proof: ProofSeen) -> None:
        """Nobody here asks for it: who dials has its answer from the worker."""

    def leave(self) -> None:
        self._leaving.set()

    def close(self) -> None:
        self.source.close()
