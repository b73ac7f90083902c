"""The agent's side of ZDS: tells every proxy which pods it serves and hands it their network namespaces.

The protocol is istio-cni's and ztunnel's (framing: proxy.api.zds). A proxy connects, says hello, is told all
enrolled pods (the snapshot), then each change. During an upgrade two are connected: the newest gets new pods, both
are told of those that leave. Which one is the newest is not told by who comes first: after the agent's own restart
both come again, and the one that is to go may be the later.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.handoff.listening import Listening, listen, peer_is_trusted
from agent.handoff.zds_connection import ConnectionGone, Unanswered, ZdsConnection
from agent.printable import printable
from proxy.api import zds
from proxy.api.zds import WorkloadInfo

_log: Final = logging.getLogger("headgate.zds")

ACCEPT_INTERVAL_S: Final = 0.2
"""istio-cni accepts 5 connections/s (cni/pkg/nodeagent/ztunnelserver.go): a proxy that fails in a loop asks for a
snapshot each time."""


@dataclass(frozen=True, slots=True)
class Acked:
    """The proxy has done it."""


@dataclass(frozen=True, slots=True)
class Nacked:
    """The proxy refused, or did not answer: `reason` in its own, printable words. Retry later."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoProxy:
    """None is connected. The next one is told by its snapshot: nothing to retry."""


AddResult = Acked | Nacked | NoProxy


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A pod that every proxy must serve. `open_netns` returns a descriptor that the server closes, or None when the
    namespace cannot be opened just now; it is called when the pod's turn has come, so that none is held before."""

    uid: str
    info: WorkloadInfo
    open_netns: Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class NotLocated:
    """A pod that is enrolled and whose namespace was not found yet: the proxy keeps what it has of it."""

    uid: str


SnapshotEntry = Enrolled | NotLocated


@dataclass(slots=True)
class _Proxy:
    """A proxy that said hello, and what of its snapshot it has not been told yet, by uid."""

    connection: ZdsConnection
    began_ns: int
    untold: dict[str, SnapshotEntry]
    has_snapshot: bool = False


class ZdsServer:
    """Serves the ZDS socket on the running event loop.

    `snapshot` is asked once for each proxy that says hello; `on_result` hears how each pod of a snapshot was taken;
    `on_connected` hears True when the first proxy came and False when the last one went; `on_announced`, of each pod
    that was told, the seconds until the proxy's answer. All are called on the event loop and must not block.
    """

    def __init__(
        self,
        snapshot: Callable[[], Sequence[SnapshotEntry]],
        on_result: Callable[[str, AddResult], None] | None = None,
        on_connected: Callable[[bool], None] | None = None,
        request_timeout_s: float = zds.REQUEST_TIMEOUT_S,
        on_announced: Callable[[float], None] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._on_result = on_result
        self._on_connected = on_connected
        self._on_announced = on_announced
        self._timeout_s = request_timeout_s
        self._listening: Listening | None = None
        self._greeting: set[ZdsConnection] = set()
        self._proxies: list[_Proxy] = []  # the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """A proxy has said hello and is there."""
        return bool(self._proxies)

    async def start(self, path: str | Path) -> None:
        """Listens at `path`. Raises SocketTaken when another agent does, OSError when the directory cannot be used."""
        self._listening = listen(Path(path), socket.SOCK_SEQPACKET)
        self._watch()

    async def add(self, uid: str, info: WorkloadInfo, netns_fd: int) -> AddResult:
        """Tells the newest proxy to serve a pod. `netns_fd` stays the caller's, open until this returns."""
        if not self._proxies:
            return NoProxy()
        proxy = self._proxies[-1]
        proxy.untold.pop(uid, None)
        return await self._request(proxy, zds.AddWorkload(uid, info), netns_fd)

    async def remove(self, uid: str, drain_s: float = 0.0) -> AddResult:
        """Tells every proxy to let go of a pod; the first complaint, if any. A proxy that was away learns it by the
        pod's absence from its snapshot. With `drain_s` its connections may last so much longer, and this does not wait
        for them: to be called again without."""
        for proxy in self._proxies:
            proxy.untold.pop(uid, None)
        requests = [self._request(proxy, zds.DeleteWorkload(uid, drain_s)) for proxy in self._proxies]
        results = await asyncio.gather(*requests)
        complaint = next((result for result in results if isinstance(result, Nacked)), None)
        return complaint or (Acked() if Acked() in results else NoProxy())

    async def close(self) -> None:
        """Stops listening and sends every proxy away; they keep serving what they have."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        if self._resume is not None:
            self._resume.cancel()
        asyncio.get_running_loop().remove_reader(listening.socket.fileno())
        listening.close()
        for connection in [*self._greeting, *(proxy.connection for proxy in self._proxies)]:
            connection.close("the agent stops")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ── Accepting ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _watch(self) -> None:
        self._resume = None
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening.socket.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._listening is not None
        loop = asyncio.get_running_loop()
        try:
            sock, _ = self._listening.socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("cannot accept a proxy: %s; raise the limit of open files if it says so", error.strerror)
            sock = None
        # The next one waits, also after a failure: an exhausted descriptor table would make this a busy loop.
        loop.remove_reader(self._listening.socket.fileno())
        self._resume = loop.call_later(ACCEPT_INTERVAL_S, self._watch)
        if sock is not None:
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        if not peer_is_trusted(sock):
            _log.warning("a process of another user connected to the ZDS socket; sent away")
            sock.close()
            return
        sock.setblocking(False)
        connection = ZdsConnection(sock, self._timeout_s, self._gone, self._timed)
        self._greeting.add(connection)
        self._start(self._serve(connection), connection)

    def _start(self, work: Coroutine[None, None, None], connection: ZdsConnection) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, connection))

    def _timed(self, request: zds.Request, seconds: float) -> None:
        if self._on_announced is not None and isinstance(request, zds.AddWorkload):
            self._on_announced(seconds)

    def _ended(self, task: asyncio.Task[None], connection: ZdsConnection) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours. A proxy with half a snapshot must not stay: it would drain what it was not told of.
            _log.error("snapshot failed: %s", printable(repr(error)), exc_info=error)
            connection.close("its snapshot failed")

    def _gone(self, connection: ZdsConnection) -> None:
        self._greeting.discard(connection)
        before = self.connected
        was_newest = bool(self._proxies) and self._proxies[-1].connection is connection
        # By identity: an older proxy may well end after a newer one has come (istio's order bug, note 54565).
        self._proxies = [proxy for proxy in self._proxies if proxy.connection is not connection]
        if before and not self.connected and self._on_connected is not None:
            self._on_connected(False)
        if was_newest and self._proxies and self._listening is not None:
            self._put_in_charge(self._proxies[-1])

    def _put_in_charge(self, proxy: _Proxy) -> None:
        """A newer proxy is gone that was to take its place: what only that one was told of is told to this one."""
        proxy.untold.update({entry.uid: entry for entry in self._snapshot() if isinstance(entry, Enrolled)})
        if proxy.has_snapshot:
            self._start(self._tell_late(proxy), proxy.connection)

    # ── Snapshot ───────────────────────────────────────────────────────────────────────────────────────────────────
    async def _serve(self, connection: ZdsConnection) -> None:
        try:
            hello = await connection.hello()
            proxy = self._enlist(connection, hello.began_ns or time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            while proxy.untold and not connection.closed.is_set():
                uid = next(iter(proxy.untold))
                await self._tell(proxy, proxy.untold.pop(uid))
            if error := await connection.request(zds.SnapshotSent()):
                connection.close(f"it refused the end of the snapshot: {error}")
                return
            proxy.has_snapshot = True
            await self._tell_late(proxy)
        except ConnectionGone:
            return
        except Unanswered as unanswered:
            connection.close(f"snapshot: {unanswered}")

    def _enlist(self, connection: ZdsConnection, began_ns: int) -> _Proxy:
        """Asks for the snapshot and registers the proxy in one step: no change can fall between the two."""
        self._greeting.discard(connection)
        proxy = _Proxy(connection, began_ns, {entry.uid: entry for entry in self._snapshot()})
        self._proxies.append(proxy)
        self._proxies.sort(key=lambda one: one.began_ns)
        _log.info("proxy connected; %d pods in its snapshot", len(proxy.untold))
        if len(self._proxies) == 1 and self._on_connected is not None:
            self._on_connected(True)
        return proxy

    async def _tell_late(self, proxy: _Proxy) -> None:
        """What came up after the end of its snapshot, when nothing is left to `keep`."""
        while proxy.untold and not proxy.connection.closed.is_set():
            entry = proxy.untold.pop(next(iter(proxy.untold)))
            if isinstance(entry, Enrolled):
                await self._tell(proxy, entry, may_keep=False)

    async def _tell(self, proxy: _Proxy, entry: SnapshotEntry, *, may_keep: bool = True) -> None:
        descriptor = entry.open_netns() if isinstance(entry, Enrolled) else None
        try:
            if isinstance(entry, Enrolled) and descriptor is not None:
                result = await self._request(proxy, zds.AddWorkload(entry.uid, entry.info), descriptor)
            elif may_keep:
                await self._request(proxy, zds.KeepWorkload(entry.uid))
                return
            else:
                return
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if self._on_result is not None and not isinstance(result, NoProxy):
            self._on_result(entry.uid, result)

    async def _request(self, proxy: _Proxy, request: zds.Request, descriptor: int | None = None) -> AddResult:
        try:
            error = await proxy.connection.request(request, descriptor)
        except ConnectionGone:
            return NoProxy()
        except (Unanswered, ValueError) as refused:
            return Nacked(str(refused))
        return Nacked(printable(error)) if error else Acked()
