"""A whole node of a cluster: its own pid, mount and network namespaces, a runtime, an API server, and headgate in
containers as the manifests have it. The tests are its kubelet and its DaemonSet controller."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

import grpc
import yaml

from agent.kernel.pod_processes import sandboxes
from agent.lab import admin
from agent.lab.namespaces import Netns
from agent.lab.node import Lab, LabPod, headgate
from agent.lab.spec import NODE_ADDRESS4, LabSpec, PodSpec
from tests.kube.authority import authority
from tests.kube.beside import Beside, standing_beside
from tests.kube.manifests import rendered
from tests.netns.containerd.apart import Apart
from tests.netns.containerd.asked import Container, Pod, Sandbox
from tests.netns.containerd.runtime import Runtime, running
from tests.netns.lifecycle.daemons import IMAGE, NODE_NAME, Places, containers

PORT: Final = 6443
ENABLED: Final = {"headgate.io/mesh": "enabled"}
OURS: Final = "headgate-system"
CONFLIST: Final = "10-bridge.conflist"
BACK_OFF_S: Final = 0.25
"""Between two attempts at a pod; a kubelet's is longer."""
STARTS_WITHIN_S: Final = 60.0
DRAIN_S: Final = 8
"""Instead of the manifest's 300: a test is not to wait for them. Longer than a load's pauses, which are below 1 s, and
than an answer takes on a machine that does much else."""
INSTEAD: Final = {"agent": (f"--drain-s={DRAIN_S}", "--spread=0"), "proxy": (f"--drain-s={DRAIN_S}",)}
"""By verb, the arguments that a test has for the manifests'. --spread: up to ten seconds before a proxy is ready."""
_PROBES: Final = {"agent": (15014, "/metrics"), "proxy": (15021, "/healthz/ready")}


@dataclass(frozen=True, slots=True)
class Started:
    """A pod that runs. `refused`: attempts that the runtime refused before, each with its reason."""

    pod: Pod
    sandbox: Sandbox
    containers: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Node:
    """`ours`: the pods of headgate that run, by agent and proxy, the newest last; `running`: all others."""

    def __init__(self, lab: Lab, machine: Apart, api: Beside, runtime: Runtime, places: Places, at: Path) -> None:
        self.lab, self.machine, self.api, self.runtime = lab, machine, api, runtime
        self._places = places
        self.directory = at
        self._logs = at / "logs"
        self.ours: dict[str, list[Started]] = {"agent": [], "proxy": []}
        self.running: list[Started] = []
        self._enders: list[_Ending] = []

    # ── As a kubelet ───────────────────────────────────────────────────────────────────────────────────────────────
    def create(self, name: str, labels: Mapping[str, str] = ENABLED, *, namespace: str = "default", **spec: Any) -> Pod:
        """The Pod object as the scheduler leaves it."""
        logs = self._logs / f"{name}-{secrets.token_hex(3)}"
        logs.mkdir(parents=True)
        host_network = bool(spec.get("hostNetwork"))
        pod = Pod(name, str(uuid.uuid4()), namespace, host_network=host_network, log_directory=str(logs))
        self.tell(pod, (), labels, **spec)
        return pod

    def tell(
        self,
        pod: Pod,
        addresses: Sequence[str],
        labels: Mapping[str, str] = ENABLED,
        phase: str = "",
        **spec: Any,
    ) -> None:
        """Its status as the kubelet writes it."""
        status: dict[str, Any] = {"phase": phase or ("Running" if addresses else "Pending")}
        if addresses:
            status |= {"podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]}
        metadata = {
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
            "labels": {"app": pod.name.partition("-")[0], **labels},
        }
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
        self.api.apply(yaml.safe_dump({**body, "spec": {"nodeName": NODE_NAME, **spec}}))

    def begin(self, pod: Pod, *wanted: Container, labels: Mapping[str, str] = ENABLED, **spec: Any) -> Started:
        """Sandbox, status, containers; the sandbox again and again, as a kubelet does, for STARTS_WITHIN_S."""
        refused: list[str] = []
        deadline_s = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                sandbox = self.runtime.run(pod)
                break
            except grpc.RpcError as error:
                refused.append(str(error.details()))
            assert time.monotonic() < deadline_s, f"{pod.name} does not start: {refused[-1]}"
            time.sleep(BACK_OFF_S)
            pod = replace(pod, attempt=pod.attempt + 1)
        self.tell(pod, sandbox.addresses, labels, **spec)
        made = tuple(self.runtime.start_container(sandbox, pod, one) for one in wanted)
        started = Started(pod, sandbox, made, tuple(refused))
        if pod.namespace != OURS:
            self.running.append(started)
        return started

    def run(self, name: str, *wanted: Container, labels: Mapping[str, str] = ENABLED, **spec: Any) -> Started:
        return self.begin(self.create(name, labels, **spec), *wanted, labels=labels, **spec)

    def clear(self) -> None:
        """Every pod but ours goes; what was told to end has ended."""
        self.all_ended()
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.remove, list(self.running)))
        if self.ours["agent"]:
            self.wait("no pod to be there", lambda: self.pods() == {})

    def remove(self, started: Started) -> None:
        """Sandbox, then object, as far as they are there."""
        if started in self.running:
            self.running.remove(started)
        if self.runtime.has(started.sandbox):
            self.runtime.stop(started.sandbox)
        if (started.pod.namespace, started.pod.name) in self.api.server.store.resources["", "pods"].objects:
            self.api.delete("Pod", started.pod.name, started.pod.namespace)

    # ── As the DaemonSets' controller ──────────────────────────────────────────────────────────────────────────────
    def start(self, which: str, spec: Mapping[str, Any] | None = None) -> Started:
        """A pod of `agent` or `proxy`; does not wait for it to be ready. `spec`: another than the manifest's."""
        pod = self.create(f"headgate-{which}-{secrets.token_hex(3)}", {}, namespace=OURS)
        *first, last = containers(spec or rendered.pod("base", which), self._places, INSTEAD)
        started = self.begin(pod, labels={})
        for one in first:
            self._to_its_end(started, one)
        made = self.runtime.start_container(started.sandbox, pod, last)
        started = replace(started, containers=(made,))
        self.ours[which].append(started)
        return started

    def end(self, which: str, started: Started, *, wait: bool = True) -> None:
        """SIGTERM, its grace, and it is gone."""
        self.ours[which].remove(started)
        grace_s = int(rendered.pod("base", which)["terminationGracePeriodSeconds"])

        def ended() -> None:
            self.runtime.stop_container(started.containers[0], grace_s)
            assert self.runtime.exit_code(started.containers[0]) == 0, self.log(started)[-3000:]
            self.remove(started)

        if wait:
            ended()
            return
        self._enders.append(_Ending(ended))
        self._enders[-1].start()

    def bring_up(self) -> None:
        """Whatever of ours does not run yet; returns when the node takes pods."""
        for which in self.ours:
            if not self.ours[which]:
                self.start(which)
        for which in self.ours:
            self.wait_ready(which)
        self.wait("the plugin to be chained", self.is_chained)

    def is_chained(self) -> bool:
        return "headgate-cni" in (self.runtime.conf_dir / CONFLIST).read_text()

    def replace_proxy(self) -> None:
        """maxSurge 1, maxUnavailable 0: the new one is ready before the old one is told to end, which may take long."""
        (old,) = self.ours["proxy"]
        self.start("proxy")
        self.wait_ready("proxy")
        self.end("proxy", old, wait=False)

    def replace_agent(self) -> None:
        """maxSurge 0, maxUnavailable 1."""
        (old,) = self.ours["agent"]
        self.end("agent", old)
        self.start("agent")
        self.wait_ready("agent")

    def all_ended(self) -> None:
        """Waits for those that were told to end."""
        enders, self._enders = self._enders, []
        for ender in enders:
            ender.join(DRAIN_S + 30)

    def serve(self) -> None:
        """The API server, from now on; `api.down` ends it."""
        self.api.up(self.lab.node.listen(NODE_ADDRESS4, PORT))

    def end_all(self) -> None:
        """Ours; the rules stay."""
        for which, there in self.ours.items():
            for started in list(there):
                self.end(which, started)

    def unchain(self) -> None:
        """`headgate cni remove`, where no agent is."""
        dirs = (f"--conf-dir={self.runtime.conf_dir}", f"--bin-dir={self.runtime.bin_dir}")
        self.lab.node.run([*headgate(), "cni", "remove", *dirs])

    def reboot(self) -> None:
        """Every process ends at once; what was on disk is there again, and the runtime runs."""
        self.machine.cut_power()
        self.runtime.power_was_cut()
        self.lab.node.run(["ip", "link", "delete", "cni0"])
        self.machine.boot()
        self.runtime.start()

    def again(self, started: Started, *wanted: Container, labels: Mapping[str, str] = ENABLED) -> Started:
        """A pod whose sandbox has ended: another one, of the same pod (B48)."""
        self.runtime.stop(started.sandbox)
        if started in self.running:
            self.running.remove(started)
        return self.begin(replace(started.pod, attempt=started.pod.attempt + 1), *wanted, labels=labels)

    def forget(self, which: str, started: Started) -> None:
        """One of ours whose node has lost it: its sandbox is taken down, and its object goes."""
        self.ours[which].remove(started)
        self.remove(started)

    def next_address(self, wanted: IPv4Address | IPv6Address) -> None:
        """What the next pod gets of that family: host-local goes on behind the one it gave last. Its neighbours forget
        whose it was: a plugin would tell them (gratuitous ARP), Debian's bridge does not, and they need 40 s."""
        place = 0 if wanted.version == 4 else 1
        (self.directory / "ipam/lab" / f"last_reserved_ip.{place}").write_text(str(wanted - 1))
        for netns in (self.lab.node, *(self.netns(one.pod) for ours in self.ours.values() for one in ours)):
            netns.run(["ip", "neigh", "flush", "to", str(wanted)])

    # ── What is seen ───────────────────────────────────────────────────────────────────────────────────────────────
    def is_ready(self, which: str) -> bool:
        """The newest one, by the manifest's readiness probe, from the node."""
        with suppress(OSError, admin.AdminError):
            return self.readiness(which) == 200
        return False

    def readiness(self, which: str) -> int:
        """The status with which it answers the probe. Raises OSError, AdminError: not at all."""
        port, path = _PROBES[which]
        address = self.ours[which][-1].sandbox.addresses[0]
        return admin.get_status(lambda: self.lab.node.connect(address, port), path)

    def wait_ready(self, which: str) -> None:
        self.wait(f"the {which} to be ready", lambda: self.is_ready(which))

    def wait(self, what: str, condition: Any, *, timeout_s: float = 30.0) -> None:
        """Until it holds; what raises AdminError or OSError does not hold yet."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            with suppress(admin.AdminError, OSError):
                if condition():
                    return
            assert time.monotonic() < deadline_s, f"waited in vain for {what}\n{self.logs()}"
            time.sleep(0.05)

    def pods(self) -> dict[str, str]:
        """State by name, of those that the agent has."""
        return {pod["name"]: pod["state"] for pod in self.lab.agent_get("/pods")["pods"]}

    def is_out(self, name: str) -> bool:
        """Whether nothing of the pod is steered."""
        return self.pods().get(name) in (None, "disabled")

    def reasons(self) -> dict[str, str]:
        """By name, why the agent leaves a pod alone."""
        return {pod["name"]: pod["reason"] for pod in self.lab.agent_get("/pods")["skipped"]}

    def wait_proved(self, *names: str) -> None:
        self.wait(f"{names} to be proved", lambda: all(self.pods().get(name) == "proved" for name in names))

    def netns(self, pod: Pod) -> Netns:
        """By a process of the pod's: the node's names are its own."""
        return Netns(sandboxes(Path("/proc"), ())[pod.uid].netns_path)

    def place(self, started: Started) -> LabPod:
        """What a load runs in."""
        name = started.pod.name
        return LabPod(PodSpec(name), self.netns(started.pod), started.pod.uid, None, None, self._logs)

    def log(self, started: Started) -> str:
        files = sorted(Path(started.pod.log_directory).glob("*.log"))
        return "\n".join(file.read_text("utf-8", "replace") for file in files)

    def logs(self) -> str:
        """The ends of all that ran, for the message of a test that fails."""
        files = sorted(self._logs.glob("headgate-*/*.log"), key=lambda file: file.stat().st_mtime)
        return "\n".join(f"--- {file}\n{file.read_text('utf-8', 'replace')[-2500:]}" for file in files[-4:])

    def _to_its_end(self, started: Started, wanted: Container) -> None:
        made = self.runtime.start_container(started.sandbox, started.pod, wanted)
        self.wait(f"{wanted.name} to end", lambda: self.runtime.exit_code(made) is not None)
        assert self.runtime.exit_code(made) == 0, self.log(started)


class _Ending(threading.Thread):
    """`join` raises what it raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name="ending")
        self._work = work
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        assert not self.is_alive(), "did not end"
        if self._error is not None:
            raise self._error


@contextmanager
def node(at: Path, plugin: Path) -> Iterator[Node]:
    """Its runtime runs, and nothing of ours. `at`: a short path, which containerd's shims put into socket names of 108
    bytes; `plugin`: the CNI plugin's program."""
    signed = authority(at / "authority")
    account = at / "account"
    account.mkdir()
    token = secrets.token_hex(16)
    for name, text in (("token", token), ("namespace", OURS), ("ca.crt", signed.own.certificate.read_text())):
        (account / name).write_text(text)
    tls = signed.server(signed.sign("api", f"IP:{NODE_ADDRESS4}"))
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(LabSpec(())))
        machine = Apart(lab, at)
        stack.callback(machine.close)
        machine.boot()
        api = stack.enter_context(standing_beside(tls))
        api.server.faults.token = token
        runtime = stack.enter_context(running(lab, at, machine.enter))
        host_paths = {
            "/var/run/headgate": "/var/run/headgate",
            "/var/run/netns": "/var/run/netns",
            "/proc": "/proc",
            "/etc/cni/net.d": str(runtime.conf_dir),
            "/opt/cni/bin": str(runtime.bin_dir),
        }
        places = Places(host_paths, account, plugin, (str(NODE_ADDRESS4), PORT))
        made = Node(lab, machine, api, runtime, places, at)
        made.serve()
        for name in ("default", "kube-system", OURS):
            api.apply(f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")
        runtime.start()
        runtime.load_image()
        if IMAGE:
            runtime.load_image(Path(IMAGE).resolve())
        stack.callback(made.all_ended)
        yield made
