"""agent.plan.render.nft_match: each match as nft takes it. That the kernel takes it, tests/netns/kernel says."""

from ipaddress import ip_network

import pytest

from agent.plan.ranges import Ranges
from agent.plan.render.nft_match import matched
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
    OverLoopback,
    OwnedBy,
    Owner,
    Protocol,
    Side,
)

OUT, IN = Direction.OUTBOUND, Direction.INBOUND
BOTH = frozenset(Protocol)


@pytest.mark.parametrize(
    ("match", "direction", "text"),
    [
        (OverLoopback(), OUT, 'oifname "lo"'),
        (OverLoopback(), IN, 'iifname "lo"'),
        (OnInterfaces(("net1",)), IN, 'iifname "net1"'),
        (OnInterfaces(("br+", "net1")), OUT, 'oifname { "br*", "net1" }'),
        (InNetworks((ip_network("10.0.0.0/8"),), Side.DESTINATION), OUT, "ip daddr 10.0.0.0/8"),
        (InNetworks((ip_network("fd00::1/128"),), Side.SOURCE), IN, "ip6 saddr fd00::1"),
        (
            InNetworks((ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32")), Side.SOURCE),
            IN,
            "ip saddr { 10.0.0.0/8, 192.0.2.1 }",
        ),
        (InNetworks((ip_network("0.0.0.0/0"),), Side.DESTINATION), OUT, "meta nfproto ipv4"),
        (InNetworks((ip_network("::/0"),), Side.DESTINATION), OUT, "meta nfproto ipv6"),
        (AtPorts(Ranges.of(80), Side.DESTINATION), OUT, "tcp dport 80"),
        (AtPorts(Ranges.of((3000, 3005)), Side.SOURCE), OUT, "tcp sport 3000-3005"),
        (AtPorts(Ranges.of(80, (3000, 3005)), Side.DESTINATION), OUT, "tcp dport { 80, 3000-3005 }"),
        (AtPorts(Ranges.of(53), Side.DESTINATION, frozenset({Protocol.UDP})), OUT, "udp dport 53"),
        (AtPorts(Ranges.of(53, 80), Side.DESTINATION, BOTH), OUT, "meta l4proto { tcp, udp } th dport { 53, 80 }"),
        (OwnedBy(Owner.USER, Ranges.of(1337, (2000, 2010))), OUT, "meta skuid { 1337, 2000-2010 }"),
        (OwnedBy(Owner.GROUP, Ranges.of(7)), OUT, "meta skgid 7"),
        (NotOwnedBy(Owner.GROUP, Ranges.of(1, (5, 7))), OUT, "meta skgid != { 1, 5-7 }"),
        (NotOwnedBy(Owner.USER, Ranges.of((5, 7))), OUT, "meta skuid != 5-7"),
        (OfFamily(IPFamily.IPV6), IN, "meta nfproto ipv6"),
        (OfProtocol(Protocol.UDP), IN, "meta l4proto udp"),
        (
            AllOf((OverLoopback(), Marked(0x539, 0xFFF), AtPorts(Ranges.of(80), Side.DESTINATION))),
            OUT,
            'oifname "lo" meta mark & 0xfff == 0x539 tcp dport 80',
        ),
    ],
)
def test_a_match_is_written(match: Match, direction: Direction, text: str) -> None:
    assert matched(match, direction) == text
