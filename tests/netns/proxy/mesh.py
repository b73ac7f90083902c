"""One real worker serving real pods: namespaces, rules and listeners as in a node, the supervisor's part played here.

Told over its own link which pods and which policy to serve: a test names exactly what its case is about.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self, TypeVar

from agent.kernel import iproute, nft
from agent.lab import namespaces, topology
from agent.lab.namespaces import Netns
from agent.lab.spec import PodSpec, address4, address6
from agent.plan import PlanSettings, build_plan
from agent.plan.render.nft import install_script
from agent.pods import PodRef
from proxy.datapath.netns import NetnsEntry
from proxy.link import Link, LinkClosed, link_pair
from proxy.model.address import SocketAddress
from proxy.model.routing import DEFAULT_RETRY, InboundPort, Protocol, RetryPolicy, ServiceName
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import NOBODY
from proxy.policy.lease import MAX_IDLE_A_POD
from proxy.policy.refs import RefTable
from proxy.supervisor.listeners import PodListeners, open_listeners
from proxy.supervisor.policy_feed import delta_from
from proxy.telemetry.open_counts import NOT_COUNTED
from proxy.telemetry.series import TelemetryDelta
from proxy.workerlink import (
    ForgetPod,
    FromWorker,
    PodForgotten,
    PodIdentity,
    PodServed,
    PolicyInForce,
    ReportTelemetry,
    ServePod,
    Stop,
    TelemetryReport,
    ToWorker,
    WorkerReady,
)
from tests.netns.proxy import observed
from tests.netns.proxy.described import Destinations, Subset, service_port, workload
from tests.netns.proxy.wire import PATIENCE_S, Server, Wire, get, ok

REPOSITORY = Path(__file__).resolve().parents[3]
PODS = ("client", "server", "guarded")
ENROLLED = ("client", "guarded")
M = TypeVar("M", bound=FromWorker)


class Mesh:
    """Pods `client` and `guarded` are enrolled, `server` is not; all know each other. Use as a context manager."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack = ExitStack()
        self._pods: dict[str, Netns] = {}
        self._listeners: dict[str, PodListeners] = {}
        self._addresses: dict[str, tuple[str, str]] = {}
        self._opened: list[Wire | Server] = []
        self._received: list[FromWorker | ToWorker] = []
        self._next_port = 20000
        self._next_service = 0
        self._requests = 0
        self._counted = 0
        self._link: Link | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._names = RefTable()
        self.policy = PolicySnapshot(0, {}, {}, {}, {}, ())

    # ── Up and down ────────────────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        try:
            self._build()
            self.start_worker()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close_all()
        try:
            self.stop_worker()
        finally:
            self._stack.close()

    def _build(self) -> None:
        names = {name: f"{self._name}-{name}" for name in PODS}
        node = Netns(f"{self._name}-node")
        for netns in (node, *map(Netns, names.values())):
            self._stack.callback(namespaces.delete, netns)
        self._node, made = topology.build(node.name, [(names[name], PodSpec(name)) for name in PODS])
        self._pods = {**dict(zip(PODS, made, strict=True)), "node": self._node}
        self._addresses = {name: (str(address4(i)), str(address6(i))) for i, name in enumerate(PODS)}
        entry = NetnsEntry()
        self._stack.callback(entry.close)
        for name in ENROLLED:
            with self._pods[name].path.open("rb") as netns_file:
                self._listeners[name] = open_listeners(entry, netns_file.fileno())
            self._stack.callback(self._listeners[name].close)
            self._enrol(name)
        workloads = {name: workload(name, self._addresses[name]) for name in PODS}
        self.policy = replace(
            self.policy,
            workloads={address: workloads[name] for name in PODS for address in self._addresses[name]},
            pods={("default", name): workloads[name] for name in PODS},
        )

    def _enrol(self, name: str) -> None:
        addresses = tuple(map(ip_address, self._addresses[name]))
        plan = build_plan(PodRef(uid=name, namespace="default", name=name, addresses=addresses), PlanSettings())
        self._pods[name].call(nft.apply, install_script(plan, (), replace=False))
        self._pods[name].call(iproute.ensure_return_path, plan.return_path)

    def start_worker(self) -> None:
        """The worker in the node's namespace, serving the enrolled pods under the policy so far."""
        self._link, theirs = link_pair()
        self._errors = TemporaryFile()  # noqa: SIM115 - closed with the worker
        command = [sys.executable, "-W", "always", "-m", "proxy.worker", "--link-fd", str(theirs.fileno())]
        with theirs:
            self._worker = self._node.popen(
                command, pass_fds=[theirs.fileno()], cwd=REPOSITORY, stderr=self._errors, stdin=subprocess.DEVNULL
            )
        self._received.clear()
        self._names = RefTable()
        self.expect(WorkerReady)
        for name in ENROLLED:
            self.serve(name)
        self.use(self.policy)

    def stop_worker(self) -> None:
        """As its supervisor does; the worker must end by itself, with nothing to complain of."""
        assert self._worker is not None and self._link is not None
        try:
            if not self.ended:
                self.tell(Stop(0.0))
            assert self._worker.wait(PATIENCE_S) == 0, self.errors()
            assert self.errors() == ""
        finally:
            self._kill()

    @property
    def ended(self) -> bool:
        return self._worker is not None and self._worker.poll() is not None

    def _kill(self) -> None:
        if self._worker is not None and self._link is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None
            self._link.close()
            self._errors.close()

    def check(self) -> None:
        """After each test: the worker lives and has nothing to complain of; if not, the next test gets another."""
        self.close_all()
        self._counted = 0
        self.policy = replace(self.policy, services={}, inbound={})  # in force with the next test's first change
        assert self._worker is not None
        errors, ended = self.errors(), self._worker.poll()
        if errors or ended is not None:
            self._kill()
            self.start_worker()
        assert (ended, errors) == (None, "")

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    # ── The supervisor's part ──────────────────────────────────────────────────────────────────────────────────────

    def tell(self, message: ToWorker, descriptors: Sequence[int] = ()) -> None:
        assert self._link is not None
        self._link.send(message, descriptors)
        while self._link.wants_write:  # a policy of many Services is more than the socket takes at once
            assert select.select([], [self._link], [], PATIENCE_S)[1], f"the worker does not read\n{self.errors()}"
            self._link.flush()

    def expect(self, kind: type[M]) -> M:
        """The next message of this kind; others stay for later."""
        deadline = time.monotonic() + PATIENCE_S
        assert self._link is not None
        while True:
            for message in self._received:
                if isinstance(message, kind):
                    self._received.remove(message)
                    return message
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no {kind.__name__} from the worker\n{self.errors()}"
            try:
                if select.select([self._link], [], [], left_s)[0]:
                    self._received += [message for message, _ in self._link.receive()]
            except LinkClosed:
                raise AssertionError(f"the worker ended\n{self.errors()}") from None

    def serve(
        self,
        pod: str,
        sequence: int = 0,
        *,
        shared: bool = False,
        idle_tokens: int = MAX_IDLE_A_POD,
        count_slot: int = NOT_COUNTED,
    ) -> None:
        listeners = self._listeners[pod]
        with self._pods[pod].path.open("rb") as netns_file:
            descriptors = [netns_file.fileno(), *(sock.fileno() for sock in listeners.sockets)]
            identity = PodIdentity(pod, "default", pod, "default", listeners.netns_cookie)
            self.tell(ServePod(identity, listeners.kinds, sequence, shared, idle_tokens, count_slot), descriptors)
        assert self.expect(PodServed) == PodServed(pod, sequence)

    def forget(self, pod: str, drain_s: float) -> None:
        """Does not wait: PodForgotten comes when its connections have ended."""
        self._received = [message for message in self._received if not isinstance(message, PodForgotten)]
        self.tell(ForgetPod(pod, drain_s))

    def forgotten(self) -> PodForgotten:
        return self.expect(PodForgotten)

    def use(self, policy: PolicySnapshot) -> None:
        self.policy = replace(policy, generation=policy.generation + 1)
        in_force = self._names.newest
        self._names.advance(self.policy)
        for message in delta_from(in_force, self._names):
            self.tell(message)
        assert self.expect(PolicyInForce).generation == self.policy.generation

    def telemetry(self) -> TelemetryDelta:
        """What was counted since the last call."""
        self._requests += 1
        self.tell(ReportTelemetry(self._requests))
        return self.expect(TelemetryReport).delta

    def turn(self) -> None:
        """Returns when the worker has looked at everything that had come before, and at what that has led to at once:
        it answers in the order of its loop's turns."""
        for _ in range(3):
            self.telemetry()

    def counted_requests(self) -> int:
        """Since this test's first call."""
        self._counted += sum(sum(one.durations) for one in self.telemetry().requests)
        return self._counted

    # ── Policy ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def service(
        self,
        endpoints: Destinations = (),
        protocol: Protocol = Protocol.HTTP,
        *,
        port: int = 80,
        refused: str = "",
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> SocketAddress:
        """A Service of its own with these endpoints; its cluster address."""
        return self.split([Subset(endpoints)], protocol, port=port, refused=refused, retry=retry)

    def split(
        self,
        subsets: Iterable[Subset],
        protocol: Protocol = Protocol.HTTP,
        *,
        port: int = 80,
        refused: str = "",
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> SocketAddress:
        """A Service whose requests go to these subsets by weight."""
        self._next_service += 1
        address = SocketAddress(f"10.96.{self._next_service // 250}.{self._next_service % 250 + 1}", port)
        self.change(address, subsets, protocol, refused=refused, retry=retry)
        return address

    def change(
        self,
        address: SocketAddress,
        subsets: Iterable[Subset],
        protocol: Protocol = Protocol.HTTP,
        *,
        refused: str = "",
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> None:
        """Another policy for a Service, in force when this returns."""
        made = service_port(address, list(subsets), protocol, refused, retry, self.policy.workloads)
        self.use(replace(self.policy, services={**self.policy.services, address: made}))

    def inbound(self, server: Server, protocol: Protocol) -> None:
        """Declares what a port of a pod speaks."""
        service = ServiceName("default", "inside", "inside.default.svc.cluster.local")
        place = SocketAddress(server.host, server.port)
        self.use(replace(self.policy, inbound={**self.policy.inbound, place: InboundPort(service, protocol)}))

    # ── Connections ────────────────────────────────────────────────────────────────────────────────────────────────

    def address(self, pod: str, family: int = 4) -> str:
        return self._addresses[pod][0 if family == 4 else 1]

    def listen(self, pod: str = "server", family: int = 4, port: int | None = None, backlog: int = 128) -> Server:
        """A server in a pod, on a port of its own unless told."""
        if port is None:
            self._next_port += 1
            port = self._next_port
        server = Server(self._pods[pod].listen(self.address(pod, family), port, backlog=backlog))
        self._opened.append(server)
        return server

    def closed_port(self, pod: str = "server") -> SocketAddress:
        """Where nobody listens: connections are refused."""
        self._next_port += 1
        return SocketAddress(self.address(pod), self._next_port)

    @property
    def last_server(self) -> Server:
        return next(opened for opened in reversed(self._opened) if isinstance(opened, Server))

    def somewhere(self, host: str, port: int) -> SocketAddress:
        """An address outside the node, known as nobody's; may be an endpoint."""
        self.policy = replace(self.policy, workloads={**self.policy.workloads, host: NOBODY})
        return SocketAddress(host, port)

    def connect(self, to: SocketAddress | Server, pod: str = "client") -> Wire:
        """A client in a pod; OSError as connect(2)."""
        wire = Wire(self._pods[pod].connect(to.host, to.port, timeout_s=PATIENCE_S))
        self._opened.append(wire)
        return wire

    def resets(self, to: SocketAddress, pod: str = "client") -> bool:
        """Whether a connection that says nothing is reset, be it before `connect` returns."""
        try:
            return self.connect(to, pod).is_reset()
        except ConnectionResetError:
            return True

    def next_is(self, server: Server, service: SocketAddress) -> bool:
        """Whether a request sent now is the next that reaches the server: nothing that came before did."""
        barrier = get(b"/barrier")
        client = self.connect(service)
        client.send(barrier)
        upstream = server.accept()
        arrived = upstream.head()
        upstream.send(ok())
        return arrived == barrier and client.answer()[0] == 200

    def netns_cookie(self, pod: str) -> int:
        return self._listeners[pod].netns_cookie

    def netns(self, pod: str) -> Netns:
        return self._pods[pod]

    def close_all(self) -> None:
        for opened in self._opened:
            opened.close()
        self._opened.clear()

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Waits for what cannot be waited on otherwise."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
            time.sleep(0.01)

    def watch(self, seconds: float) -> None:
        """For what must not happen: gives it the time to, and fails at once if the worker ends."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._worker is not None and self._worker.poll() is None, self.errors()
            time.sleep(0.01)

    # ── The worker as the kernel shows it ──────────────────────────────────────────────────────────────────────────

    @property
    def worker_pid(self) -> int:
        assert self._worker is not None
        return self._worker.pid

    def pause_worker(self) -> None:
        """Stopped until `resume_worker`: what happens meanwhile it finds all at once, in one turn of its loop."""
        os.kill(self.worker_pid, signal.SIGSTOP)
        self.until(lambda: observed.state(self.worker_pid) == "T", "the worker to stop")

    def resume_worker(self) -> None:
        os.kill(self.worker_pid, signal.SIGCONT)

    def open_files(self) -> int:
        return observed.open_files(self.worker_pid)
