"""The supervisor as a whole: its parts made, tied together, run and ended in order."""

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from proxy import descriptors
from proxy.api.constants import PROXY_ADMIN_SOCKET
from proxy.errors import CannotStart, printable
from proxy.metrics import MetricsPage, Owner, ProxyStatus
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import UNKNOWN
from proxy.settings import ProxySettings
from proxy.supervisor.admin import AdminServers, Questions
from proxy.supervisor.answers import pending_answer, rejection_answer, served_answer
from proxy.supervisor.connections import Connections
from proxy.supervisor.cuts import Cut, Cuts
from proxy.supervisor.former import FormerProxy
from proxy.supervisor.node_policy import NodePolicy
from proxy.supervisor.pods import Pods
from proxy.supervisor.pulse import PING_EVERY_S
from proxy.supervisor.readiness import Readiness
from proxy.supervisor.surroundings import Parts, Surroundings
from proxy.supervisor.take_over import ask_to_drain, bind_when_free, lives, until_all_are_served
from proxy.supervisor.with_agent import WithAgent
from proxy.supervisor.workers import WORKER_COMMAND, Worker
from proxy.telemetry.series import TelemetryDelta
from proxy.workerlink import (
    AskLease,
    ConnectionsTold,
    FromWorker,
    LivingConnections,
    PodForgotten,
    PodServed,
    PolicyInForce,
    ProofSeen,
    ReportTelemetry,
    ReturnLease,
    TelemetryReport,
    WorkerReady,
)

_log = logging.getLogger(__name__)

REPORT_TIMEOUT_S: Final = 0.25
"""A worker answers between two rounds of its reactor. What comes later is summed all the same, for the next scrape."""
REPORT_INTERVAL_S: Final = 5.0
"""Bounds what a worker's death can take from the counters where nobody scrapes."""


def run(settings: ProxySettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. Raises CannotStart."""
    asyncio.run(_run(settings))


async def _run(settings: ProxySettings) -> None:
    await serve_until_told(Supervisor(settings))


async def serve_until_told(supervisor: "Supervisor") -> None:
    """Until SIGTERM or SIGINT, or until another proxy took over. Raises as Supervisor.serve."""
    stop, told = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_stop_signal, stop, told, supervisor)
    await supervisor.serve(stop)
    if supervisor.stays:
        _log.info("replaced; nothing is left to do until somebody ends this")
        await told.wait()


def _on_stop_signal(stop: asyncio.Event, told: asyncio.Event, supervisor: "Supervisor") -> None:
    # `stop` does not count: whoever replaces a proxy ends it as well, and its connections have their time all the same.
    if told.is_set():
        _log.warning("asked again: ending without waiting for connections")
        supervisor.kill_workers()
    told.set()
    stop.set()


class Supervisor:
    """`worker_command` is another program only in tests of the supervisor itself. `surroundings`, of which it takes
    possession, are an agent's unless others are given. Raises CannotStart.
    """

    def __init__(
        self,
        settings: ProxySettings,
        worker_command: Sequence[str] = WORKER_COMMAND,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._settings = settings
        self._replaced = False
        self.surroundings = surroundings = surroundings or WithAgent(settings.run_dir)
        command = (*worker_command, *surroundings.worker_options)
        self.workers = [
            Worker(index, self._worker_started, self._worker_said, command, self._worker_ended)
            for index in range(settings.workers)
        ]
        self._cuts = Cuts(self._count_cut)
        self.connections = Connections(lambda: self.workers)
        self.pods = Pods(
            surroundings.entry,
            lambda: self.workers,
            settings.drain_s,
            surroundings.source,
            self._cuts.report,
            self._pod_stopped,
        )
        # One thread each: the metrics page asks that nobody else folds meanwhile, and a slow compile must not delay it.
        self._metrics_thread = ThreadPoolExecutor(1, "metrics")
        self.policy = NodePolicy(settings.config_dir, lambda: surroundings.connected, self._policy_compiled)
        self._page = MetricsPage(_version())
        self._reports: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._next_report = 0
        self._stop = asyncio.Event()
        self._accepts_no_more = asyncio.Event()
        self._join(settings, surroundings)

    def _join(self, settings: ProxySettings, surroundings: Surroundings) -> None:
        """Whom this proxy follows, what it tells, and who may ask it."""
        self._admin_socket = settings.run_dir / PROXY_ADMIN_SOCKET
        self.readiness = Readiness(
            lambda: surroundings.missing,
            self.policy,
            self.pods,
            self.workers,
            predecessor=self._admin_socket if settings.take_over and lives(self._admin_socket) else None,
        )
        self._former = FormerProxy(self._admin_socket, self._cuts.report)
        surroundings.attend(self.pods, self.policy, self.readiness.note, self.readiness.policy_in_force)
        self.admin = AdminServers(
            Questions(
                self._metrics,
                self.readiness.unready,
                self._policy_answer,
                self._pods_answer,
                self._hand_over,
                self._cuts,
                self.connections,
            )
        )

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; everything is closed on return. Raises CannotStart, and whatever ends a part of it."""
        self._stop = stop
        try:
            descriptors.raise_limit()
            if self.readiness.predecessor is None:
                await self._open_ports()
            for worker in self.workers:
                _start_worker(worker)
            await self._serve_until()
        finally:
            if not self.readiness.ending:
                await self._drain()
            await self._former.close()
            self._cuts.end()
            await self.admin.close()
            self.policy.close()
            self._metrics_thread.shutdown(cancel_futures=True)
            self.surroundings.close()

    async def _serve_until(self) -> None:
        to_the_end = self.surroundings.to_the_end
        until_then: Parts = (
            self.policy.run,
            *self.surroundings.until_then,
            self._collect,
            self._watch_workers,
            self._take_over,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                last = [tasks.create_task(part()) for part in to_the_end]
                serving = [tasks.create_task(part()) for part in until_then]
                await self._stop.wait()
                _log.info("ending: connections have %g s to finish", self._settings.drain_s)
                for task in serving:
                    task.cancel()
                await self._drain()
                for task in last:
                    task.cancel()
        except ExceptionGroup as failed:
            # A fault of ours in one part: end, and let the service manager start a whole proxy again.
            raise failed.exceptions[0] from None

    async def _drain(self) -> None:
        """First no new connection at all, so that a successor may take the ports; then the old ones end in peace."""
        self.readiness.ending = True
        self.surroundings.leave()
        self.pods.begin_drain()
        workers = [asyncio.ensure_future(worker.stop(self._settings.drain_s)) for worker in self.workers]
        await asyncio.sleep(0)  # each worker is told
        self._accepts_no_more.set()
        await asyncio.gather(*workers)
        if self._cuts.heard:
            # A third proxy took over before the first one has ended: it can hear of that one's cuts from here only.
            await self._former.ended(self._settings.drain_s)

    # ── Taking over, and being taken over ──────────────────────────────────────────────────────────────────────────

    async def _open_ports(self) -> None:
        settings = self._settings
        await self.admin.start(settings.bind, settings.metrics_port, settings.ready_port, self._admin_socket)

    async def _take_over(self) -> None:
        """As soon as this proxy could take the traffic: the old one accepts no more, and its ports are ours."""
        if self.readiness.predecessor is None:
            return
        _log.info("taking over from the proxy on %s as soon as this one could be ready", self._admin_socket)
        await self.readiness.until_fit()
        await until_all_are_served(
            self._admin_socket,
            lambda: frozenset(pod.identity.uid for pod in self.pods.served if pod.served.is_set()),
            lambda: "; ".join(printable(pod.reason) for pod in self.pods.pending[:3]),
        )
        await self._former.hear()
        await ask_to_drain(self._admin_socket)
        await bind_when_free(self._open_ports, self.admin.close)
        self.readiness.predecessor = None
        _log.info("took over; the former proxy ends by itself")
        self.readiness.note()

    @property
    def stays(self) -> bool:
        """It was replaced, and whoever started it would start it again."""
        return self._replaced and self._settings.stays_when_replaced

    async def _hand_over(self) -> None:
        """POST /drain: returns when nothing is accepted here any more."""
        _log.info("another proxy takes over")
        self._replaced = True
        self._cuts.hand_over()
        self._stop.set()
        await self._accepts_no_more.wait()

    def kill_workers(self) -> None:
        for worker in self.workers:
            worker.kill()

    # ── Workers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _worker_started(self, worker: Worker) -> None:
        self.policy.feed.started(worker)
        self.pods.settle()

    def _worker_ended(self, worker: Worker) -> None:
        self.policy.feed.ended(worker)
        self.pods.worker_ended(worker.index)
        self.connections.worker_ended(worker.index)
        self.readiness.note()

    def _worker_said(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case PodServed():
                self.pods.note_served(worker.index, message)
                self.surroundings.pod_came()
                self.readiness.note()
            case PodForgotten():
                self.pods.note_forgotten(worker.index, message)
            case AskLease() | ReturnLease():
                self.pods.note_lease(worker.index, message)
            case PolicyInForce(generation):
                worker.policy_in_force = generation
                self.policy.feed.in_force(worker, generation)
                if not worker.usable:
                    worker.usable = True
                    self.pods.settle()
                self.readiness.note()
            case LivingConnections() | ConnectionsTold():
                self.connections.note(worker.index, message)
            case ProofSeen():
                self.surroundings.note_proof(message)
            case TelemetryReport(request_id, delta):
                self._page.add(delta)
                answered = self._reports.pop((worker.index, request_id), None)
                if answered is not None and not answered.done():
                    answered.set_result(None)
            case WorkerReady(pid):
                _log.info("worker %d is ready, pid %d", worker.index, pid)

    async def _watch_workers(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PING_EVERY_S)
            for worker in self.workers:
                worker.beat(loop.time())

    def _count_cut(self, cut: Cut) -> None:
        self._page.add(TelemetryDelta(counters=((cut.key, cut.number),)))

    def _policy_compiled(self, policy: PolicySnapshot) -> None:
        self.pods.share_among(self.surroundings.shares(policy.hot_pods))
        self.readiness.note()

    def _pod_stopped(self) -> None:
        self.readiness.note()

    # ── Answers ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _collect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            await self._ask_workers()
            await loop.run_in_executor(self._metrics_thread, self._page.fold, self._live_owners(), time.monotonic())

    async def _ask_workers(self) -> None:
        """Brings the workers' latest deltas in, as far as they come in time."""
        self._next_report += 1
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[None]] = []
        for worker in self.workers:
            if worker.pid is not None:
                answered = self._reports[worker.index, self._next_report] = loop.create_future()
                waiting.append(answered)
                worker.send(ReportTelemetry(self._next_report))
        if not waiting:
            return
        asked = self._next_report
        await asyncio.wait(waiting, timeout=REPORT_TIMEOUT_S)
        for worker in self.workers:
            self._reports.pop((worker.index, asked), None)

    async def _metrics(self) -> bytes:
        await self._ask_workers()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._metrics_thread, self._page.render, self._status())

    def _status(self) -> ProxyStatus:
        policy = self.policy.current
        return ProxyStatus(
            active_pods=len(self.pods.served),
            pending_pods=len(self.pods.pending),
            pods_started=self.pods.started,
            pods_stopped=self.pods.stopped,
            workers=sum(worker.pid is not None for worker in self.workers),
            worker_restarts=tuple(sum((worker.restarts for worker in self.workers), Counter()).items()),
            agent_connected=self.surroundings.connected,
            generation=policy.generation if policy else 0,
            rejections=policy.rejections if policy else (),
        )

    def _live_owners(self) -> frozenset[Owner]:
        """Every workload that series may be reported for now, under each name that it may have in labels."""
        policy = self.policy.current
        owners = {(UNKNOWN, UNKNOWN)}
        for pod in self.pods.served:
            identity = pod.identity
            owners.update(((identity.namespace, identity.name), (identity.namespace, UNKNOWN)))
            workload = policy.pods.get((identity.namespace, identity.name)) if policy else None
            if workload is not None:
                owners.add((workload.namespace, workload.name))
        return frozenset(owners)

    def _policy_answer(self) -> dict[str, Any]:
        policy = self.policy.current
        rejections = policy.rejections if policy else ()
        return {
            "generation": policy.generation if policy else None,
            "in_force": [worker.policy_in_force for worker in self.workers],
            "rejections": [rejection_answer(one) for one in rejections],
        }

    def _pods_answer(self) -> list[dict[str, Any]]:
        served = [served_answer(pod, self.policy.knows(pod.identity)) for pod in self.pods.served]
        return [*served, *map(pending_answer, self.pods.pending)]


def _start_worker(worker: Worker) -> None:
    try:
        worker.start()
    except OSError as error:
        raise CannotStart(f"worker {worker.index} cannot be started: {error}") from error


def _version() -> str:
    try:
        return version("headgate")
    except PackageNotFoundError:
        return "unknown"
