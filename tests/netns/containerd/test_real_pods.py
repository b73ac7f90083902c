"""Pods as a kubelet has them made: by containerd's CRI, with runc, in real cgroups, networked by the reference plugins
with ours chained behind. ADD and DEL come from the runtime, the namespaces are found in the machine's own /proc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from agent.kernel.pod_processes import sandboxes
from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.lab.spec import LabSpec
from tests.kube.beside import Beside, standing_beside
from tests.kube.cni.plugin import Plugin, build
from tests.netns.containerd.asked import Container, Pod, Sandbox
from tests.netns.containerd.runtime import Runtime, running
from tests.netns.life import kernel

PORT = 6443
ENABLED = {"headgate.io/mesh": "enabled"}
PAGE = "<html>real</html>"


class Node:
    """A lab's node with a runtime, an API server and headgate: one for all tests here."""

    def __init__(self, lab: Lab, api: Beside, runtime: Runtime, config: Path, plugin: Path) -> None:
        self.lab, self.api, self.runtime = lab, api, runtime
        self._config, self._plugin = config, plugin

    def start_agent(self) -> None:
        cni = ("--cni-conf-dir", str(self.runtime.conf_dir), "--cni-bin-dir", str(self.runtime.bin_dir))
        words = ("--kubernetes", "--kubeconfig", str(self._config), "--node-name", "node-1", "--spread", "0")
        self.lab.start_agent(*words, *cni, "--cni-plugin", str(self._plugin), cleanup_on_exit=False, pods_file=False)

    def create(self, name: str, labels: dict[str, str] | None = None) -> str:
        """The Pod object as the scheduler leaves it; its uid."""
        uid = str(uuid.uuid4())
        self.apply(name, uid, ENABLED if labels is None else labels, ())
        return uid

    def apply(self, name: str, uid: str, labels: dict[str, str], addresses: tuple[str, ...]) -> None:
        status: dict[str, Any] = {"phase": "Pending"}
        if addresses:
            status = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid, "labels": {"app": name, **labels}},
            "spec": {"nodeName": "node-1"},
            "status": status,
        }
        self.api.apply(yaml.safe_dump(body))

    def run(self, name: str, labels: dict[str, str] | None = None) -> tuple[str, Sandbox]:
        """As a kubelet does: object, sandbox, status."""
        uid = self.create(name, labels)
        sandbox = self.runtime.run(Pod(name, uid))
        self.apply(name, uid, ENABLED if labels is None else labels, sandbox.addresses)
        return uid, sandbox

    def remove(self, name: str, sandbox: Sandbox) -> None:
        self.runtime.stop(sandbox)
        self.api.delete("Pod", name)

    def answers_runtimes(self) -> bool:
        plugin = Plugin(self.runtime.bin_dir / "headgate-cni", self.lab.run_directory / "cni.sock")
        return plugin.run("STATUS", plugin.config()).status == 0

    def state(self, name: str) -> str:
        told = self.lab.agent_get("/pods")
        return next((pod["state"] for pod in told["pods"] if pod["name"] == name), "")

    def netns(self, name: str) -> Netns:
        """Named by containerd."""
        path = next(pod["netns"] for pod in self.lab.agent_get("/pods")["pods"] if pod["name"] == name)
        return Netns(Path(path).name)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    at = tmp_path_factory.mktemp("node")
    config = at / "kubeconfig"
    config.write_text(
        "current-context: lab\n"
        f"clusters: [{{name: lab, cluster: {{server: 'http://127.0.0.1:{PORT}'}}}}]\n"
        "contexts: [{name: lab, context: {cluster: lab}}]\n"
    )
    plugin = build(at / "headgate-cni", "-static")
    # A short path: containerd's shims put theirs into socket names of 108 bytes.
    with Lab(LabSpec(())) as lab, standing_beside() as api, running(lab, at) as runtime:
        api.apply("{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
        api.up(lab.node.listen("127.0.0.1", PORT))
        made = Node(lab, api, runtime, config, plugin)
        lab.start_proxy(own_objects=False)
        made.start_agent()
        first = runtime.conf_dir / "10-bridge.conflist"
        lab.wait("the plugin to be chained", lambda: "headgate-cni" in first.read_text())
        runtime.start()
        runtime.load_image()
        try:
            yield made
        finally:
            runtime.close()
            lab.stop_agent()


def fetched(netns: Netns, address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return netns.run(["curl", "-sS", "-m", "5", f"http://{host}:8080/"]).stdout


def test_a_pod_starts_steered_serves_and_calls_and_leaves_nothing(node: Node) -> None:
    web_uid, web = node.run("web")
    client_uid, client = node.run("client")
    assert node.state("web") in ("installed", "proved"), "when RunPodSandbox returns"
    server = f"mkdir -p /www; echo '{PAGE}' > /www/index.html; exec httpd -f -p 8080 -h /www"
    node.runtime.start_container(web, Pod("web", web_uid), Container("sh", ("/bin/sh", "-c", server)))
    node.lab.wait_proved("web", "client")
    found = sandboxes(Path("/proc"), (Path("/run/netns"),))
    assert {found[uid].netns_path for uid in (web_uid, client_uid)} == {
        str(node.netns(name).path) for name in ("web", "client")
    }
    netns = node.netns("client")
    for address in web.addresses:
        node.lab.wait("the application to answer", lambda to=address: _answers(netns, to))  # type: ignore[misc]
        assert fetched(netns, address).strip() == PAGE
    page = node.lab.node.run(["curl", "-sf", "http://127.0.0.1:15020/metrics"]).stdout
    assert 'source_workload="client"' in page, "it went through the mesh"
    kept = [netns.path for netns in (node.netns("web"), node.netns("client"))]
    node.remove("client", client)
    node.remove("web", web)
    node.lab.wait("the pods to be gone", lambda: node.lab.agent_get("/pods")["pods"] == [])
    assert [path for path in kept if path.exists()] == []
    assert "drifted" not in node.lab.log("agent"), "the runtime took lo down first, and that is no drift"


def _answers(netns: Netns, address: str) -> bool:
    host = f"[{address}]" if ":" in address else address
    return netns.run(["curl", "-s", "-m", "2", f"http://{host}:8080/"], check=False).returncode == 0


def test_a_pod_without_the_label_starts_as_ever(node: Node) -> None:
    _, plain = node.run("plain", {})
    assert node.state("plain") == ""
    reasons = {one["name"]: one["reason"] for one in node.lab.agent_get("/pods")["skipped"]}
    assert reasons["plain"].startswith("neither the pod nor namespace default has headgate.io/mesh=enabled")
    node.remove("plain", plain)


def test_b48_a_sandbox_made_anew_under_the_same_uid_is_steered_in_its_new_namespace(node: Node) -> None:
    uid, first = node.run("again")
    node.lab.wait_proved("again")
    before = node.netns("again")
    node.runtime.stop(first)
    second = node.runtime.run(Pod("again", uid, attempt=1))
    node.apply("again", uid, ENABLED, second.addresses)
    node.lab.wait_proved("again")
    assert node.netns("again") != before
    assert "headgate" in kernel.rules(node.netns("again"))
    assert not before.path.exists()
    node.remove("again", second)


def test_without_a_proxy_the_sandbox_fails_with_the_reason_and_starts_once_it_is_there(node: Node) -> None:
    lab = node.lab
    lab.kill("proxy")
    lab.wait("the agent to see it", lambda: not lab.agent_get("/pods")["proxy_connected"])
    uid = node.create("early")
    with pytest.raises(grpc.RpcError) as refused:
        node.runtime.run(Pod("early", uid))
    assert "pod default/early is pending: no proxy is connected" in str(refused.value.details())
    lab.start_proxy(own_objects=False)
    lab.wait("the proxy to be back", lambda: bool(lab.agent_get("/pods")["proxy_connected"]))
    early = node.runtime.run(Pod("early", uid, attempt=1))
    node.apply("early", uid, ENABLED, early.addresses)
    lab.wait_proved("early")
    node.remove("early", early)


def test_containerd_killed_and_started_again_changes_nothing_and_takes_pods_down_after(node: Node) -> None:
    _, pod = node.run("steady")
    node.lab.wait_proved("steady")
    netns = node.netns("steady")
    held = kernel.without_handles(kernel.rules(netns))
    node.runtime.kill()
    node.runtime.start()
    assert node.state("steady") == "proved"
    assert kernel.without_handles(kernel.rules(netns)) == held
    node.remove("steady", pod)
    node.lab.wait("the pod to be gone", lambda: node.state("steady") == "")


def test_containerd_killed_while_the_plugin_waits_leaves_nothing_steered_in_vain(node: Node) -> None:
    uid = node.create("half")
    os.kill(node.lab.pid("agent"), signal.SIGSTOP)  # so that ADD hangs
    try:
        with pytest.raises(grpc.RpcError):
            node.runtime.run(Pod("half", uid), timeout_s=2)
        node.runtime.kill()
    finally:
        os.kill(node.lab.pid("agent"), signal.SIGCONT)
    node.runtime.start()
    pod = node.runtime.run(Pod("half", uid, attempt=1))
    node.apply("half", uid, ENABLED, pod.addresses)
    node.lab.wait_proved("half")
    node.remove("half", pod)
    node.lab.wait("the pod to be gone", lambda: node.state("half") == "")


def test_b51_an_agent_that_was_killed_finds_real_pods_again_and_touches_nothing(node: Node) -> None:
    _, pod = node.run("kept")
    node.lab.wait_proved("kept")
    netns = node.netns("kept")
    held = kernel.without_handles(kernel.rules(netns))
    node.lab.kill_agent()
    node.start_agent()
    node.lab.wait_proved("kept")
    assert kernel.without_handles(kernel.rules(netns)) == held
    node.remove("kept", pod)


def test_with_the_agent_away_no_pod_starts_until_it_is_back(node: Node) -> None:
    node.lab.kill_agent()
    uid = node.create("waiting")
    with pytest.raises(grpc.RpcError) as refused:
        node.runtime.run(Pod("waiting", uid))
    assert "the agent of this node does not answer at" in str(refused.value.details())
    node.start_agent()
    node.lab.wait("the agent to answer runtimes", node.answers_runtimes)
    pod = node.runtime.run(Pod("waiting", uid, attempt=1))
    assert node.state("waiting") in ("installed", "proved")
    node.remove("waiting", pod)


def test_what_the_runtime_was_given_is_what_the_plugins_before_ours_gave(node: Node) -> None:
    chained = json.loads((node.runtime.conf_dir / "10-bridge.conflist").read_text())
    assert [plugin["type"] for plugin in chained["plugins"]] == ["bridge", "portmap", "headgate-cni"]
    assert subprocess.run([node.runtime.bin_dir / "headgate-cni"], env={"CNI_COMMAND": "VERSION"}, check=True)
