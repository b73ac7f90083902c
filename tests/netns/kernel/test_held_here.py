"""Rules compared where they are, for who may make no other namespace: a dormant copy, listed and taken away."""

from collections.abc import Callable

import pytest

from agent.kernel import backends, held_here, nft
from agent.kernel.backends import Backend
from agent.lab.namespaces import Netns
from agent.plan import PlanSettings, Steering, plan_of
from agent.plan.drift import Form
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners

SETTINGS = PlanSettings(owners=Owners(Ranges.of(1337)))
WANTED = Steering(exclude_outbound_ports=Ranges.of(5432, (6000, 6100)))
PLAN = plan_of(WANTED, SETTINGS)


@pytest.fixture
def steered(make_netns: Callable[[], Netns]) -> Netns:
    netns = make_netns()
    netns.call(backends.install, PLAN, SETTINGS, Backend.NFTABLES)
    return netns


def test_rules_in_force_do_not_differ_and_nothing_is_left_of_the_comparison(steered: Netns) -> None:
    before = steered.run(["nft", "--handle", "list", "ruleset"]).stdout
    assert steered.call(held_here.changes_here, PLAN) == ()
    assert steered.run(["nft", "--handle", "list", "ruleset"]).stdout == before


def test_nodes_and_drained_rules_too(make_netns: Callable[[], Netns]) -> None:
    netns, node = make_netns(), PlanSettings()
    plan = plan_of(Steering(), node)
    netns.call(backends.install, plan, node, Backend.NFTABLES)
    assert netns.call(held_here.changes_here, plan) == ()
    netns.call(backends.drain, plan, Backend.NFTABLES)
    assert netns.call(held_here.changes_here, plan, Form.DRAIN) == ()
    assert netns.call(held_here.changes_here, plan) != ()


@pytest.mark.parametrize(
    ("sabotage", "told"),
    [
        ("flush chain inet headgate nat-output", "nat-output"),
        ("insert rule inet headgate nat-output accept", "nat-output"),
        ("delete table inet headgate-anchor", "headgate-anchor"),
        ("delete chain inet headgate nat-output", "nat-output"),
        ("add table inet headgate { flags dormant; }", "dormant"),
        ("add chain inet headgate mine", "mine"),
    ],
)
def test_what_differs_is_told_as_from_a_namespace_apart(steered: Netns, sabotage: str, told: str) -> None:
    steered.run(["nft", sabotage])
    changes = steered.call(held_here.changes_here, PLAN)
    assert changes == steered.call(backends.changes, PLAN, Backend.NFTABLES)
    assert told in " ".join(changes)


def test_a_port_changed_within_a_set_is_told(steered: Netns) -> None:
    other = plan_of(Steering(exclude_outbound_ports=Ranges.of(5433, (6000, 6100))), SETTINGS)
    assert steered.call(held_here.changes_here, other) != ()


def test_the_way_back_is_compared_too(make_netns: Callable[[], Netns]) -> None:
    netns, node = make_netns(), PlanSettings()
    plan = plan_of(Steering(), node)
    netns.call(backends.install, plan, node, Backend.NFTABLES)
    netns.run(["ip", "-4", "rule", "del", "preference", "32764"])
    assert "rule" in " ".join(netns.call(held_here.changes_here, plan))


def test_what_a_killed_process_left_neither_counts_nor_stays(steered: Netns) -> None:
    """And meets no packet: its chains are no hooks."""
    script = held_here.install_script(PLAN, (), replace=False)
    steered.call(nft.apply, held_here._as_copies(script))
    assert steered.call(held_here.changes_here, PLAN) == ()
    assert set(steered.call(nft.tables)) == {"headgate", "headgate-anchor"}
