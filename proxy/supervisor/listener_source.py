"""Where a pod's listeners come from: a former proxy's, kept by the agent, or opened here."""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Final, Protocol

from proxy.api import fd_box, zds
from proxy.datapath.netns import Entry
from proxy.errors import printable
from proxy.supervisor.fd_store import FdStore
from proxy.supervisor.listeners import Inherited, PodListeners, PortTaken, cookie_of, open_listeners, recognise
from proxy.workerlink import ListenerKind

_log = logging.getLogger(__name__)

FORMER_PROXY_S: Final = 2.0
"""How long a taken port may be a former proxy's: its agent may have been restarted this instant and not have its
listeners yet (fd_store.LOOK_EVERY_S), or its workers end a moment after it. Below the 5 s that the agent waits."""
FORMER_WORKERS_S: Final = 0.25
"""Where no agent keeps listeners only the workers of a killed proxy can hold them, for the instant that they outlive it
(PR_SET_PDEATHSIG): twice what a busy machine takes to end a process."""
ASK_AGAIN_S: Final = 0.05


class Listeners(Protocol):
    """Whence Pods has a pod's listeners."""

    async def obtain(self, uid: str, netns_fd: int) -> PodListeners:
        """All of them, now the caller's. Raises PortTaken, CannotServe, and OSError when the namespace cannot be
        entered."""
        ...

    def release(self, uid: str) -> None:
        """The pod is gone."""

    def abandon(self, uid: str) -> None:
        """Not served by this proxy after all."""


class ListenerSource:
    """Gives a pod's listeners, and has the agent keep them."""

    def __init__(self, entry: Entry, store: FdStore) -> None:
        self._entry = entry
        self._store = store

    async def obtain(self, uid: str, netns_fd: int) -> PodListeners:
        """All listeners of the pod: those of a former proxy with their queues, the missing ones new.

        Raises PortTaken after FORMER_PROXY_S (without a store: FORMER_WORKERS_S), CannotServe, and OSError when the
        namespace cannot be entered.
        """
        inherited: Inherited = {}
        box: socket.socket | None = None
        try:
            # Nobody is asked where nobody listens: of 250 new pods each question waits for the busy agent's next turn.
            listeners = open_listeners(self._entry, netns_fd, name_takers=False)
        except PortTaken:
            listeners, inherited, box = await self._take_over(uid, netns_fd)
        if inherited:
            _log.info("pod %s: %d listeners of the former proxy are served on", printable(uid), len(inherited))
        try:
            await self._store.keep(uid, listeners, box)
        except BaseException:
            self.abandon(uid)
            listeners.close()
            raise
        return listeners

    async def _take_over(self, uid: str, netns_fd: int) -> tuple[PodListeners, Inherited, socket.socket | None]:
        """All listeners, which of them a former proxy opened, and the box that holds exactly these, if one does."""
        cookie = cookie_of(self._entry, netns_fd)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            box = await self._store.take(uid)
            inherited = {} if box is None else _content(box, cookie)
            complete = False
            try:
                listeners = open_listeners(self._entry, netns_fd, inherited)
                complete = len(listeners.kinds) == len(inherited)
                return listeners, inherited, box if complete else None
            except PortTaken:
                if loop.time() - began_s >= (FORMER_PROXY_S if self._store.connected else FORMER_WORKERS_S):
                    raise
            finally:
                if box is not None and not complete:
                    box.close()
            await asyncio.sleep(ASK_AGAIN_S)

    def release(self, uid: str) -> None:
        """The pod is gone: nobody keeps its listeners any more."""
        self._store.release(uid)

    def abandon(self, uid: str) -> None:
        """Not served by this proxy after all; what the agent keeps stays."""
        self._store.abandon(uid)


def _content(box: socket.socket, cookie: int) -> dict[ListenerKind, socket.socket]:
    """What is in the box and belongs to this namespace; nothing when it is anything else."""
    with suppress(OSError, zds.ProtocolError):
        packet = fd_box.look_into(box)
        if packet is not None:
            return recognise(packet.descriptors, cookie)
    return {}
