"""agent.plan.words: what people write, strictly read; what is wrong is shown, printable and short."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from agent.plan.ranges import Ranges
from agent.plan.rules import IPFamily, Protocol
from agent.plan.steering import OwnerPorts, UdpPolicy, VirtualInterface
from agent.plan.words import (
    EVERY_PORT,
    ID_MAX,
    parse_addresses,
    parse_flag,
    parse_ids,
    parse_interface,
    parse_interfaces,
    parse_networks,
    parse_owner_ports,
    parse_owner_ports_list,
    parse_port,
    parse_ports,
    parse_udp,
    parse_virtual_interface,
    parse_virtual_interfaces,
)

TCP, UDP = frozenset({Protocol.TCP}), frozenset({Protocol.UDP})


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("", ()),
        ("  ", ()),
        ("80", ((80, 80),)),
        (" 443 , 80 ", ((80, 80), (443, 443))),
        ("3000-3005", ((3000, 3005),)),
        ("3000:3005", ((3000, 3005),)),
        ("1-65535", ((1, 65535),)),
        ("80,80-90,85-100", ((80, 100),)),
        ("0080", ((80, 80),)),
    ],
)
def test_ports_and_ranges(text: str, spans: tuple[tuple[int, int], ...]) -> None:
    assert parse_ports(text) == Ranges(spans)


@pytest.mark.parametrize(
    ("read", "text", "reason"),
    [
        (parse_ports, "0", "'0' is no port: use 1 to 65535"),
        (parse_ports, "70000", "'70000' is no port: use 1 to 65535"),
        (parse_ports, "80,1-70000", "'1-70000' is no port: use 1 to 65535"),
        (parse_ports, "10-5", "'10-5' ends before it begins: write 5-10"),
        (parse_ports, "http", "'http' is no port and no range of ports: write 80 or 3000-3005"),
        (parse_ports, "-80", "'-80' is no port and no range"),
        (parse_ports, "80.0", "'80.0' is no port and no range"),
        (parse_ports, "٨٠", "is no port and no range"),
        (parse_ports, "80,", "'80,' has an empty item: take the spare comma out"),
        (parse_ports, "99999999999", "is no port and no range"),
        (parse_port, "80,81", "'80,81' is not one port"),
        (parse_port, "", "'' is not one port"),
        (parse_ids, "4294967295", "'4294967295' is no id: use 0 to 4294967294"),
        (parse_ids, "envoy", "'envoy' is no id and no range of ids"),
        (parse_networks, "10.0.0.0/33", "'10.0.0.0/33' is no address and no CIDR"),
        (parse_networks, "10.0.0", "'10.0.0' is no address and no CIDR"),
        (parse_networks, "10.0.0.0/255.0.0.0", "is no address and no CIDR"),
        (parse_networks, "10.0.0.0/-8", "is no address and no CIDR"),
        (parse_networks, "fe80::%eth0/64", "is no address and no CIDR"),
        (parse_networks, "::ffff:10.0.0.0/104", "never is on the wire"),
        (parse_addresses, "10.0.0.0/8", "'10.0.0.0/8' is no address"),
        (parse_addresses, "fe80::1%eth0", "is no address"),
        (parse_interface, "", "'' is no interface name"),
        (parse_interface, "eth0; rm -rf /", "is no interface name"),
        (parse_interface, '"eth0"', "is no interface name"),
        (parse_interface, "$(id)", "is no interface name"),
        (parse_interface, "eth0 accept", "is no interface name"),
        (parse_interface, "-eth0", "is no interface name"),
        (parse_interface, "+", "is no interface name"),
        (parse_interface, "e+h0", "is no interface name"),
        (parse_interface, "..", "is no interface name"),
        (parse_interface, "a/b", "is no interface name"),
        (parse_interface, "eth0:1", "is no interface name"),
        (parse_interface, "é0", "is no interface name"),
        (parse_interface, "sixteencharslong", "is no interface name"),
        (parse_virtual_interface, "br0:", "'br0:' lacks what its colon promises"),
        (parse_virtual_interface, "br0:10.0.0.0/40", "is no address and no CIDR"),
        (parse_owner_ports, "a:b:c:d", "has too many parts"),
        (parse_owner_ports, "icmp:1:1", "'icmp' is no protocol"),
        (parse_owner_ports, "tcp:80:*", "names no user"),
        (parse_owner_ports, "80:", "names no user"),
        (parse_owner_ports, "tcp:0:1", "'0' is no port"),
        (parse_flag, "maybe", "'maybe' is neither true nor false"),
        (parse_udp, "deny-444", "is no UDP policy: use allow, deny-443, deny"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(read: Callable[[str], Any], text: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        read(text)
    assert reason in str(refused.value)


def test_a_value_is_shown_printable_and_short() -> None:
    with pytest.raises(ValueError) as refused:
        parse_ports("\x1b[31m" + "9" * 5000)
    told = str(refused.value)
    assert "\x1b" not in told and "\\x1b[31m999" in told and len(told) < 200


def test_networks_are_sorted_collapsed_and_masked() -> None:
    read = parse_networks("fd00::/8, 10.1.2.3/16,10.1.0.0/17,192.0.2.7,10.0.0.0/16")
    assert read == tuple(map(ip_network, ("10.0.0.0/15", "192.0.2.7/32", "fd00::/8")))


@pytest.mark.parametrize(("family", "other"), [(IPFamily.IPV4, "fd00::/8"), (IPFamily.IPV6, "10.0.0.0/8")])
def test_where_only_one_family_fits_the_other_is_refused(family: IPFamily, other: str) -> None:
    with pytest.raises(ValueError, match=f"'{other}' is no {'IPv4' if family is IPFamily.IPV4 else 'IPv6'} network"):
        parse_networks(other, family)


def test_addresses_in_their_order_each_once() -> None:
    assert parse_addresses("10.96.0.10,fd00::10,10.96.0.10") == (ip_address("10.96.0.10"), ip_address("fd00::10"))


def test_interfaces_with_a_plus_for_all_that_begin_so() -> None:
    assert parse_interfaces("net1, br+ ,veth_a.1@x-2,net1") == ("net1", "br+", "veth_a.1@x-2")


def test_virtual_interfaces_with_their_networks() -> None:
    read = parse_virtual_interfaces("br+:172.17.0.0/16,net1,br+:fd17::/16")
    assert read == (
        VirtualInterface("br+", (ip_network("172.17.0.0/16"), ip_network("fd17::/16"))),
        VirtualInterface("net1"),
    )


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("tcp:53,3000-3005:2000-2010", OwnerPorts(TCP, Ranges.of(53, (3000, 3005)), Ranges.of((2000, 2010)))),
        ("udp:53:1001", OwnerPorts(UDP, Ranges.of(53), Ranges.of(1001))),
        ("tcp,udp:53:0", OwnerPorts(TCP | UDP, Ranges.of(53), Ranges.of(0))),
        ("80:1002", OwnerPorts(TCP | UDP, Ranges.of(80), Ranges.of(1002))),
        ("*:*:1003", OwnerPorts(TCP | UDP, EVERY_PORT, Ranges.of(1003))),
        ("1003", OwnerPorts(TCP | UDP, EVERY_PORT, Ranges.of(1003))),
    ],
)
def test_owner_ports_as_kumactl_writes_them(text: str, read: OwnerPorts) -> None:
    assert parse_owner_ports(text) == read


def test_several_owner_ports_between_semicolons() -> None:
    assert parse_owner_ports_list(" 1 ; tcp:22:2") == (parse_owner_ports("1"), parse_owner_ports("tcp:22:2"))
    assert parse_owner_ports_list("") == ()


def test_flags_and_policies() -> None:
    assert [parse_flag(text) for text in ("true", "T", "1", "enabled", "Yes")] == [True] * 5
    assert [parse_flag(text) for text in ("FALSE", "f", "0", "disabled", "no")] == [False] * 5
    assert [parse_udp(text) for text in ("allow", "deny-443", " deny ")] == list(UdpPolicy)
    assert parse_ids(f"0,{ID_MAX}") == Ranges.of(0, ID_MAX)
