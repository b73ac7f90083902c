"""The address that an outbound proof dials."""

from ipaddress import IPv4Address, IPv6Address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.on_link import unused_on_link

SEEDS = st.integers(0, 2**128 - 1)


@given(st.ip_addresses(v=4), st.integers(8, 30), SEEDS)
def test_ipv4_is_in_the_subnet_and_nobodys_own(address: IPv4Address, prefix: int, seed: int) -> None:
    network = ip_interface(f"{address}/{prefix}").network
    target = unused_on_link(address, prefix, [address], seed)
    assert target in network
    assert target not in (address, network.network_address, network.broadcast_address)


@given(st.ip_addresses(v=6), st.integers(16, 126), SEEDS)
def test_ipv6_is_in_the_subnet_and_nobodys_own(address: IPv6Address, prefix: int, seed: int) -> None:
    network = ip_interface(f"{address}/{prefix}").network
    target = unused_on_link(address, prefix, [address], seed)
    assert target in network
    assert target not in (address, network.network_address)


@pytest.mark.parametrize("address", ["10.0.0.5/31", "10.0.0.5/32", "fd00::5/127", "fd00::5/128"])
def test_subnet_without_room_gives_none(address: str) -> None:
    interface = ip_interface(address)
    assert unused_on_link(interface.ip, interface.network.prefixlen, [interface.ip], 7) is None


def test_full_subnet_gives_none() -> None:
    own = [IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")]
    assert unused_on_link(own[0], 30, own, 7) is None
