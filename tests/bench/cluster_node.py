"""A node of a cluster: the stand-in API server, pods with wires and processes, agent, proxy, and the CNI plugin run as
a runtime runs it."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.lab.errors import LabError
from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.lab.spec import LabSpec
from tests.bench import pod_wires
from tests.kube.beside import Beside, standing_beside
from tests.kube.cni.plugin import Plugin, build
from tests.kube.fake_proc import FakeProc, cgroup

NODE_NAME: Final = "node-1"
ENROLLED: Final = frozenset({"installed", "proved"})
PROVED: Final = frozenset({"proved"})
MESHED: Final = {"headgate.io/mesh": "enabled"}
_PORT: Final = 6443
_PROCESSES: Final = 4
"""Of each pod, for the scan of /proc."""
_POLL_S: Final = 0.25
"""Telling of 250 pods takes 15 ms of the agent's core: ten times a second it would be a part of what is measured."""


@dataclass(frozen=True, slots=True)
class Member:
    """A pod of the node: the `number`th that was made."""

    number: int
    netns: Netns

    @property
    def name(self) -> str:
        return f"pod-{self.number}"

    @property
    def uid(self) -> str:
        return f"00000000-0000-4000-8000-{self.number:012d}"


@dataclass(frozen=True, slots=True)
class ClusterNode:
    lab: Lab
    api: Beside
    proc: FakeProc
    plugin: Plugin
    arguments: tuple[str, ...]

    # ── A pod's life, as kubelet and runtime have it ───────────────────────────────────────────────────────────────
    def make(self, number: int) -> Member:
        return Member(number, pod_wires.plug(self.lab, number))

    def add(self, pod: Member) -> float:
        """Scheduled, ADD, processes, status. Milliseconds that the plugin took. Raises LabError when it refuses."""
        self.tell(pod, running=False)
        config = self.plugin.config((f"{pod_wires.address4(pod.number)}/16", f"{pod_wires.address6(pod.number)}/64"))
        began_s = time.perf_counter()
        said = self.plugin.run("ADD", config, **self._asked(pod))
        took_ms = (time.perf_counter() - began_s) * 1e3
        if said.status:
            raise LabError(f"ADD of {pod.name}: {said.out}")
        self.begin(pod)
        self.tell(pod)
        return took_ms

    def begin(self, pod: Member) -> None:
        """Its processes."""
        for number in range(_PROCESSES):
            pid = 1000 + pod.number * _PROCESSES + number
            self.proc.process(pid, cgroup("v2, systemd, containerd", pod.uid), pod.netns.path)

    def end(self, pod: Member) -> None:
        """Told to go, processes end, DEL, the namespace, the object. Raises LabError when DEL fails."""
        self.tell(pod, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30})
        for number in range(_PROCESSES):
            self.proc.end(1000 + pod.number * _PROCESSES + number)
        said = self.plugin.run("DEL", self.plugin.config(), **self._asked(pod))
        pod_wires.unplug(pod.netns)
        self.api.delete("Pod", pod.name)
        if said.status:
            raise LabError(f"DEL of {pod.name}: {said.out}")

    def tell(
        self, pod: Member, *, running: bool = True, labelled: bool = True, metadata: dict[str, Any] | None = None
    ) -> None:
        """The API server's object."""
        status: dict[str, Any] = {"phase": "Pending"}
        if running:
            ips = [str(of(pod.number)) for of in (pod_wires.address4, pod_wires.address6)]
            status = {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
        said = {"name": pod.name, "namespace": "default", "uid": pod.uid, "labels": MESHED if labelled else {}}
        spec = {"nodeName": NODE_NAME, "serviceAccountName": "default"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {**said, **(metadata or {})}, "spec": spec}
        self.api.put("Pod", {**body, "status": status})

    # ── Agent and proxy ────────────────────────────────────────────────────────────────────────────────────────────
    def start_agent(self, *, cleanup_on_exit: bool = False) -> int:
        """Its pid. Does not wait."""
        return self.lab.start_agent(*self.arguments, pods_file=False, cleanup_on_exit=cleanup_on_exit).pid

    def start(self, *, cleanup_on_exit: bool = False) -> None:
        """Both, until runtimes are answered."""
        self.start_agent(cleanup_on_exit=cleanup_on_exit)
        self.lab.start_proxy(own_objects=False)
        self.lab.wait_ready()
        self.lab.wait("the agent to answer runtimes", self.plugin.socket.exists)

    def states(self) -> dict[str, str]:
        """By pod's name."""
        return {pod["name"]: pod["state"] for pod in self.lab.agent_pods()}

    def wait_all(self, names: set[str], states: frozenset[str], timeout_s: float) -> None:
        """Until exactly these pods are there, each in one of these states. Raises LabError."""

        def there() -> bool:
            time.sleep(_POLL_S)
            found = self.states()
            return found.keys() == names and all(state in states for state in found.values())

        self.lab.wait(f"{len(names)} pods to be {' or '.join(sorted(states))}", there, timeout_s=timeout_s)

    def _asked(self, pod: Member) -> dict[str, str]:
        return {"pod": pod.name, "uid": pod.uid, "netns": str(pod.netns.path), "container": pod.name}


@contextmanager
def cluster_node(fill: Callable[[Beside], None] = lambda _: None) -> Iterator[ClusterNode]:
    """Nothing is started. `fill`: what the API server holds beforehand."""
    with tempfile.TemporaryDirectory() as directory, Lab(LabSpec(())) as lab, standing_beside() as api:
        at = Path(directory)
        pod_wires.widen(lab)
        config = at / "kubeconfig"
        config.write_text(
            "current-context: lab\n"
            f"clusters: [{{name: lab, cluster: {{server: 'http://127.0.0.1:{_PORT}'}}}}]\n"
            "contexts: [{name: lab, context: {cluster: lab}}]\n"
        )
        api.put("Namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        fill(api)
        api.server.faults.silent = True  # a bookmark a minute is the real one's, not one a change
        api.up(lab.node.listen("127.0.0.1", _PORT))
        proc = FakeProc(at / "proc", node=lab.node.path)
        words = ("--kubernetes", "--kubeconfig", str(config), "--node-name", NODE_NAME, "--spread", "0")
        plugin = Plugin(build(at / "headgate-cni", "-static"), lab.run_directory / "cni.sock")
        yield ClusterNode(lab, api, proc, plugin, (*words, "--proc", str(proc.root)))
