"""`headgate why` names the step that fails, and its remedy; each fault is really there (issue 6: 20 of them)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.lab.node import Lab, headgate
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.faults import sabotage
from tests.netns.life import kernel
from tests.netns.life.full_table import FullTable
from tests.netns.life.talk import until
from tests.netns.policy_stream.relay import Relay
from tests.netns.why.asked import rules_of_others, why
from tests.netns.why.conftest import until_proved, verified

THIEF = (
    "table inet thief {{ chain {hook} {{ type nat hook {hook} priority -150; tcp dport 15002 redirect to :9999; }}; }}"
)


# ── Before a pod is enrolled ───────────────────────────────────────────────────────────────────────────────────────
def test_no_proxy_is_connected(unenrolled: Lab) -> None:
    step = why(unenrolled, "plain").fails_at("proxy", "no proxy is connected to the agent")
    assert "goes past the mesh" in step["why"]
    assert step["commands"] == [f"headgate proxy --run-dir {unenrolled.paths.run}"]


def test_pod_is_not_known(unenrolled: Lab) -> None:
    said = why(unenrolled, "plane")
    step = said.fails_at("pod", "not selected: no pod default/plane in pods file", "did you mean default/plain?")
    assert f"list it in {unenrolled.pods_file}" in step["remedy"]


def test_namespace_that_is_given_is_of_no_pod(unenrolled: Lab) -> None:
    said = why(unenrolled, "--netns", str(unenrolled.pod("elsewhere").netns_path), run_dir=unenrolled.paths.run)
    assert said.body["pod"] == "default/elsewhere"
    said = why(unenrolled, "--netns", "/proc/self/ns/net")
    said.fails_at("pod", "no pod that the agent knows is in this network namespace")


def test_entry_of_the_pods_file_cannot_be_used(unenrolled: Lab) -> None:
    step = why(unenrolled, "twin").fails_at("pod", "two pods cannot share one set of rules")
    assert f"correct that entry of {unenrolled.pods_file}" in step["remedy"]


def test_pod_is_labelled_out_of_the_mesh(unenrolled: Lab) -> None:
    step = why(unenrolled, "disabled").fails_at("selection", "label headgate.io/mesh is disabled")
    assert "take the label away" in step["remedy"]


def test_label_is_misspelt_and_the_pod_stays_in_the_mesh(unenrolled: Lab) -> None:
    said = why(unenrolled, "misspelt")
    assert said.body["failed"] == "proxy"
    assert "disable is none of enabled and disabled" in said.step("selection")["notes"][0]


def test_annotation_cannot_be_read(unenrolled: Lab) -> None:
    step = why(unenrolled, "unread").fails_at("annotations", "headgate.io/exclude-outbound-ports", "80,http")
    assert "stays as it was, outside the mesh" in step["why"]


def test_annotations_contradict_each_other(unenrolled: Lab) -> None:
    keys = ("headgate.io/include-inbound-ports", "headgate.io/exclude-inbound-ports")
    step = why(unenrolled, "contradicting").fails_at("annotations", *keys)
    assert step["commands"][0].startswith("headgate rules plan default/contradicting")


def test_namespace_is_not_there(unenrolled: Lab) -> None:
    step = why(unenrolled, "gone").fails_at("netns", "/run/netns/hg-of-nobody is not there")
    assert f"correct its `netns` in {unenrolled.pods_file}" in step["remedy"]


def test_path_is_of_no_namespace(unenrolled: Lab) -> None:
    why(unenrolled, "no-namespace").fails_at("netns", "no-namespace is no network namespace")


def test_namespace_is_the_nodes_own(unenrolled: Lab) -> None:
    step = why(unenrolled, "host").fails_at("netns", "the node's own network namespace (hostNetwork)")
    assert "the traffic of the whole node" in step["why"] and "headgate.io/mesh: disabled" in step["remedy"]


def test_namespace_does_not_hold_the_pods_address(unenrolled: Lab) -> None:
    step = why(unenrolled, "elsewhere").fails_at("netns", "does not hold the pod's address 10.9.9.9", "it holds: ")
    assert step["commands"] == [f"nsenter --net={unenrolled.pod('elsewhere').netns_path} ip address"]


@pytest.mark.parametrize(("pod", "port"), [("taken-out", "15001 (outbound)"), ("taken-in", "15006 (inbound)")])
def test_application_listens_on_a_port_of_the_proxys(unenrolled: Lab, pod: str, port: str) -> None:
    said = why(unenrolled, pod)
    step = said.fails_at("ports", f"port {port} is taken by process {os.getpid()} (")
    assert "move the application to another port" in step["remedy"]
    assert said.step("rules")["result"] == "skipped"


# ── Of a pod that is enrolled ──────────────────────────────────────────────────────────────────────────────────────
def test_nothing_is_wrong(lab: Lab) -> None:
    said = why(lab, "client")
    assert (said.status, said.body["failed"]) == (0, None), said.body
    assert {step["result"] for step in said.body["steps"]} <= {"ok", "note"}


def test_proxy_refuses_the_pod(lab: Lab) -> None:
    said = why(lab, "refused")
    said.fails_at("proxy", "the proxy refused the pod: ", "15001", f"{os.getpid()}")
    assert said.step("ports")["result"] == "ok", "the mark says that it is a proxy's"


def test_file_of_the_pods_own_object_is_broken(lab: Lab) -> None:
    step = why(lab, "unknown").fails_at("policy", "no Pod default/unknown has come", "pod-unknown.yaml")
    assert "correct the file that has it" in step["remedy"]


def test_object_of_a_pod_is_taken_away(lab: Lab) -> None:
    file = lab.config_directory / "pod-client.yaml"
    text = file.read_text()
    file.unlink()
    try:
        lab.wait("the object to be missed", lambda: _served(lab, "client") == "waiting for its object")
        why(lab, "client").fails_at("policy", "no Pod default/client has come")
    finally:
        lab.write_object("pod-client", text)
    lab.wait("the object", lambda: _served(lab, "client") == "served")


def _served(lab: Lab, name: str) -> str:
    return next(str(pod["state"]) for pod in lab.proxy_get("/pods") if pod["name"] == name)


def test_objects_come_to_the_proxy_slowly(tmp_path: Path) -> None:
    """Through a relay that passes 40 KB a second: no policy, no service, for twenty seconds here."""
    with Lab(LabSpec((PodSpec("client"),))) as lab:
        annotations = f"{{x: {'y' * 800_000}}}"
        lab.write_object(
            "a-ballast", f"{{apiVersion: v1, kind: Service, metadata: {{name: x, annotations: {annotations}}}}}"
        )
        for name in ("zds.sock", "fds.sock", "admin.sock"):
            (tmp_path / name).symlink_to(lab.run_directory / name)
        with Relay(tmp_path / "objects.sock", lab.run_directory / "objects.sock") as relay:
            relay.slow = True
            lab.start_agent("--objects-dir", str(lab.config_directory))
            lab.start_proxy("--run-dir", str(tmp_path), own_objects=False)
            kernel.wait_state(lab, "client", "installed")
            said = why(lab, "client", run_dir=tmp_path)
            lab.stop_proxy()
    step = said.fails_at("policy", "the agent has not told the proxy of all objects yet")
    assert "no policy, no service" in step["why"]
    assert (said.step("rules")["result"], said.step("proofs")["result"]) == ("ok", "unknown")
    assert "cannot be proved yet: the proxy waits for its policy" in said.step("proofs")["found"]


def test_somebody_took_a_rule_away_and_the_agent_put_it_back(lab: Lab) -> None:
    before = _drifts(lab)
    lab.pod("client").netns.run(["ip", "-4", "rule", "delete", "preference", "32764"])
    lab.wait("it to be found", lambda: _drifts(lab) > before)
    until_proved(lab)
    said = why(lab, "client")
    assert said.status == 0
    (note,) = said.step("rules")["notes"]
    assert note.startswith(f"found changed {before + 1} times and healed; last: ") and "rule" in note


def _drifts(lab: Lab) -> int:
    return next(int(pod["drifts"]) for pod in lab.agent_pods() if pod["name"] == "client")


def test_proxy_was_killed_and_the_rules_stay(lab: Lab) -> None:
    lab.kill("proxy")
    try:
        lab.wait("the proxy to be missed", lambda: lab.agent_get("/pods")["proxy_connected"] is False)
        said = why(lab, "client")
    finally:
        lab.start_proxy(own_objects=False)
    assert "fail closed" in said.fails_at("proxy", "no proxy is connected")["why"]
    assert said.step("rules")["result"] in ("ok", "note")


def test_proxy_is_stopped(lab: Lab) -> None:
    with _stopped(lab, "proxy") as pid:
        step = why(lab, "client").fails_at("proxy", "does not answer", "it is stopped (state T)")
    assert step["commands"] == [f"kill -CONT {pid}"]


def test_agent_is_stopped(lab: Lab) -> None:
    with _stopped(lab, "agent") as pid:
        said = why(lab, "client", "--netns", str(lab.pod("client").netns_path))
    assert said.fails_at("agent", f"process {pid}", "it is stopped (state T)")["commands"] == [f"kill -CONT {pid}"]
    assert said.step("rules")["result"] in ("ok", "note")


@contextmanager
def _stopped(lab: Lab, name: str) -> Iterator[int]:
    pid = lab.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("hook", "name", "port"), [("output", "out4", 15001), ("prerouting", "in4", 15006)], ids=["out", "in"]
)
def test_nat_chain_of_somebody_else_takes_connections_before_us(lab: Lab, hook: str, name: str, port: int) -> None:
    with rules_of_others(lab, "client", THIEF.format(hook=hook), "inet thief"):
        said = why(lab, "client")
        step = said.fails_at("rules", f"is not led to port {port} but ends at port 9999", "thief")
        handle = step["commands"][0].rpartition(" ")[2]
        assert step["commands"][0].endswith(f"nft delete rule inet thief {hook} handle {handle}")
        assert verified(lab, "client")["proofs"][name]["result"] == "failed"
        lab.pod("client").netns.run(step["commands"][0].split()[2:])  # behind nsenter and where to
        assert verified(lab, "client")["proofs"][name]["result"] == "ok"


@pytest.mark.parametrize(("hook", "name"), [("output", "out4"), ("input", "in4")])
def test_users_own_rule_drops_what_is_steered(lab: Lab, hook: str, name: str) -> None:
    chain = f"chain {hook} {{ type filter hook {hook} priority 0; tcp dport {{ 15001, 15006 }} drop; }}"
    with rules_of_others(lab, "client", f"table ip users {{ {chain}; }}", "ip users"):
        step = why(lab, "client").fails_at("proofs", f"{name}: no answer from", "table ip users", "(drop)")
    assert f"nft delete rule ip users {hook} handle" in step["commands"][0]


def test_conntrack_table_is_full(lab: Lab) -> None:
    with FullTable(lab.pod("full")):
        step = why(lab, "full").fails_at("rules", "the conntrack table of the namespace is full")
    assert step["commands"][1].startswith("sysctl -w net.netfilter.nf_conntrack_max=")


def test_loopback_has_lost_its_ipv6_address(lab: Lab) -> None:
    pod = lab.pod("client")
    pod.netns.run(["ip", "-6", "address", "del", "::1/128", "dev", "lo"])
    try:
        step = why(lab, "client").fails_at("netns", "lo has no ::1", "IPv6 address")
    finally:
        pod.netns.run(["ip", "-6", "address", "add", "::1/128", "dev", "lo"])
    assert step["commands"] == [f"nsenter --net={pod.netns_path} ip -6 address add ::1/128 dev lo"]


def test_another_agent_and_proxy_serve_the_pod_already(lab: Lab) -> None:
    other = lab.paths.directory / "other"
    where = ["--run-dir", str(other), "--metrics-port", "0"]
    proxy = lab.node.popen([*headgate(), "proxy", *where, "--ready-port", "0", "--workers", "1"])
    agent = None
    try:
        until("the other proxy", lambda: (other / "proxy-admin.sock").exists(), timeout_s=20)
        agent = lab.node.popen([*headgate(), "agent", *where, "--pods-file", str(lab.pods_file)])
        refused = lambda: "refused" in why(lab, "client", run_dir=other).step("proxy")["found"]  # noqa: E731
        until("its refusal", refused, timeout_s=20)
        step = why(lab, "client", run_dir=other).fails_at("proxy", "the proxy refused the pod", "15001")
    finally:
        for process in (agent, proxy):
            if process is not None:
                process.kill()
                process.wait()
    assert "another headgate's" in step["remedy"]


# ── While no agent runs ────────────────────────────────────────────────────────────────────────────────────────────
def test_agent_is_not_running(agentless: Lab) -> None:
    said = why(agentless, "untouched")
    said.fails_at("agent", f"no agent at {agentless.paths.run}/admin.sock", "who made it has ended")
    assert "serves the pod" in said.step("proxy")["found"]
    assert "give --netns PATH" in said.step("netns")["found"]


def test_table_is_deleted_while_no_agent_runs(agentless: Lab) -> None:
    _sabotaged(agentless, "table-deleted", "the rules that lead to the proxy are gone")


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_way_back_is_taken_away_while_no_agent_runs(agentless: Lab, family: str) -> None:
    _sabotaged(agentless, f"ip-rule-gone-{family}", "the rule of the way back is gone (ip")


def test_everything_is_flushed_while_no_agent_runs(agentless: Lab) -> None:
    _sabotaged(agentless, "ruleset-flushed", "the rules that lead to the proxy are gone")


def test_rule_of_somebody_else_in_our_chain_lets_everything_out(agentless: Lab) -> None:
    _sabotaged(agentless, "foreign-rule-inserted", "is not led to port 15001", "nat-output")


def _sabotaged(lab: Lab, name: str, *found: str) -> None:
    (done,) = [one for one in sabotage.ALL if one.name == name]
    pod = lab.pod(name)
    done.do(pod.netns)
    said = why(lab, name, "--netns", str(pod.netns_path))
    said.fails_at("agent")
    said.also_fails("rules", *found)
