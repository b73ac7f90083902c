"""Pods' namespaces and listeners for the tests of the store, and both ends of fds.sock in one event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from agent.handoff.fds import FdStore as AgentStore
from agent.lab.namespaces import Netns
from proxy.api import fd_box, stream, zds
from proxy.api.stream import BoxedListener, BoxFrame, StoreHello, StoreMessage
from proxy.datapath.netns import NetnsEntry
from proxy.supervisor.fd_store import FdStore as ProxyStore
from proxy.supervisor.listener_source import ListenerSource
from proxy.supervisor.listeners import PodListeners, open_listeners

WAIT_S = 5.0
LISTENERS = (BoxedListener(15001, 4), BoxedListener(15001, 6), BoxedListener(15006, 4), BoxedListener(15006, 6))


@contextmanager
def netns_fd(netns: Netns) -> Iterator[int]:
    descriptor = os.open(netns.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def listeners_in(netns: Netns) -> Iterator[PodListeners]:
    """All four, as a proxy opens them."""
    entry = NetnsEntry()
    try:
        with netns_fd(netns) as descriptor:
            listeners = open_listeners(entry, descriptor)
    finally:
        entry.close()
    try:
        yield listeners
    finally:
        listeners.close()


def box_of(uid: str, listeners: PodListeners, frame: BoxFrame | None = None) -> socket.socket:
    descriptors = [listener.fileno() for listener in listeners.sockets]
    return fd_box.make_box(frame or BoxFrame(uid, listeners.netns_cookie, LISTENERS), descriptors)


async def until(what: str, condition: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S:g} s: {what}") from None


@dataclass
class Agent:
    """An agent's store, and what it told its owner."""

    path: Path
    known: set[str] = field(default_factory=lambda: {"uid-1", "uid-2"})
    park_timeout_s: float = 30.0
    parked: list[tuple[str, ...]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self.store = AgentStore(self.park_timeout_s, lambda uid: uid in self.known, self.parked.append)
        self.store.start(self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.store.close()


class Stranger:
    """A peer of the agent that says what a test wants it to say."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))
        self.socket.settimeout(WAIT_S)

    async def ask(self, message: StoreMessage | bytes, *descriptors: int) -> StoreMessage | None:
        """The answer; None when the agent closed the connection. A box that comes with it is in `box`."""
        data = message if isinstance(message, bytes) else stream.encode_store(message)
        zds.send(self.socket, data, descriptors)
        try:
            packet = await asyncio.to_thread(zds.receive, self.socket, stream.MAX_STORE_PACKET_BYTES)
        except ConnectionResetError:
            return None
        self.box = socket.socket(fileno=packet.descriptors[0]) if packet.descriptors else None
        return stream.decode_store(packet.data) if packet.data else None

    async def greet(self) -> Self:
        assert await self.ask(StoreHello()) == StoreHello()
        return self

    def close(self) -> None:
        self.socket.close()


class Proxy:
    """A proxy's store and source of listeners; `run` keeps its connection. Ends as a killed process does: at once."""

    def __init__(self, path: Path) -> None:
        self._entry = NetnsEntry()
        self.reached = 0
        self.store = ProxyStore(path, self._reach)
        self.source = ListenerSource(self._entry, self.store)
        self.listeners: list[PodListeners] = []
        self._running = asyncio.create_task(self.store.run())

    def _reach(self) -> None:
        self.reached += 1

    async def serve(self, uid: str, netns: Netns) -> PodListeners:
        with netns_fd(netns) as descriptor:
            listeners = await self.source.obtain(uid, descriptor)
        self.listeners.append(listeners)
        return listeners

    async def die(self) -> None:
        """Idempotent."""
        if self._running.done():
            return
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self.store.close()
        for listeners in self.listeners:
            listeners.close()
        self._entry.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()


def inodes(listeners: PodListeners) -> list[int]:
    return [os.fstat(listener.fileno()).st_ino for listener in listeners.sockets]


def clients_wait(netns: Netns, number: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that nobody has accepted."""
    return [stack.enter_context(netns.connect("127.0.0.1", 15001)) for _ in range(number)]


def accepts(netns: Netns) -> bool:
    """Whether something listens in the namespace."""
    try:
        netns.connect("127.0.0.1", 15001).close()
    except ConnectionRefusedError:
        return False
    return True
