"""The agent from start to end: who is begun when, and what is left behind."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.chaining.conflist import Chained
from agent.chaining.node import NodeChain
from agent.errors import CannotStart
from agent.events import Events
from agent.handoff.fds import FdStore
from agent.handoff.listening import Listening, SocketTaken, listen
from agent.handoff.object_lines import ObjectLines
from agent.handoff.objects import ObjectsServer
from agent.handoff.zds import AddResult, ZdsServer
from agent.kernel import backends
from agent.kernel.backends import Backend, Choice
from agent.kernel.held import Found
from agent.kernel.netns import NetnsThreads
from agent.kernel.refused import KernelRefused
from agent.kernel.scratch import in_scratch
from agent.metrics import AgentMetrics
from agent.reconcile import Life
from agent.reconcile.life import Drifted, ProxyParked
from agent.settings import AUTO, AgentSettings
from agent.sources.cni import CniServer
from agent.sources.events import SourceEvent
from agent.sources.kubernetes_pods import KubernetesPods
from agent.supervisor import inside
from agent.supervisor.admin import Admin, metrics_sockets, serving
from agent.supervisor.attaching import Attaching
from agent.supervisor.budget import Budget
from agent.supervisor.cluster_duties import ClusterDuties
from agent.supervisor.cluster_telling import ClusterTelling
from agent.supervisor.drift_rounds import Comparing, DriftRounds, NftComparing
from agent.supervisor.drift_watch import DriftWatch
from agent.supervisor.effects import Effects, Rules, answer
from agent.supervisor.followers import Followers
from agent.supervisor.inside_iptables import IptablesComparing, IptablesRules
from agent.supervisor.probe_ways import node_probes
from agent.supervisor.readiness import Readiness
from agent.supervisor.registry import Registry
from agent.supervisor.reports import PodReports
from agent.supervisor.sources import ObjectSource, PodSource, sources_of
from agent.supervisor.standing import Known, Standing, objects_of, source_of
from proxy.api.stream import ObjectName

_log: Final = logging.getLogger("headgate.agent")

CLEANUP_S: Final = 30.0
"""250 pods with a connection each take 8.5 on two cores, their last answers among it (effects.LAST_ANSWERS_S); what
hangs longer is told. With cluster_telling.LEAVE_S below the 60 that a pod is granted (daemonset/base/agent.yaml)."""


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
            if not await _done_before(stopping, agent.open()):
                return
        except SocketTaken as error:
            raise CannotStart(str(error)) from error
        except OSError as error:
            raise CannotStart(f"run directory {settings.run_dir}: {error.strerror or error}") from error
        await agent.run(stopping)


async def _done_before(stopping: asyncio.Event, opening: Coroutine[Any, Any, None]) -> bool:
    """An API server may not answer for hours: who is asked to stop meanwhile does not wait for it."""
    opened, stopped = asyncio.create_task(opening), asyncio.create_task(stopping.wait())
    await asyncio.wait((opened, stopped), return_when=asyncio.FIRST_COMPLETED)
    for task in (opened, stopped):
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if opened.cancelled():
        return False
    opened.result()
    return True


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


def _chain_of(settings: AgentSettings) -> NodeChain | None:
    cluster = settings.cluster
    if cluster is None or cluster.cni is None:
        return None
    excluded = tuple(sorted(cluster.selection.excluded_namespaces))
    return NodeChain(cluster.cni, Chained(str(settings.cni_socket), excluded))


class _Agent:
    """What lives as long as the agent does."""

    def __init__(self, settings: AgentSettings, stack: contextlib.AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._metrics = AgentMetrics()
        self._threads = NetnsThreads()
        stack.callback(self._threads.close)
        connected, announced = self._metrics.proxy_connected, self._metrics.announced
        self._zds = ZdsServer(self._snapshot, self._answered, connected, on_announced=announced)
        self._sources = sources_of(settings, stack)
        self._watching: list[asyncio.Task[None]] = []
        self._object_lines = ObjectLines()
        self._objects = ObjectsServer(None if self._sources.objects is None else self._object_lines)
        self._store = FdStore(settings.park_timeout_s, self._knows, self._parked)
        stack.callback(self._store.close)
        self._events = Events(time.time)
        self._reports = PodReports(self._metrics, self._events)
        chosen = _chosen(settings)
        rounds = functools.partial(DriftRounds, comparing=chosen.comparing, proc=settings.proc)
        self._drift = DriftWatch(settings.life.plan, self._drifted, self._foreign, rounds)
        stack.callback(self._drift.close)
        self._effects = Effects(
            settings.life.plan, settings.on_unsteered, self._threads, self._zds, self._objects, self._metrics,
            self._store, self._drift, self._reports, chosen.rules, chosen.backend.value, settings.proc,
            Budget.of_this_process(),
        )  # fmt: skip
        stack.callback(self._effects.close)
        self._registry = Registry(settings.life, self._effects, self._metrics, self._forget, self._told)
        self._join(settings, stack)
        known = Known(self._standing, self._own_object_known, self._sources.pods.listed_at, self._left_out)
        self._admin = Admin(
            settings, self._registry, self._effects, self._metrics, self._facts, self._reports, self._events, known
        )

    def _join(self, settings: AgentSettings, stack: contextlib.AsyncExitStack) -> None:
        """What there is to do beside steering: for the container runtime, the kubelet and the API server."""
        self._attaching = self._attaching_to(self._sources.pods)
        self._probes = node_probes(settings, stack, self._threads, self._effects.counters, self._reports)
        self._followers = Followers(tuple(one for one in (self._attaching, self._probes) if one is not None))
        self._chain = _chain_of(settings)
        self._telling = ClusterTelling(
            settings, self._sources, self._registry.life, self._events, self._metrics, self._object_lines,
            self._objects.verdicts,
        )  # fmt: skip
        self._readiness = Readiness(
            self._sources.pods, self._sources.objects, lambda: self._object_lines.complete, self._chain
        )
        self._duties = ClusterDuties(
            settings.cluster, self._sources.client, self._registry.lives, self._reports.of, self._events,
            lambda: self._zds.connected and not self._readiness.missing(),
        )  # fmt: skip

    async def run(self, stopping: asyncio.Event) -> None:
        works: list[Coroutine[Any, Any, Any]] = [self._watch(), self._drift.run(), stopping.wait()]
        if self._chain is not None:  # only now: what the plugin asks is answered
            works.append(self._chain.keep())
        if self._probes is not None:
            works.append(self._probes.run())
        works += [work() for work in (*self._telling.works, *self._duties.works)]
        tasks: list[asyncio.Task[Any]] = [*self._watching, *(asyncio.create_task(work) for work in works)]
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
        # Before any pod is known: an API server that does not answer is to be told of.
        await self._stack.enter_async_context(serving(self._admin.admin_application(), [admin_socket]))
        metrics = self._admin.metrics_application()
        self._readiness.serve_in(metrics)
        await self._stack.enter_async_context(serving(metrics, ports))
        self._begin_watching()
        for event in await self._unless_ended(self._sources.pods.first()):
            self._registry.heard(event)
        # Before ZDS: a proxy that is told of a pod asks here first for the listeners of the one before it.
        self._store.start(self._settings.fds_socket)
        await self._zds.start(self._settings.zds_socket)
        self._stack.push_async_callback(self._zds.close)
        if self._attaching is not None:  # last: whoever asks is answered by an agent that knows all pods
            cni = CniServer(self._attaching)
            await cni.start(self._listen(self._settings.cni_socket))
            self._stack.push_async_callback(cni.close)
        self._readiness.opened(self._answers_at)
        _log.info("agent is ready; %d pods", len(self._registry.lives()))

    def _begin_watching(self) -> None:
        self._stack.push_async_callback(self._end_watching)
        self._watching += [asyncio.create_task(work()) for work in self._sources.works]
        if self._sources.objects is not None:
            self._watching.append(asyncio.create_task(self._watch_objects(self._sources.objects)))

    async def _end_watching(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def _unless_ended(self, first: Coroutine[Any, Any, list[SourceEvent]]) -> list[SourceEvent]:
        """What comes of it; or, where a watch has ended, its fault: it would be waited for in vain."""
        wanted = asyncio.create_task(first)
        try:
            await asyncio.wait((wanted, *self._watching), return_when=asyncio.FIRST_COMPLETED)
            for task in self._watching:
                if task.done() and not wanted.done():
                    task.result()
            return await wanted
        finally:
            wanted.cancel()

    def _listen(self, path: Path) -> socket.socket:
        listening: Listening = listen(path, socket.SOCK_STREAM)
        self._stack.callback(listening.close)
        return listening.socket

    async def _watch_objects(self, source: ObjectSource) -> None:
        while True:
            self._object_lines.update(await source.changes())

    async def _watch(self) -> None:
        async for event in self._sources.pods:
            self._registry.heard(event)

    async def _leave(self) -> None:
        if not self._settings.cleanup_on_exit:
            await self._registry.abandon()
            await self._telling.leave(cleanup=False)
            _log.info("agent ends; rules stay in force")
            return
        for life in await self._registry.stop(CLEANUP_S):
            _log.warning("pod %s keeps its rules: it is %s: %s", life.pod, life.state.value, life.reason)
        if self._probes is not None:
            await self._probes.leave()
        await self._telling.leave(cleanup=True)
        _log.info("agent ends; rules are removed")

    @property
    def _answers_at(self) -> tuple[Path, ...]:
        settings = self._settings
        always = (settings.admin_socket, settings.objects_socket, settings.fds_socket, settings.zds_socket)
        return always if self._attaching is None else (*always, settings.cni_socket)

    # ── What others ask for ────────────────────────────────────────────────────────────────────────────────────────
    def _snapshot(self) -> Any:
        return self._registry.snapshot()

    def _attaching_to(self, pods: PodSource) -> Attaching | None:
        """Only the API server tells who a pod is that does not run yet."""
        cluster = self._settings.cluster
        if cluster is None or not isinstance(pods, KubernetesPods):
            return None
        compare, connected = self._compared, lambda: self._zds.connected
        return Attaching(pods, self._registry, compare, connected, cluster.netns_mounts, cluster.proc)

    async def _compared(self, life: Life) -> Found:
        assert life.plan_in_force is not None
        return await self._effects.compare(life, life.plan_in_force)

    def _told(self, life: Life) -> None:
        self._reports.changed(life)
        self._followers.told(life)

    def _forget(self, life: Life, *, replaced: bool) -> None:
        self._effects.forget(life, replaced=replaced)
        self._followers.gone(life, replaced=replaced)

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

    def _knows(self, uid: str) -> bool:
        return self._registry.knows(uid)

    def _parked(self, uids: tuple[str, ...]) -> None:
        self._metrics.parked(len(uids))
        for uid in uids:
            self._registry.post(uid, ProxyParked())

    def _standing(self) -> Standing:
        objects = objects_of(self._settings, self._sources.objects, self._object_lines.complete)
        problems, connected = self._sources.pods.problems, self._zds.connected
        return Standing(*source_of(self._settings), problems, connected, self._effects.backend, objects)

    def _left_out(self, namespace: str, name: str) -> str | None:
        wanted = (namespace, name)
        return next((one.reason for one in self._sources.pods.skipped if (one.namespace, one.name) == wanted), None)

    def _own_object_known(self, namespace: str, name: str) -> bool | None:
        if self._sources.objects is None:
            return None
        return ObjectName("", "Pod", namespace, name) in self._object_lines.lines

    def _facts(self) -> dict[str, Any]:
        sources = self._sources
        return {
            "proxy_connected": self._zds.connected,
            "problems": [
                *sources.pods.problems,
                *self._effects.problems,
                *((f"probes: {self._probes.problem}",) if self._probes is not None and self._probes.problem else ()),
                *(() if sources.objects is None else sources.objects.problems),
                *self._telling.problems,
                *self._duties.problems,
                *((f"CNI: {self._chain.problem}",) if self._chain is not None and self._chain.problem else ()),
            ],
            "skipped": [
                {"namespace": one.namespace, "name": one.name, "reason": one.reason} for one in sources.pods.skipped
            ],
        }
