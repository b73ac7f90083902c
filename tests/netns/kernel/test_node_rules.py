"""The node's rules for probes, in a namespace that stands for the node's: what becomes of them is put right."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.errors import CannotStart
from agent.kernel import nft, node_rules
from agent.kernel.netns import NetnsThreads
from agent.kernel.refused import KernelRefused
from agent.lab.namespaces import Netns
from agent.plan import ProbeSettings
from agent.plan.node_rules import TABLE, wanted_pods
from agent.pods import IPAddress
from agent.supervisor.node_table import NodeTable, open_node

PROBES = ProbeSettings()
PODS: Mapping[IPAddress, str] = {
    ip_address("10.0.0.1"): "u-1",
    ip_address("10.0.0.2"): "u-2",
    ip_address("fd00::1"): "u-1",
}
MakeNetns = Callable[[], Netns]


def put_right(pods: Mapping[IPAddress, str]) -> None:
    node_rules.put(PROBES, node_rules.read(PROBES), pods)


def listing(node: Netns) -> str:
    return node.run(["nft", "-s", "list", "ruleset"]).stdout


@pytest.mark.parametrize(
    "damage",
    [
        f"delete table inet {TABLE}",
        "flush ruleset",
        f"flush chain inet {TABLE} probes",
        f"flush chain inet {TABLE} spoofed",
        f"insert rule inet {TABLE} probes return",
        f"flush set inet {TABLE} pods4",
        f"delete element inet {TABLE} pods6 {{ fd00::1 }}",
        f"add element inet {TABLE} pods4 {{ 192.0.2.7 }}",
        f"add chain inet {TABLE} more",
        f"table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n"
        f"table inet {TABLE} {{\nset pods4 {{\ntype inet_service\nelements = {{ 80 }}\n}}\n}}",
        f"delete table inet {TABLE}\n"
        f"table inet {TABLE} {{\nset pods4 {{\ntype ipv4_addr; flags interval\nelements = {{ 10.0.0.0/8 }}\n}}\n}}",
    ],
)
def test_what_was_changed_is_as_it_was(make_netns: MakeNetns, damage: str) -> None:
    node = make_netns()
    node.call(put_right, PODS)
    whole = listing(node)
    node.run(["nft", "-f", "-"], stdin=f"{damage}\n")
    assert listing(node) != whole
    node.call(put_right, PODS)
    assert listing(node) == whole


def test_what_is_as_it_should_be_is_not_touched(make_netns: MakeNetns) -> None:
    node = make_netns()
    node.call(put_right, PODS)
    before = node.run(["nft", "-a", "list", "ruleset"]).stdout
    node.call(put_right, PODS)
    assert node.run(["nft", "-a", "list", "ruleset"]).stdout == before
    held = node.call(node_rules.read, PROBES)
    assert (held.there, held.whole, held.pods) == (True, True, PODS)


def test_pods_come_and_go_without_a_rule_being_made_anew(make_netns: MakeNetns) -> None:
    node = make_netns()
    node.call(put_right, PODS)
    chains = [
        line for line in node.run(["nft", "-a", "list", "table", "inet", TABLE]).stdout.splitlines() if "#" in line
    ]
    fewer = {address: tag for address, tag in PODS.items() if tag != "u-1"}
    other = {**fewer, ip_address("10.0.0.1"): "u-3"}
    for pods in (fewer, other, {}, PODS):
        node.call(put_right, pods)
        assert node.call(node_rules.read, PROBES).pods == pods
    after = [
        line for line in node.run(["nft", "-a", "list", "table", "inet", TABLE]).stdout.splitlines() if "#" in line
    ]
    assert after == chains


def test_another_address_of_probes_takes_the_former_one_s_place(make_netns: MakeNetns) -> None:
    node = make_netns()
    node.call(put_right, PODS)
    other = replace(PROBES, source4=ip_address("169.254.7.128"))
    held = node.call(node_rules.read, other)
    assert (held.whole, held.pods) == (False, PODS)
    node.call(node_rules.put, other, held, wanted_pods(held.pods, PODS, ()))
    assert "169.254.7.127" not in listing(node)


def test_a_change_that_somebody_else_was_quicker_with_is_refused_and_nothing_is_half_done(
    make_netns: MakeNetns,
) -> None:
    node = make_netns()
    node.call(put_right, PODS)
    held = node.call(node_rules.read, PROBES)
    node.run(["nft", "delete", "element", "inet", TABLE, "pods4", "{ 10.0.0.1 }"])
    before = listing(node)
    with pytest.raises(KernelRefused):
        node.call(node_rules.put, PROBES, held, {ip_address("10.0.0.9"): "u-9"})
    assert listing(node) == before


def test_removed_whole_and_only_ours(make_netns: MakeNetns) -> None:
    node = make_netns()
    assert node.call(node_rules.remove) is False
    assert node.call(nft.tables) == frozenset()
    node.run(["nft", "add", "table", "inet", "theirs"])
    node.call(put_right, PODS)
    assert node.call(node_rules.remove) is True
    assert node.call(nft.tables) == {"theirs"}


def test_the_agent_reaches_the_nodes_namespace_from_its_own(make_netns: MakeNetns) -> None:
    node = make_netns()
    threads = NetnsThreads(1)
    try:
        with open_node(node.path) as netns:
            table = NodeTable(PROBES, netns, threads)
            held, wanted = asyncio.run(table.put_right(PODS, frozenset()))
            assert (held.there, wanted) == (False, PODS)
            assert node.call(node_rules.read, PROBES).pods == PODS
            held, wanted = asyncio.run(table.put_right({}, frozenset({"u-2"})))
            assert (held.whole, wanted) == (True, {ip_address("10.0.0.2"): "u-2"})
            assert asyncio.run(table.remove()) is True
        assert listing(node) == ""
    finally:
        threads.close()


@pytest.mark.parametrize("path", ["/dev/null", "/run/netns/hg-none", "/proc/self/ns/mnt"])
def test_what_is_no_nodes_namespace_is_refused_by_name(path: str) -> None:
    with pytest.raises(CannotStart, match="--node-netns"):
        open_node(Path(path))


def test_250_pods_fit_into_one_transaction(make_netns: MakeNetns) -> None:
    node = make_netns()
    pods: dict[IPAddress, str] = {}
    for number in range(250):
        pods[ip_address("10.0.1.0") + number] = pods[ip_address("fd00::1:0") + number] = f"{number:036}"
    node.call(put_right, pods)
    assert node.call(node_rules.read, PROBES).pods == pods
