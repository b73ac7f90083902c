"""A node of a cluster: how long a pod's start waits for the CNI plugin, and a running pod for its enrolment."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from agent.lab.errors import LabError
from agent.lab.figures import percentile
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.sources.kubernetes_pods import LOOKED_EVERY_S
from tests.bench import meter
from tests.bench.results import Fact
from tests.kube.beside import Beside, standing_beside
from tests.kube.cni.plugin import Plugin, build
from tests.kube.fake_proc import FakeProc, cgroup

STARTED: Final = 200
FOUND: Final = 50
"""Labelled while they run, one after the other; together 250."""
EVERY_S: Final = 0.05
"""20 starts a second (issue 5)."""
_PROCESSES: Final = 4
"""Of each pod, for the scan of /proc."""
_PORT: Final = 6443
_WITHIN_S: Final = 10.0
_ENROLLED: Final = frozenset({"installed", "proved"})

Say = Callable[[str], None]


def measure(say: Say) -> tuple[Fact, ...]:
    """Raises LabError."""
    with _node() as node:
        say(f"{STARTED} pods by CNI, 20 a second")
        started_ms = sorted(node.started())
        say(f"{FOUND} running pods get their label")
        node.run(node.lab.pods[STARTED:])
        found_ms = sorted(node.found(pod) for pod in node.lab.pods[STARTED:])
        agent_mb = meter.memory_mb(node.lab.pid("agent"))
    at = "20 a second, up to 200 on the node"
    return (
        Fact("cni_add_p50_ms", f"CNI ADD to return, {at}, p50", percentile(started_ms, 0.5), "ms", 30),
        Fact("cni_add_p99_ms", f"CNI ADD to return, {at}, p99", percentile(started_ms, 0.99), "ms", 150),
        Fact("api_enrolled_p50_ms", "a running pod's label to its rules, p50", percentile(found_ms, 0.5), "ms"),
        Fact("api_enrolled_p99_ms", "a running pod's label to its rules, p99", percentile(found_ms, 0.99), "ms", 300),
        Fact("kubernetes_agent_mb", "agent, resident, 250 such pods", agent_mb, "MB", 120),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    lab: Lab
    api: Beside
    proc: FakeProc
    plugin: Plugin

    def started(self) -> Iterator[float]:
        """Milliseconds of each ADD, run as a runtime runs it; then its processes and its status follow."""
        began_s = time.monotonic()
        with ThreadPoolExecutor(32) as pool:
            waits = []
            for index, pod in enumerate(self.lab.pods[:STARTED]):
                time.sleep(max(0.0, began_s + index * EVERY_S - time.monotonic()))
                waits.append(pool.submit(self._start, pod, index))
            yield from (wait.result() for wait in waits)

    def _start(self, pod: LabPod, index: int) -> float:
        uid = self._apply(pod, running=False)
        config = self.plugin.config((f"{pod.address4}/24",))
        began_s = time.perf_counter()
        said = self.plugin.run("ADD", config, pod=pod.name, uid=uid, netns=str(pod.netns.path), container=pod.name)
        took_ms = (time.perf_counter() - began_s) * 1e3
        if said.status:
            raise LabError(f"ADD of {pod.name}: {said.out}")
        self._processes(pod, uid, index)
        self._apply(pod)
        return took_ms

    def run(self, pods: Sequence[LabPod]) -> None:
        """Not ours yet, and for longer than it takes until the node is looked over again."""
        for index, pod in enumerate(pods, start=STARTED):
            self._processes(pod, self._apply(pod, labelled=False), index)
        time.sleep(LOOKED_EVERY_S + 1)

    def found(self, pod: LabPod) -> float:
        """Milliseconds from the API server's event to rules in force."""
        began_s = time.perf_counter()
        self._apply(pod)
        while (took_s := time.perf_counter() - began_s) < _WITHIN_S:
            if self._state(pod) in _ENROLLED:
                return took_s * 1e3
            time.sleep(0.002)
        raise LabError(f"{pod.name} is not enrolled within {_WITHIN_S:g} s")

    def _state(self, pod: LabPod) -> str:
        return next((one["state"] for one in self.lab.agent_pods() if one["name"] == pod.name), "")

    def _apply(self, pod: LabPod, *, running: bool = True, labelled: bool = True) -> str:
        status: dict[str, Any] = {"phase": "Pending"}
        if running:
            status = {"phase": "Running", "podIP": str(pod.address4), "podIPs": [{"ip": str(pod.address4)}]}
        labels = {"headgate.io/mesh": "enabled"} if labelled else {}
        metadata = {"name": pod.name, "namespace": "default", "labels": labels}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "node-1"}}
        self.api.apply(yaml.safe_dump({**body, "status": status}))
        return str(self.api.server.store.resources["", "pods"].objects["default", pod.name]["metadata"]["uid"])

    def _processes(self, pod: LabPod, uid: str, index: int) -> None:
        for number in range(_PROCESSES):
            pid = 1000 + index * _PROCESSES + number
            self.proc.process(pid, cgroup("v2, systemd, containerd", uid), pod.netns.path)


@contextmanager
def _node() -> Iterator[_Node]:
    spec = LabSpec(tuple(PodSpec(f"pod-{number}") for number in range(STARTED + FOUND)))
    with tempfile.TemporaryDirectory() as directory, Lab(spec) as lab, standing_beside() as api:
        at = Path(directory)
        config = at / "kubeconfig"
        config.write_text(
            "current-context: lab\n"
            f"clusters: [{{name: lab, cluster: {{server: 'http://127.0.0.1:{_PORT}'}}}}]\n"
            "contexts: [{name: lab, context: {cluster: lab}}]\n"
        )
        api.apply("{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
        api.server.faults.silent = True  # a bookmark a minute is the real one's, not one a change
        api.up(lab.node.listen("127.0.0.1", _PORT))
        proc = FakeProc(at / "proc", node=lab.node.path)
        words = ("--kubernetes", "--kubeconfig", str(config), "--node-name", "node-1", "--spread", "0")
        lab.start_agent(*words, "--proc", str(proc.root), pods_file=False)
        lab.start_proxy(own_objects=False)
        lab.wait_ready()
        socket_path = lab.run_directory / "cni.sock"
        lab.wait("the agent to answer runtimes", socket_path.exists)
        yield _Node(lab, api, proc, Plugin(build(at / "headgate-cni", "-static"), socket_path))
