"""agent.plan.contradictions: what cannot be meant is refused by name, and nothing else is."""

from ipaddress import ip_network

import pytest

from agent.plan import InvalidPlan, PlanSettings, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import DnsCapture, Included, OwnerPorts, VirtualInterface

HOSTILE = (
    "",
    "eth0; reboot",
    'eth0" accept',
    "eth0\n",
    "eth0\ncommit",
    "$(id)",
    "`id`",
    "a b",
    "*",
    "eth*",
    "+",
    "e+h0",
    "-j",
    "--help",
    "@{x}",
    "ünï",
    "eth0\0",
    "eth0:1",
    "a" * 16,
    "a" * 15 + "+",
)


def refused(wanted: Steering) -> InvalidPlan:
    with pytest.raises(InvalidPlan) as found:
        plan_of(wanted, PlanSettings())
    return found.value


@pytest.mark.parametrize("name", HOSTILE)
def test_no_interface_name_reaches_a_rule_that_is_more_than_a_name(name: str) -> None:
    for field, wanted in (
        ("exclude_interfaces", Steering(exclude_interfaces=(name,))),
        ("virtual_interfaces", Steering(virtual_interfaces=(VirtualInterface(name),))),
    ):
        error = refused(wanted)
        assert error.field == field
        assert "no interface name" in error.reason and "\n" not in error.reason


@pytest.mark.parametrize(
    "name", ["eth0", "net1", "br+", "a" * 15, "a" * 14 + "+", "eth0.100", "veth1@if2", "k6t-x", "_x"]
)
def test_a_plain_name_is_taken(name: str) -> None:
    assert plan_of(Steering(exclude_interfaces=(name,)), PlanSettings())


@pytest.mark.parametrize("name", ["lo", "l+", "lo+"])
def test_lo_is_neither_excluded_nor_virtual(name: str) -> None:
    assert "lo" in refused(Steering(exclude_interfaces=(name,))).reason
    assert "lo" in refused(Steering(virtual_interfaces=(VirtualInterface(name),))).reason


@pytest.mark.parametrize(("excluded", "virtual"), [("br0", "br0"), ("br+", "br0"), ("b+", "br+")])
def test_an_interface_is_not_excluded_and_virtual(excluded: str, virtual: str) -> None:
    error = refused(Steering(exclude_interfaces=(excluded,), virtual_interfaces=(VirtualInterface(virtual),)))
    assert error.field == "virtual_interfaces, exclude_interfaces"
    assert virtual in error.reason and excluded in error.reason


def test_the_same_port_is_not_included_and_excluded() -> None:
    inbound = refused(
        Steering(include_inbound_ports=Ranges.of(80, 8080), exclude_inbound_ports=Ranges.of((8000, 9000)))
    )
    assert inbound.field == "include_inbound_ports, exclude_inbound_ports" and "8080" in inbound.reason
    included = Included(Ranges.of((80, 81)))
    outbound = refused(Steering(include_outbound=included, exclude_outbound_ports=Ranges.of((80, 81))))
    assert outbound.field == "include_outbound, exclude_outbound_ports" and "80-81" in outbound.reason


def test_a_port_taken_out_of_a_range_is_no_contradiction() -> None:
    wanted = Steering(include_inbound_ports=Ranges.of((8000, 9000)), exclude_inbound_ports=Ranges.of(8080))
    assert plan_of(wanted, PlanSettings())


def test_b12_a_network_within_an_included_one_may_be_excluded() -> None:
    included = Included(networks=(ip_network("10.0.0.0/8"),))
    wanted = Steering(include_outbound=included, exclude_outbound_networks=(ip_network("10.1.0.0/16"),))
    assert plan_of(wanted, PlanSettings())


@pytest.mark.parametrize("port", [15001, 15006])
def test_a_listener_of_the_proxy_is_neither_included_nor_excluded_inbound(port: int) -> None:
    for wanted in (
        Steering(include_inbound_ports=Ranges.of(port)),
        Steering(exclude_inbound_ports=Ranges.of(80, port)),
    ):
        assert str(port) in refused(wanted).reason


def test_the_tunnel_may_be_excluded_which_it_is_and_not_included() -> None:
    assert "15008" in refused(Steering(include_inbound_ports=Ranges.of(15008))).reason
    assert plan_of(Steering(exclude_inbound_ports=Ranges.of(15008)), PlanSettings())


def test_ports_of_other_pods_proxies_and_ranges_with_ours_in_them_are_nobodys_mistake() -> None:
    wanted = Steering(exclude_outbound_ports=Ranges.of(15001), exclude_inbound_ports=Ranges.of((10000, 20000)))
    assert plan_of(wanted, PlanSettings())


def test_b14_groups_included_and_excluded() -> None:
    error = refused(Steering(include_gids=Ranges.of(7), exclude_gids=Ranges.of((8, 9))))
    assert error.field == "include_gids, exclude_gids" and "7" in error.reason and "8-9" in error.reason


def test_no_group_included() -> None:
    error = refused(Steering(include_gids=Ranges()))
    assert error.field == "include_gids" and "nothing would be steered" in error.reason


@pytest.mark.parametrize(
    ("wanted", "field", "shown"),
    [
        (Steering(exclude_inbound_ports=Ranges.of(0)), "exclude_inbound_ports", "0"),
        (Steering(include_inbound_ports=Ranges.of((65000, 70000))), "include_inbound_ports", "65000-70000"),
        (Steering(exclude_outbound_ports=Ranges.of(65536)), "exclude_outbound_ports", "65536"),
        (Steering(include_outbound=Included(Ranges.of(0))), "include_outbound", "0"),
        (Steering(exclude_uids=Ranges.of(0xFFFFFFFF)), "exclude_uids", "4294967295"),
        (Steering(exclude_gids=Ranges.of(-1)), "exclude_gids", "-1"),
        (Steering(include_gids=Ranges.of(1 << 32)), "include_gids", "4294967296"),
        (
            Steering(exclude_owner_ports=(OwnerPorts(frozenset(Protocol), Ranges.of(0), Ranges.of(1)),)),
            "exclude_owner_ports",
            "0",
        ),
        (
            Steering(exclude_owner_ports=(OwnerPorts(frozenset(Protocol), Ranges.of(1), Ranges.of(1 << 32)),)),
            "exclude_owner_ports",
            "4294967296",
        ),
        (Steering(dns=DnsCapture(servers=())), "dns", "no server"),
        (Steering(families=()), "families", "neither"),
    ],
)
def test_what_no_rule_can_hold(wanted: Steering, field: str, shown: str) -> None:
    error = refused(wanted)
    assert error.field == field and shown in error.reason


@pytest.mark.parametrize(
    "pair",
    [
        OwnerPorts(frozenset(Protocol), Ranges(), Ranges.of(1)),
        OwnerPorts(frozenset(Protocol), Ranges.of(1), Ranges()),
        OwnerPorts(frozenset(), Ranges.of(1), Ranges.of(1)),
    ],
)
def test_an_exclusion_of_nobodys_or_to_nowhere_is_a_slip(pair: OwnerPorts) -> None:
    assert refused(Steering(exclude_owner_ports=(pair,))).field == "exclude_owner_ports"
