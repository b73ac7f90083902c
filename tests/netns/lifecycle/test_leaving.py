"""Leaving while everybody is talking: a pod by its label (B49), and the whole of headgate by `headgate uninstall`."""

from __future__ import annotations

import yaml

from agent.lab.load import Ends, Shape
from agent.lab.namespaces import Netns
from agent.manifests.documents import Choice, leaving
from tests.kube.manifests.rendered import documents
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import Kind, Traffic
from tests.netns.life import kernel
from tests.netns.lifecycle import web
from tests.netns.lifecycle.node import Node

KEPT = 16
LOADS = (Kind(KEPT, Shape(per_s=60, timeout_s=30)), Kind(100, Shape(Ends.CLIENT, per_s=60, timeout_s=30)))
FOREIGN = "add table inet bystander; add chain inet bystander c { type filter hook output priority 5; }"


def test_b49_a_pod_leaves_by_its_label_with_connections_live_and_loses_none(steered: Node, loss: Record) -> None:
    there = web.serve(steered)
    client = there.all[-1]
    with Traffic(steered.lab, LOADS, urls=web.direct(there.servers), pod=there.client, seconds=120) as traffic:
        steered.tell(client.pod, client.sandbox.addresses, {"headgate.io/mesh": "disabled"})
        steered.wait("the pod to be out of the mesh", lambda: steered.is_out("client"))
        steered.wait("its rules to be gone", lambda: kernel.rules(there.client.netns) == "")
        traffic.goes_on()
        verdict = traffic.end()
    loss("node-4-label-removed", verdict, note="one pod of three, under load")
    nothing_failed(verdict, traffic)
    assert verdict.cut == 0
    assert _of_ours(there.client.netns) == []


def test_uninstalled_under_load_nothing_of_ours_remains_and_all_of_others_is_as_it_was(
    steered: Node, loss: Record
) -> None:
    steered.end_all()
    steered.unchain()
    conflist = steered.runtime.conf_dir / "10-bridge.conflist"
    before = {path.name: path.read_bytes() for path in steered.runtime.conf_dir.iterdir()}
    programs = sorted(path.name for path in steered.runtime.bin_dir.iterdir())
    node = steered.lab.node
    node.run(["nft", FOREIGN])
    of_node = _others(_ruleset(node)), kernel.routing(node), node.run(["ip", "addr", "show", "lo"]).stdout
    steered.bring_up()
    there = web.serve(steered)
    there.client.run(["nft", FOREIGN])
    (found,) = yaml.safe_load_all(leaving(yaml.safe_dump_all(documents("base")), Choice()))
    with Traffic(steered.lab, LOADS, urls=web.direct(there.servers), pod=there.client, seconds=120) as traffic:
        (agent,) = steered.ours["agent"]
        steered.end("agent", agent)
        last = steered.start("agent", found["spec"]["template"]["spec"])
        steered.wait_ready("agent")
        steered.wait_proved("client", "web-1", "web-2")
        assert conflist.read_bytes() == before[conflist.name], "no pod waits for an agent any more"
        steered.end("agent", last)
        assert all(_of_ours(one.netns) == [] for one in (steered.place(pod) for pod in there.all))
        (proxy,) = steered.ours["proxy"]
        steered.end("proxy", proxy)
        traffic.goes_on()
        verdict = traffic.end()
    loss("node-5-uninstalled", verdict, note="three pods; agent, rules and proxy gone")
    nothing_failed(verdict, traffic)
    assert verdict.cut == 0
    assert {path.name: path.read_bytes() for path in steered.runtime.conf_dir.iterdir()} == before
    assert sorted(path.name for path in steered.runtime.bin_dir.iterdir()) == programs
    assert (_ruleset(node), kernel.routing(node), node.run(["ip", "addr", "show", "lo"]).stdout) == of_node
    assert list(steered.lab.run_directory.iterdir()) == []
    assert _ruleset(there.client.netns) == of_node[0], "others' rules stay"
    node.run(["nft", "delete", "table", "inet", "bystander"])


def _of_ours(netns: Netns) -> list[str]:
    """Whatever of ours a namespace can hold."""
    tables = [line for line in netns.run(["nft", "list", "tables"]).stdout.splitlines() if "headgate" in line]
    rules = [line for line in kernel.routing(netns).splitlines() if "lookup 100" in line or "table 100" in line]
    listening = [line for line in netns.run(["ss", "-Hltn"]).stdout.splitlines() if ":150" in line]
    return [*tables, *rules, *listening]


def _others(ruleset: str) -> str:
    """Without our table of the node, which an agent before this test has left: its rules stay when it ends."""
    ours, _, others = ruleset.partition("table inet bystander")
    assert "headgate" not in others and ("headgate" in ours or ours == "")
    return f"table inet bystander{others}"


def _ruleset(netns: Netns) -> str:
    return kernel.without_handles(kernel.rules(netns))
