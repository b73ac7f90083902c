"""agent.kernel.probe_path in real namespaces: what a pod's routes make of answers to probes, and who answers a dial."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from agent.kernel import probe_path
from agent.kernel.probe_path import dial, way_back
from agent.lab.namespaces import Netns
from agent.plan import ProbeSettings
from agent.pods import IPAddress
from agent.pods.probe_path import Back

PROBES = ProbeSettings()
OWN4, OWN6 = ip_address("10.9.0.5"), ip_address("fd09::5")
MakeNetns = Callable[[], Netns]


@pytest.fixture
def pod(make_netns: MakeNetns) -> Netns:
    """Two interfaces, no default route; strict filtering on the first, on which its addresses are."""
    netns = make_netns()
    for name in ("eth0", "net1"):
        netns.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer"])
        netns.write_sysctl(f"net/ipv6/conf/{name}/accept_dad", "0")
        for end in (name, f"{name}-peer"):
            netns.run(["ip", "link", "set", end, "up"])
    netns.write_sysctl("net/ipv4/conf/eth0/rp_filter", "1")
    for address in (f"{OWN4}/24", f"{OWN6}/64"):
        netns.run(["ip", "addr", "add", address, "dev", "eth0"])
    return netns


def ways(pod: Netns) -> tuple[Back, Back]:
    return pod.call(way_back, OWN4, PROBES.source4), pod.call(way_back, OWN6, PROBES.source6)


def test_without_a_default_route_an_answer_has_no_way_back(pod: Netns) -> None:
    assert ways(pod) == (Back.NO_ROUTE, Back.NO_ROUTE)


def test_by_its_own_interface_it_has(pod: Netns) -> None:
    for family in ("-4", "-6"):
        pod.run(["ip", family, "route", "add", "default", "dev", "eth0"])
    assert ways(pod) == (Back.ROUTED, Back.ROUTED)


def test_by_another_interface_strict_filtering_drops_what_arrives(pod: Netns) -> None:
    pod.run(["ip", "-4", "route", "add", "default", "dev", "net1"])
    assert ways(pod) == (Back.FILTERED, Back.NO_ROUTE)
    pod.write_sysctl("net/ipv4/conf/eth0/rp_filter", "2")
    assert ways(pod)[0] is Back.ROUTED


def test_a_blackhole_is_no_way_back(pod: Netns) -> None:
    pod.run(["ip", "-4", "route", "add", "blackhole", "169.254.0.0/16"])
    assert ways(pod)[0] is Back.NO_ROUTE


def test_who_refuses_or_accepts_answers_and_who_is_silent_does_not(make_netns: MakeNetns) -> None:
    node = make_netns()
    loopback: IPAddress = ip_address("127.0.0.1")
    silent, unreachable, loopback6 = ip_address("127.0.0.2"), ip_address("192.0.2.1"), ip_address("::1")
    node.run(
        ["nft", "-f", "-"],
        stdin=f"table ip t {{ chain c {{ type filter hook input priority 0\nip daddr {silent} drop\n}}\n}}\n",
    )

    async def answers(port: int) -> frozenset[IPAddress]:
        dialled = node.call(dial, (loopback, silent, unreachable, loopback6), port)
        try:
            return await dialled.answers(0.3)
        finally:
            dialled.close()

    with node.listen(loopback, probe_path.UNUSED_PORT):
        assert asyncio.run(answers(probe_path.UNUSED_PORT)) == {loopback, loopback6}
    assert asyncio.run(answers(probe_path.UNUSED_PORT)) == {loopback, loopback6}
