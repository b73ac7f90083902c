"""The agent from start to end: who is begun when, and what is left behind."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import CannotStart
from agent.events import Events
from agent.handoff.fds import FdStore
from agent.handoff.listening import Listening, SocketTaken, listen
from agent.handoff.object_lines import ObjectLines
from agent.handoff.objects import ObjectsServer
from agent.handoff.zds import AddResult, ZdsServer
from agent.kernel import backends
from agent.kernel.backends import Backend, Choice
from agent.kernel.netns import NetnsThreads
from agent.kernel.refused import KernelRefused
from agent.kernel.scratch import in_scratch
from agent.metrics import AgentMetrics
from agent.reconcile.life import Drifted, ProxyParked
from agent.settings import AUTO, AgentSettings
from agent.sources.netns import NetnsSource
from agent.sources.objects import ObjectsDirectory
from agent.supervisor import inside
from agent.supervisor.admin import Admin, metrics_sockets, serving
from agent.supervisor.drift_rounds import Comparing, DriftRounds, NftComparing
from agent.supervisor.drift_watch import DriftWatch
from agent.supervisor.effects import Effects, Rules, answer
from agent.supervisor.inside_iptables import IptablesComparing, IptablesRules
from agent.supervisor.registry import Registry
from agent.supervisor.reports import PodReports

_log: Final = logging.getLogger("headgate.agent")

CLEANUP_S: Final = 8.0
"""All rules of 250 pods go in about a second; what hangs longer is told. Below the ten seconds a supervisor grants."""


async def serve(settings: AgentSettings) -> None:
    """Runs until SIGTERM or SIGINT. Raises CannotStart.

    Then rules stay in force (fail closed: a restart or an upgrade opens no gap), unless `cleanup_on_exit` is set.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with contextlib.AsyncExitStack() as stack:
        agent = _Agent(settings, stack)
        try:
            settings.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            await agent.open()
        except SocketTaken as error:
            raise CannotStart(str(error)) from error
        except OSError as error:
            raise CannotStart(f"run directory {settings.run_dir}: {error.strerror or error}") from error
        await agent.run(stopping)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The backend of every pod of the node."""

    backend: Backend
    rules: Rules
    comparing: Comparing


def _chosen(settings: AgentSettings) -> _Chosen:
    """Tried in a namespace of its own. Raises CannotStart."""
    wanted = None if settings.backend == AUTO else Backend(settings.backend)
    try:
        choice = in_scratch(backends.choose, wanted)
    except PermissionError:  # no pod can be entered either, which is told where it is tried
        choice = Choice(wanted or Backend.NFTABLES, "untried: no namespace can be made")
    except (KernelRefused, OSError) as error:
        raise CannotStart(f"no backend for redirect rules: {error}") from error
    _log.info("redirect rules are made of %s: %s", choice.backend.value, choice.reason)
    if choice.backend is Backend.NFTABLES:
        return _Chosen(choice.backend, inside, NftComparing())
    return _Chosen(choice.backend, IptablesRules(choice.backend), IptablesComparing(choice.backend))


class _Agent:
    """What lives as long as the agent does."""

    def __init__(self, settings: AgentSettings, stack: contextlib.AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._metrics = AgentMetrics()
        self._threads = NetnsThreads()
        stack.callback(self._threads.close)
        self._zds = ZdsServer(
            self._snapshot,
            self._answered,
            self._metrics.proxy_connected,
            on_announced=self._metrics.announced,
            is_ours=self._is_ours,
        )
        directory = settings.objects_dir
        self._objects_source = None if directory is None else ObjectsDirectory(directory)
        self._object_lines = ObjectLines()
        self._objects = ObjectsServer(None if directory is None else self._object_lines)
        self._store = FdStore(settings.park_timeout_s, self._knows, self._parked)
        stack.callback(self._store.close)
        self._events = Events(time.time)
        self._reports = PodReports(self._metrics, self._events)
        chosen = _chosen(settings)
        self._drift = DriftWatch(
            settings.life.plan,
            self._drifted,
            self._foreign,
            functools.partial(DriftRounds, comparing=chosen.comparing),
        )
        stack.callback(self._drift.close)
        self._effects = Effects(
            settings.life.plan,
            settings.on_unsteered,
            self._threads,
            self._zds,
            self._objects,
            self._metrics,
            self._store,
            self._drift,
            self._reports,
            chosen.rules,
            chosen.backend.value,
        )
        stack.callback(self._effects.close)
        self._registry = Registry(
            settings.life, self._effects, self._metrics, self._effects.forget, self._reports.changed
        )
        self._source = NetnsSource(settings.pods_file)
        self._admin = Admin(
            settings, self._registry, self._effects, self._metrics, self._facts, self._reports, self._events
        )

    async def run(self, stopping: asyncio.Event) -> None:
        tasks = [asyncio.create_task(work) for work in (self._watch(), self._drift.run(), stopping.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await self._leave()
        fault = next((result for result in results if isinstance(result, Exception)), None)
        if fault is not None:  # neither the source nor the watch ever ends by itself
            raise fault

    async def open(self) -> None:
        """Every socket that can be taken already is tried before any pod is touched. Pods are seen before a proxy may
        connect: a proxy lets go of what its snapshot does not name."""
        admin_socket = self._listen(self._settings.admin_socket)
        ports = metrics_sockets(self._settings)
        for sock in ports:
            self._stack.callback(sock.close)
        await self._objects.start(self._settings.objects_socket)
        self._stack.push_async_callback(self._objects.close)
        if self._objects_source is not None:
            self._stack.callback(asyncio.create_task(self._watch_objects(self._objects_source)).cancel)
        for event in await asyncio.to_thread(self._source.look):
            self._registry.heard(event)
        # Before ZDS: a proxy that is told of a pod asks here first for the listeners of the one before it.
        self._store.start(self._settings.fds_socket)
        await self._zds.start(self._settings.zds_socket)
        self._stack.push_async_callback(self._zds.close)
        await self._stack.enter_async_context(serving(self._admin.admin_application(), [admin_socket]))
        await self._stack.enter_async_context(serving(self._admin.metrics_application(), ports))
        _log.info("agent is ready; %d pods", len(self._registry.lives()))

    def _listen(self, path: Path) -> socket.socket:
        listening: Listening = listen(path, socket.SOCK_STREAM)
        self._stack.callback(listening.close)
        return listening.socket

    async def _watch_objects(self, source: ObjectsDirectory) -> None:
        while True:
            self._object_lines.update(await source.changes())

    async def _watch(self) -> None:
        async for event in self._source:
            self._registry.heard(event)

    async def _leave(self) -> None:
        if not self._settings.cleanup_on_exit:
            await self._registry.abandon()
            _log.info("agent ends; rules stay in force")
            return
        for life in await self._registry.stop(CLEANUP_S):
            _log.warning("pod %s keeps its rules: it is %s: %s", life.pod, life.state.value, life.reason)
        _log.info("agent ends; rules are removed")

    # ── What others ask for ────────────────────────────────────────────────────────────────────────────────────────
    def _snapshot(self) -> Any:
        return self._registry.snapshot()

    def _answered(self, uid: str, result: AddResult) -> None:
        self._registry.post(uid, answer(result))

    def _drifted(self, key: str, event: Drifted) -> None:
        worker = self._registry.worker_of(key)
        if worker is not None and worker.life.installed:
            self._reports.drifted(worker.life, event)
            worker.post(event)

    def _foreign(self, key: str, chains: tuple[str, ...]) -> None:
        worker = self._registry.worker_of(key)
        if worker is not None:
            self._reports.foreign(worker.life, chains)

    def _is_ours(self, pid: int) -> bool:
        return self._store.is_served_by(pid)

    def _knows(self, uid: str) -> bool:
        return self._registry.knows(uid)

    def _parked(self, uids: tuple[str, ...]) -> None:
        self._metrics.parked(len(uids))
        for uid in uids:
            self._registry.post(uid, ProxyParked())

    def _facts(self) -> dict[str, Any]:
        return {
            "proxy_connected": self._zds.connected,
            "problems": [*self._source.problems, *(self._objects_source.problems if self._objects_source else ())],
        }
