"""Agent and proxy in two pods without hostPID: neither sees the other's processes, nor the applications', but for what
the agent looks up in the node's /proc. With the manifests' capabilities and no other."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.lab import processes
from agent.lab.node import Lab, headgate
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.manifests import apart
from tests.netns.manifests.test_capabilities import _confined, _granted

PROCESS = r"process (\d+) \(([^)]*)\)"
LISTENER = """
import os, socket, time
listener = socket.create_server(("0.0.0.0", {port}))
os.setuid({uid})
print(flush=True)
time.sleep(600)
"""


@dataclass(frozen=True, slots=True)
class Node:
    """`holders`: pids of those who hold ports of ours, by pod."""

    lab: Lab
    holders: dict[str, int]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Pods and policy from files: of the cluster only --proc is used, and no API server asked."""
    directory = tmp_path_factory.mktemp("two-pods")
    proc = directory / "proc"
    proc.mkdir()
    config = directory / "kubeconfig"
    config.write_text(
        "current-context: lab\n"
        "clusters: [{name: lab, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: lab, context: {cluster: lab}}]\n"
    )
    pods = ("client", "server", "taker", "stranger")
    with pytest.MonkeyPatch.context() as patch, Lab(LabSpec(tuple(map(PodSpec, pods)))) as lab:
        _start_apart(patch, proc)
        cluster = ("--kubernetes", "--kubeconfig", str(config), "--proc", str(proc))
        with _listening(lab, "taker", 15001, 0) as root, _listening(lab, "stranger", 15006, 65534) as other:
            lab.start_agent(*cluster, "--objects-dir", str(lab.config_directory))
            lab.start_proxy(own_objects=False)
            lab.wait_proved("client", "server")
            yield Node(lab, {"taker": root, "stranger": other})


def _start_apart(patch: pytest.MonkeyPatch, proc: Path) -> None:
    start = processes.start

    def confined(netns: Any, command: Sequence[str], **rest: Any) -> subprocess.Popen[bytes]:
        which = command[len(headgate())] if command[: len(headgate())] == headgate() else ""
        if which in ("agent", "proxy"):
            command = [sys.executable, apart.__file__, str(proc), *_confined(command, _granted(which))]
        return start(netns, command, **rest)

    patch.setattr(processes, "start", confined)


@contextmanager
def _listening(lab: Lab, pod: str, port: int, uid: int) -> Iterator[int]:
    """A process of the pod's that holds a port of ours; its pid."""
    program = LISTENER.format(port=port, uid=uid)
    command = ["nsenter", f"--net={lab.pod(pod).netns_path}", sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline()
            yield holder.pid
        finally:
            holder.kill()


def test_a_port_that_is_taken_is_told_with_the_nodes_pid_and_the_name_of_whoever_has_it(node: Node) -> None:
    """Another user's descriptors cannot be listed with these capabilities: who runs there is told."""
    states = {pod["name"]: pod for pod in node.lab.agent_pods()}
    for name, port in (("taker", 15001), ("stranger", 15006)):
        assert states[name]["state"] == "failed"
        told = re.search(rf"port {port} is taken by {PROCESS}", states[name]["reason"])
        assert told is not None, states[name]["reason"]
        assert int(told[1]) == node.holders[name] and told[2].startswith("python"), told[0]
        assert kernel.rules(node.lab.pod(name).netns) == kernel.NO_RULES


def test_who_changes_rules_is_told_and_what_the_agent_does_itself_is_not(node: Node) -> None:
    lab = node.lab
    client = lab.pod("client")
    client.run(["nft", "delete", "table", "inet", "headgate"])
    lab.wait("the drift to be told", lambda: "changed by nft (pid " in lab.log("agent"))
    lab.wait_proved("client")
    client.run(["nft", "delete", "table", "inet", "headgate"])
    lab.wait("the second one", lambda: lab.log("agent").count("changed by nft (pid ") == 2)
    lab.wait_proved("client")
    assert not re.search(r"changed by [^\n]*(headgate|python|netns)", lab.log("agent"))


def test_a_second_agent_in_another_pod_on_this_node_refuses_to_start(node: Node, tmp_path: Path) -> None:
    lab = node.lab
    second = [*headgate(), "agent", "--run-dir", str(lab.run_directory), "--metrics-port", "0", "--pods-file"]
    command = [sys.executable, apart.__file__, str(tmp_path), *second, str(lab.pods_file)]
    refused = lab.node.run(_confined(command, ["sys_admin", "net_admin"]), check=False)
    assert refused.returncode == 1
    assert "an agent listens there already; stop it or choose another --run-dir" in refused.stderr
    assert lab.agent_pods(), "and the first one goes on"
