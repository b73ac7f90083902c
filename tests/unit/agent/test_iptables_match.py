"""Matches of a plan, as the tests of iptables rules."""

from ipaddress import ip_network

import pytest

from agent.plan import InvalidPlan
from agent.plan.ranges import Ranges
from agent.plan.render.iptables_match import chunks, ways
from agent.plan.rules import (
    AllOf,
    AtPorts,
    Direction,
    InNetworks,
    IPFamily,
    Marked,
    Match,
    NotOwnedBy,
    OfFamily,
    OfProtocol,
    OnInterfaces,
    Opening,
    OverLoopback,
    OwnedBy,
    Owner,
    Protocol,
    Side,
)

TCP, UDP = frozenset({Protocol.TCP}), frozenset({Protocol.UDP})
EVERY_SECOND = Ranges.of(*range(1, 41, 2))


def texts(match: Match | None, direction: Direction = Direction.OUTBOUND) -> list[str]:
    return [way.text(direction) for way in ways(match)]


def networks(*names: str, side: Side = Side.DESTINATION) -> InNetworks:
    return InNetworks(tuple(map(ip_network, names)), side)


def test_no_match_is_one_rule_without_tests() -> None:
    assert texts(None) == [""]


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (Ranges.of(80), ["80"]),
        (Ranges.of((3000, 3005)), ["3000:3005"]),
        (Ranges(), []),
        (Ranges.of(*range(1, 31, 2)), [",".join(map(str, range(1, 31, 2)))]),
        (EVERY_SECOND, [",".join(map(str, range(1, 31, 2))), "31,33,35,37,39"]),
        # A range takes two of the fifteen places, and is never parted.
        (Ranges.of(*range(1, 29, 2), (40, 50), 60), ["1,3,5,7,9,11,13,15,17,19,21,23,25,27", "40:50,60"]),
    ],
)
def test_b10_multiport_takes_fifteen(ports: Ranges, expected: list[str]) -> None:
    assert chunks(ports) == expected


def test_ports_of_both_protocols_are_two_rules() -> None:
    assert texts(AtPorts(Ranges.of(53), Side.DESTINATION, TCP | UDP)) == [
        "-p tcp -m tcp --dport 53",
        "-p udp -m udp --dport 53",
    ]


def test_ports_on_the_side_they_are_on() -> None:
    assert texts(AtPorts(Ranges.of(1, 5), Side.SOURCE)) == ["-p tcp -m multiport --sports 1,5"]


def test_each_with_each() -> None:
    both = AllOf((networks("10.1.0.0/16", "10.2.0.0/16"), OwnedBy(Owner.USER, Ranges.of(7, (20, 29)))))
    assert texts(both) == [
        "-d 10.1.0.0/16 -m owner --uid-owner 7-7",
        "-d 10.1.0.0/16 -m owner --uid-owner 20-29",
        "-d 10.2.0.0/16 -m owner --uid-owner 7-7",
        "-d 10.2.0.0/16 -m owner --uid-owner 20-29",
    ]


def test_nobody_of_a_set_is_one_rule_and_needs_a_socket() -> None:
    assert texts(NotOwnedBy(Owner.GROUP, Ranges.of(7, (20, 29)))) == [
        "-m owner --socket-exists -m owner ! --gid-owner 7-7 -m owner ! --gid-owner 20-29"
    ]


@pytest.mark.parametrize(
    "never",
    [
        AllOf((networks("10.0.0.0/8"), OfFamily(IPFamily.IPV6))),
        AllOf((OfProtocol(Protocol.UDP), Opening())),
        AllOf((AtPorts(Ranges.of(1), Side.SOURCE, TCP), AtPorts(Ranges.of(2), Side.DESTINATION, UDP))),
        AllOf((networks("10.0.0.0/8"), networks("192.168.0.0/16"))),
        AllOf((networks("10.0.0.0/8"), networks("fd00::/8", side=Side.SOURCE))),
        AllOf((OverLoopback(), OnInterfaces(("eth0", "net+")))),
        AllOf((OnInterfaces(("br+",)), OnInterfaces(("b0",)))),
    ],
)
def test_what_can_never_be_is_no_rule(never: Match) -> None:
    assert texts(never) == []


def test_two_networks_of_one_side_become_the_narrower() -> None:
    assert texts(AllOf((networks("10.0.0.0/8", "192.168.0.0/16"), networks("10.1.0.0/16")))) == ["-d 10.1.0.0/16"]
    assert texts(AllOf((networks("0.0.0.0/0"), networks("10.1.0.0/16", side=Side.SOURCE)))) == ["-s 10.1.0.0/16"]


def test_two_interfaces_become_the_more_certain() -> None:
    assert texts(AllOf((OnInterfaces(("br+",)), OnInterfaces(("br0", "bridge+"))))) == ["-o br0", "-o bridge+"]
    assert texts(AllOf((OnInterfaces(("br0",)), OnInterfaces(("br+",)))), Direction.INBOUND) == ["-i br0"]


def test_all_of_a_family_is_its_family_alone() -> None:
    (way,) = ways(networks("::/0"))
    assert (way.family, way.text(Direction.OUTBOUND)) == (IPFamily.IPV6, "")


def test_marks_under_their_mask() -> None:
    assert texts(Marked(0x539, 0xFFF)) == ["-m mark --mark 0x539/0xfff"]


@pytest.mark.parametrize(
    "name",
    [
        "eth0; drop",
        "eth0\n-A OUTPUT -j ACCEPT",
        '"',
        "",
        "-j",
        "eth0 -j ACCEPT",
        "!eth0",
        "+",
        "a" * 16,
        "a" * 15 + "+",
        "ethé",
    ],
)
def test_no_word_of_a_name_reaches_a_rule(name: str) -> None:
    with pytest.raises(InvalidPlan, match="is no interface name"):
        ways(OnInterfaces((name,)))
