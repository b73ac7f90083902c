"""The supervisor as a whole: its parts made, tied together, run and ended in order."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from proxy.api.constants import OBJECTS_SOCKET, PROXY_ADMIN_SOCKET, ZDS_SOCKET
from proxy.config.text import render_rejection
from proxy.datapath.netns import NetnsEntry
from proxy.errors import CannotStart
from proxy.metrics import MetricsPage, Owner, ProxyStatus
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import UNKNOWN
from proxy.settings import ProxySettings
from proxy.supervisor.admin import AdminServers, Questions
from proxy.supervisor.agent_link import ProofReporter, ZdsClient
from proxy.supervisor.orphans import OrphanWatch
from proxy.supervisor.pods import PendingPod, Pods, ServedPod
from proxy.supervisor.policy_watch import PolicyWatch
from proxy.supervisor.workers import WORKER_COMMAND, Worker, raise_descriptor_limit
from proxy.workerlink import (
    FromWorker,
    PodForgotten,
    PodServed,
    PolicyInForce,
    ProofSeen,
    ReportTelemetry,
    TelemetryReport,
    UsePolicy,
    WorkerReady,
)

_log = logging.getLogger(__name__)

REPORT_TIMEOUT_S: Final = 0.25
"""A worker answers between two rounds of its reactor. What comes later is summed all the same, for the next scrape."""
REPORT_INTERVAL_S: Final = 5.0
"""Bounds what a worker's death can take from the counters where nobody scrapes."""
SETNS_REMEDY: Final = "run the proxy as root with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW"


def run(settings: ProxySettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. Raises CannotStart."""
    asyncio.run(_run(settings))


async def _run(settings: ProxySettings) -> None:
    supervisor = Supervisor(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_stop_signal, stop, supervisor)
    await supervisor.serve(stop)


def _on_stop_signal(stop: asyncio.Event, supervisor: "Supervisor") -> None:
    if stop.is_set():
        _log.warning("asked again: ending without waiting for connections")
        supervisor.kill_workers()
    stop.set()


class Supervisor:
    """`worker_command` is another program only in tests of the supervisor itself."""

    def __init__(self, settings: ProxySettings, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
        self._settings = settings
        try:
            self._entry = NetnsEntry()
            with self._entry.enter(self._entry.fileno()):
                pass
        except OSError as error:
            raise CannotStart(f"network namespaces cannot be entered: {error.strerror}; {SETNS_REMEDY}") from error
        self.workers = [
            Worker(index, self._worker_started, self._worker_said, worker_command) for index in range(settings.workers)
        ]
        self.pods = Pods(self._entry, lambda: self.workers, settings.drain_s)
        # One thread each: the metrics page asks that nobody else folds meanwhile, and a slow compile must not delay it.
        self._metrics_thread = ThreadPoolExecutor(1, "metrics")
        self._policy_thread = ThreadPoolExecutor(1, "policy")
        self.policy = PolicyWatch(settings.config_dir, self._policy_thread, self._policy_compiled)
        self.zds = ZdsClient(settings.run_dir / ZDS_SOCKET, self.pods, self._agent_changed)
        self._orphans = OrphanWatch(self.pods, lambda: self.zds.connected)
        self._proofs = ProofReporter(settings.run_dir / OBJECTS_SOCKET)
        self._page = MetricsPage(_version())
        self._reports: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._next_report = 0
        self._stopping = False
        self._said_ready = False
        self.admin = AdminServers(Questions(self._metrics, self.unready, self._policy_answer, self._pods_answer))

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; everything is closed on return. Raises CannotStart, and whatever ends a part of it."""
        settings = self._settings
        try:
            raise_descriptor_limit()
            await self.admin.start(
                settings.bind, settings.metrics_port, settings.ready_port, settings.run_dir / PROXY_ADMIN_SOCKET
            )
            for worker in self.workers:
                _start_worker(worker)
            await self._serve_until(stop)
        finally:
            self._stopping = True
            # First no new connection at all, so that a successor may take the ports; then the old ones end in peace.
            self.pods.close()
            await asyncio.gather(*(worker.stop(settings.drain_s) for worker in self.workers))
            await self.admin.close()
            self._policy_thread.shutdown(cancel_futures=True)
            self._metrics_thread.shutdown(cancel_futures=True)
            self._entry.close()

    async def _serve_until(self, stop: asyncio.Event) -> None:
        parts: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            self.policy.run,
            self.zds.run,
            self._proofs.run,
            self._orphans.run,
            self._collect,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(part()) for part in parts]
                await stop.wait()
                _log.info("ending: connections have %g s to finish", self._settings.drain_s)
                for task in running:
                    task.cancel()
        except ExceptionGroup as failed:
            # A fault of ours in one part: end, and let the service manager start a whole proxy again.
            raise failed.exceptions[0] from None

    def kill_workers(self) -> None:
        for worker in self.workers:
            worker.kill()

    # ── Workers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _worker_started(self, worker: Worker) -> None:
        if self.policy.current is not None:
            worker.send(UsePolicy(self.policy.current))
        self.pods.replay(worker)

    def _worker_said(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case PodServed():
                self.pods.note_served(message)
            case PodForgotten():
                self.pods.note_forgotten(message)
            case PolicyInForce(generation):
                worker.policy_in_force = generation
                self._note_change()
            case ProofSeen():
                self._proofs.report(message)
            case TelemetryReport(request_id, delta):
                self._page.add(delta)
                answered = self._reports.pop((worker.index, request_id), None)
                if answered is not None and not answered.done():
                    answered.set_result(None)
            case WorkerReady(pid):
                _log.info("worker %d is ready, pid %d", worker.index, pid)

    def _policy_compiled(self, policy: PolicySnapshot) -> None:
        for worker in self.workers:
            worker.send(UsePolicy(policy))

    # ── Readiness ──────────────────────────────────────────────────────────────────────────────────────────────────

    def unready(self) -> list[str]:
        """What is missing before traffic may be led here; empty when ready."""
        missing = []
        if self._stopping:
            missing.append("the proxy is ending")
        if not self.zds.snapshot_complete:
            missing.append(f"no complete snapshot from the agent on {self._settings.run_dir / ZDS_SOCKET} yet")
        late = [str(worker.index) for worker in self.workers if worker.policy_in_force is None]
        if late:
            missing.append(f"no policy in force in worker {', '.join(late)} yet")
        return missing

    def _agent_changed(self) -> None:
        if self.zds.connected:
            self._proofs.retry_now()
        self._note_change()

    def _note_change(self) -> None:
        ready = not self.unready()
        if ready != self._said_ready:
            _log.info("ready" if ready else "no longer ready")
            self._said_ready = ready

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
            worker_restarts=sum(worker.restarts for worker in self.workers),
            agent_connected=self.zds.connected,
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
            "rejections": [
                {
                    "object": one.object,
                    "field": one.field,
                    "reason": one.reason,
                    "stale": one.stale,
                    "text": render_rejection(one),
                }
                for one in rejections
            ],
        }

    def _pods_answer(self) -> list[dict[str, Any]]:
        return [*map(_served_answer, self.pods.served), *map(_pending_answer, self.pods.pending)]


def _start_worker(worker: Worker) -> None:
    try:
        worker.start()
    except OSError as error:
        raise CannotStart(f"worker {worker.index} cannot be started: {error}") from error


def _served_answer(pod: ServedPod) -> dict[str, Any]:
    return {
        "uid": pod.identity.uid,
        "namespace": pod.identity.namespace,
        "name": pod.identity.name,
        "service_account": pod.identity.service_account,
        "state": "served" if pod.served.is_set() else "handing over",
        "worker": pod.worker,
        "netns_cookie": pod.identity.netns_cookie,
        "listeners": [{"direction": kind.direction.value, "family": kind.family} for kind in pod.listeners.kinds],
    }


def _pending_answer(pod: PendingPod) -> dict[str, Any]:
    return {
        "uid": pod.name.uid,
        "namespace": pod.name.namespace,
        "name": pod.name.name,
        "service_account": pod.name.service_account,
        "state": "pending",
        "reason": pod.reason,
    }


def _version() -> str:
    try:
        return version("headgate")
    except PackageNotFoundError:
        return "unknown"
