"""A lab whose agent has its pods from an API server, beside it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from tests.kube.beside import Beside, standing_beside
from tests.kube.cni.plugin import build
from tests.kube.fake_proc import FakeProc, cgroup

PORT = 6443
ENABLED = {"headgate.io/mesh": "enabled"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """One node of it, `node-1`. Of /proc only what pods are found by is made up."""

    lab: Lab
    api: Beside
    proc: FakeProc
    kubeconfig: Path

    def apply(self, pod: LabPod, labels: dict[str, str], *, status: bool = True, **spec: Any) -> str:
        """The Pod object; its uid. Without `status`: as it is before its sandbox was made."""
        addresses = [str(one) for one in (pod.address4, pod.address6)]
        there = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": "default", "labels": {"app": pod.name, **labels}},
            "spec": {"nodeName": "node-1", **spec},
            "status": there if status else {"phase": "Pending"},
        }
        self.api.apply(yaml.safe_dump(body))
        return str(self.api.server.store.resources["", "pods"].objects["default", pod.name]["metadata"]["uid"])

    def run_in(self, pod: LabPod, uid: str, pid: int, layout: str = "v2, systemd, containerd") -> None:
        """A process of the pod's."""
        self.proc.process(pid, cgroup(layout, uid), pod.netns.path)

    @property
    def cni_socket(self) -> Path:
        return self.lab.run_directory / "cni.sock"

    def running(self) -> None:
        """Agent and proxy, whichever does not run yet; returns when they are ready."""
        self.start()
        self.lab.wait_ready()
        self.lab.wait("the agent to answer runtimes", lambda: _answers(self.cni_socket))

    def start(self) -> None:
        if not self._runs("agent"):
            self.start_agent()
        if not self._runs("proxy"):
            self.lab.start_proxy(own_objects=False)

    def stop(self) -> None:
        """Nothing of ours runs, and nothing is left of it."""
        if self._runs("agent"):
            self.lab.stop_agent()
        if self._runs("proxy"):
            self.lab.stop_proxy()

    def clean(self) -> None:
        """No pods, and none that a runtime has asked for."""
        for namespace, name in list(self.api.server.store.resources["", "pods"].objects):
            self.api.delete("Pod", name, namespace)
        self.proc.end_all()
        if self._runs("agent"):
            _forget_all(self.cni_socket)
            self.lab.wait("no pod to be there", lambda: self.states() == {})

    def _runs(self, name: str) -> bool:
        try:
            self.lab.pid(name)
        except KeyError:
            return False
        return True

    def start_agent(self, *options: str) -> None:
        words = ("--kubernetes", "--kubeconfig", str(self.kubeconfig), "--node-name", "node-1", "--spread", "0")
        self.lab.start_agent(*words, "--proc", str(self.proc.root), *options, pods_file=False)

    def serve(self) -> None:
        self.api.up(self.lab.node.listen("127.0.0.1", PORT))

    def problems(self) -> list[str]:
        """Empty while the agent does not answer yet."""
        try:
            return list(self.lab.agent_get("/pods")["problems"])
        except Exception:
            return []

    def states(self) -> dict[str, str]:
        told = self.lab.agent_get("/pods")
        return {
            **{pod["name"]: pod["state"] for pod in told["pods"]},
            **{pod["name"]: f"skipped: {pod['reason']}" for pod in told["skipped"]},
        }


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One lab for all tests of a file. Nothing of ours runs yet."""
    tmp_path = tmp_path_factory.mktemp("node")
    config = tmp_path / "kubeconfig"
    config.write_text(
        "current-context: lab\n"
        f"clusters: [{{name: lab, cluster: {{server: 'http://127.0.0.1:{PORT}'}}}}]\n"
        "contexts: [{name: lab, context: {cluster: lab}}]\n"
    )
    with Lab(LabSpec((PodSpec("client"), PodSpec("server")))) as lab, standing_beside() as api:
        api.apply("{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
        made = Cluster(lab, api, FakeProc(tmp_path / "proc", node=lab.node.path), config)
        made.serve()
        yield made


@pytest.fixture
def cluster(node: Cluster) -> Iterator[Cluster]:
    """As the test before left it, but for its pods."""
    yield node
    node.clean()


@pytest.fixture(scope="session")
def plugin_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cni") / "headgate-cni", "-static")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


def _forget_all(path: Path) -> None:
    """GC, as of a runtime that has no sandbox."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(str(path))
        asking.sendall(b'CNI_COMMAND=GC\n\n{"cni.dev/valid-attachments": []}')
        asking.shutdown(socket.SHUT_WR)
        assert asking.recv(100) == b"0"
