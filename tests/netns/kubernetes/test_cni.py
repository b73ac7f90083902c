"""The CNI plugin, run as a runtime runs it, and the agent behind it: a pod starts steered, or says why it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from agent.lab.node import LabPod, headgate
from tests.kube.cni.plugin import Plugin, Said
from tests.netns.kubernetes.conftest import ENABLED, Cluster
from tests.netns.life import kernel
from tests.netns.life.talk import Echo, Talk, address

OUT = 15001


@pytest.fixture
def plugin(cluster: Cluster, plugin_program: Path) -> Plugin:
    return Plugin(plugin_program, cluster.cni_socket)


def run(plugin: Plugin, command: str, pod: LabPod, uid: str = "", container: str = "c1") -> Said:
    addresses = (f"{pod.address4}/24", f"{pod.address6}/64")
    netns = str(pod.netns.path)
    return plugin.run(command, plugin.config(addresses), pod=pod.name, uid=uid, netns=netns, container=container)


def test_add_returns_when_the_pod_is_steered_before_a_process_runs_in_it_and_del_removes_all(
    cluster: Cluster, plugin: Plugin
) -> None:
    client, server = cluster.lab.pod("client"), cluster.lab.pod("server")
    cluster.running()
    before = kernel.rules(client.netns)
    uid = cluster.apply(client, ENABLED, status=False)
    said = run(plugin, "ADD", client, uid)
    assert (said.status, json.loads(said.out)["ips"][0]["address"]) == (0, f"{client.address4}/24"), said.out
    assert cluster.states()["client"] in ("installed", "proved")
    with Echo(server), Talk(client, address(server, 4)) as first:
        first.says()
        assert first.steered_to() == OUT, "the very first connection"
    assert run(plugin, "CHECK", client, uid) == Said(0, "")
    cluster.run_in(client, uid, 70)
    cluster.apply(client, ENABLED)
    cluster.lab.wait_proved("client")
    cluster.proc.end(70)
    assert run(plugin, "DEL", client, uid) == Said(0, "")
    assert kernel.rules(client.netns) == before
    assert run(plugin, "DEL", client, uid) == Said(0, ""), "again, as runtimes do"


def test_check_really_checks(cluster: Cluster, plugin: Plugin) -> None:
    client = cluster.lab.pod("client")
    cluster.running()
    uid = cluster.apply(client, ENABLED, status=False)
    assert run(plugin, "CHECK", client, uid).error["msg"] == (
        "headgate: pod default/client: the agent does not know it yet"
    )
    assert run(plugin, "ADD", client, uid).status == 0
    os.kill(cluster.lab.pid("agent"), signal.SIGSTOP)
    client.run(["nft", "flush", "table", "inet", "headgate"])
    os.kill(cluster.lab.pid("agent"), signal.SIGCONT)
    said = run(plugin, "CHECK", client, uid)  # found, or already healed
    cluster.lab.wait("the rules to be healed", lambda: run(plugin, "CHECK", client, uid).status == 0)
    if said.status:
        assert "rules are not as planned" in said.error["msg"] or "is drifted" in said.error["msg"]


def test_a_pod_without_the_label_starts_and_nothing_is_in_it(cluster: Cluster, plugin: Plugin) -> None:
    client = cluster.lab.pod("client")
    cluster.running()
    before = kernel.rules(client.netns)
    uid = cluster.apply(client, {}, status=False)
    assert run(plugin, "ADD", client, uid).status == 0
    assert kernel.rules(client.netns) == before
    assert run(plugin, "CHECK", client, uid).status == 0
    assert run(plugin, "DEL", client, uid).status == 0


def test_without_a_proxy_the_pod_does_not_start_and_nothing_is_left_in_its_sandbox(
    cluster: Cluster, plugin: Plugin
) -> None:
    client = cluster.lab.pod("client")
    cluster.stop()
    cluster.start_agent()
    cluster.lab.wait("the agent to answer runtimes", cluster.cni_socket.exists)
    before = kernel.rules(client.netns)
    uid = cluster.apply(client, ENABLED, status=False)
    error = run(plugin, "ADD", client, uid).error
    assert error["code"] == 11
    assert "pod default/client is pending: no proxy is connected to the agent's zds.sock" in error["msg"]
    cluster.lab.wait("the sandbox to be clean", lambda: kernel.rules(client.netns) == before)
    status = plugin.run("STATUS", plugin.config(cniVersion="1.1.0"))
    assert (status.error["code"], status.error["cniVersion"]) == (50, "1.1.0")


def test_a_taken_port_and_a_bad_annotation_are_told_to_the_kubelet(cluster: Cluster, plugin: Plugin) -> None:
    client = cluster.lab.pod("client")
    cluster.running()
    uid = cluster.apply(client, ENABLED, status=False)
    with client.netns.listen("0.0.0.0", OUT):
        assert f"port {OUT} is taken by " in run(plugin, "ADD", client, uid).error["msg"]


def test_an_agent_that_is_away_stops_every_pod_but_those_of_excluded_namespaces(
    plugin_program: Path, tmp_path: Path
) -> None:
    plugin = Plugin(plugin_program, tmp_path / "cni.sock")
    config = plugin.config(("10.0.0.5/24",))
    error = plugin.run("ADD", config, netns="/run/netns/none").error
    assert error["code"] == 11
    assert f"the agent of this node does not answer at {plugin.socket} (No such file or directory)" in error["msg"]
    excluded = plugin.run("ADD", config, namespace="kube-system")
    assert (excluded.status, json.loads(excluded.out)) == (0, config["prevResult"])
    assert plugin.run("CHECK", config).status == 1
    assert plugin.run("DEL", config) == Said(0, ""), "a pod that goes must be able to"
    assert plugin.run("GC", config) == Said(0, "")


def test_a_stopped_agent_is_not_waited_for_for_ever(cluster: Cluster, plugin: Plugin) -> None:
    client = cluster.lab.pod("client")
    cluster.running()
    uid = cluster.apply(client, ENABLED, status=False)
    os.kill(cluster.lab.pid("agent"), signal.SIGSTOP)
    try:
        error = run(plugin, "ADD", client, uid).error
    finally:
        os.kill(cluster.lab.pid("agent"), signal.SIGCONT)
    assert error["code"] == 11
    assert "Resource temporarily unavailable" in error["msg"]


def test_a_pod_whose_runtime_never_heard_of_its_success_is_let_go(cluster: Cluster, plugin: Plugin) -> None:
    """It was killed while the plugin waited: no DEL will come for that sandbox."""
    client = cluster.lab.pod("client")
    cluster.running()
    before = kernel.rules(client.netns)
    uid = cluster.apply(client, ENABLED, status=False)
    os.kill(cluster.lab.pid("agent"), signal.SIGSTOP)
    try:
        with plugin.begun("ADD", plugin.config(), pod="client", uid=uid, netns=str(client.netns.path)) as waiting:
            cluster.lab.wait("the plugin to wait for its answer", lambda: _waits(waiting.pid))
            waiting.kill()
    finally:
        os.kill(cluster.lab.pid("agent"), signal.SIGCONT)
    cluster.lab.wait("the agent to have tried", lambda: "its runtime has gone" in cluster.lab.log("agent"))
    cluster.lab.wait("the sandbox to be clean", lambda: kernel.rules(client.netns) == before)
    assert not cluster.states()["client"].startswith(("installed", "proved"))


def _waits(pid: int) -> bool:
    """Asleep with a socket open: the only thing that it waits for is an answer on it."""
    process = Path(f"/proc/{pid}")
    asleep = process.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "S"
    return asleep and any("socket:" in str(fd.readlink()) for fd in process.joinpath("fd").iterdir())


def test_b47_another_pod_of_that_name_and_the_nodes_own_namespace_are_refused(cluster: Cluster, plugin: Plugin) -> None:
    client = cluster.lab.pod("client")
    cluster.running()
    cluster.apply(client, ENABLED, status=False)
    assert (
        "another pod has that name now"
        in run(plugin, "ADD", client, "11111111-1111-1111-1111-111111111111").error["msg"]
    )
    node = plugin.run("ADD", plugin.config(), pod="client", netns=str(cluster.lab.node.path))
    assert "is the agent's own, the node's" in node.error["msg"]
    missing = plugin.run("ADD", plugin.config(), pod="nobody", netns=str(client.netns.path))
    assert "the API server does not tell of it: 404 NotFound" in missing.error["msg"]


def test_the_agent_chains_its_plugin_once_it_answers_and_the_verb_takes_it_out_again(
    cluster: Cluster, plugin_program: Path, tmp_path: Path
) -> None:
    conf, binaries = tmp_path / "net.d", tmp_path / "bin"
    conf.mkdir()
    binaries.mkdir()
    path = conf / "10-bridge.conflist"
    path.write_text('{"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "bridge"}]}')
    before = path.read_text()
    places = ("--cni-conf-dir", str(conf), "--cni-bin-dir", str(binaries))
    cluster.stop()
    cluster.api.down()
    cluster.start_agent(*places, "--cni-plugin", str(plugin_program))
    cluster.lab.wait("the agent to say what it waits for", lambda: "pods: " in str(cluster.problems()))
    assert path.read_text() == before, "an agent that cannot answer would stop every pod"
    cluster.serve()
    cluster.lab.wait("the plugin to be chained", lambda: "headgate-cni" in path.read_text())
    chained = json.loads(path.read_text())["plugins"][-1]
    assert chained == {
        "type": "headgate-cni",
        "socket": str(cluster.cni_socket),
        "excludeNamespaces": ["headgate-system", "kube-system"],
    }
    assert Plugin(binaries / "headgate-cni", Path(chained["socket"])).run("STATUS", chained).error["code"] == 50
    cluster.lab.stop_agent()
    assert "headgate-cni" in path.read_text(), "an agent that restarts leaves no gap"
    words = [*headgate(), "cni", "remove", "--conf-dir", str(conf), "--bin-dir", str(binaries)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said == f"took our plugin out of {path}\nremoved {binaries}/headgate-cni\n"
    assert json.loads(path.read_text()) == json.loads(before)


def test_an_agent_that_restarts_before_a_process_runs_in_the_pod_keeps_it_closed_and_finds_it_by_that_process(
    cluster: Cluster, plugin: Plugin
) -> None:
    """cri-o without infra containers: there is none until the image is there. Nothing is kept in a file."""
    client, server = cluster.lab.pod("client"), cluster.lab.pod("server")
    cluster.running()
    uid = cluster.apply(client, ENABLED, status=False)
    assert run(plugin, "ADD", client, uid).status == 0
    held = kernel.without_handles(kernel.rules(client.netns))
    cluster.lab.kill_agent()
    cluster.running()
    assert kernel.without_handles(kernel.rules(client.netns)) == held, "nothing goes past the mesh meanwhile"
    cluster.run_in(client, uid, 70)
    cluster.apply(client, ENABLED)
    cluster.lab.wait_proved("client")
    assert run(plugin, "CHECK", client, uid) == Said(0, "")
    assert kernel.without_handles(kernel.rules(client.netns)) == held
    with Echo(server), Talk(client, address(server, 4)) as new:
        new.says()
        assert new.steered_to() == OUT
    cluster.proc.end(70)
    assert run(plugin, "DEL", client, uid) == Said(0, "")
    assert "headgate" not in kernel.rules(client.netns)


def test_gc_lets_go_of_what_the_runtime_has_not_any_more(cluster: Cluster, plugin: Plugin) -> None:
    client = cluster.lab.pod("client")
    cluster.running()
    before = kernel.rules(client.netns)
    uid = cluster.apply(client, ENABLED, status=False)
    assert run(plugin, "ADD", client, uid).status == 0
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    stays = plugin.config(cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid})
    assert plugin.run("GC", stays).status == 0
    assert cluster.states()["client"] in ("installed", "proved")
    assert plugin.run("GC", plugin.config(cniVersion="1.1.0", **{"cni.dev/valid-attachments": []})).status == 0
    cluster.lab.wait("the sandbox to be clean", lambda: kernel.rules(client.netns) == before)


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{", b'{"a": tru', b'{"prevResult": {"ips": [}}', b"{" * 100_000, b'{"a": "' + b"x" * 2**20]
)
def test_a_configuration_that_is_none_is_refused_in_words(plugin_program: Path, tmp_path: Path, config: bytes) -> None:
    plugin = Plugin(plugin_program, tmp_path / "cni.sock")
    error = plugin.run("ADD", config).error
    assert (error["code"], error["msg"]) == (7, "headgate: the configuration on stdin is no JSON object below 1 MiB")


def test_version(plugin_program: Path, tmp_path: Path) -> None:
    plugin = Plugin(plugin_program, tmp_path / "cni.sock")
    assert "1.1.0" in json.loads(plugin.run("VERSION", b"").out)["supportedVersions"]
