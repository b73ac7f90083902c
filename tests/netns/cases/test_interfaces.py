"""Packet-path cases of a pod with more than one interface: one left alone, or one that stands for a guest."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network

import pytest

from agent.lab import namespaces
from agent.lab.namespaces import Netns
from agent.plan.steering import DnsCapture, Steering, VirtualInterface
from proxy.api.constants import DNS_PORT
from tests.netns.cases.conftest import Place
from tests.netns.cases.wire import (
    TIMEOUT_S,
    V4,
    Family,
    assert_direct,
    dial,
    is_untouched,
    listen,
    own,
)


@dataclass(frozen=True, slots=True)
class Link:
    """A second network: the pod's address on it, and the other side's."""

    inside: str
    outside: str
    prefix: int

    @property
    def network(self) -> str:
        return f"{self.inside}/{self.prefix}"


LINKS = {4: Link("192.168.77.1", "192.168.77.2", 24), 6: Link("fd78::1", "fd78::2", 64)}


@contextmanager
def _joined(place: Place, family: Family, name: str, other: Netns) -> Iterator[Link]:
    """A veth pair between pod and `other`, called `name` in the pod and `far0` there."""
    link = LINKS[family.version]
    pod = place.pod.netns
    pod.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "far0", "netns", other.name])
    try:
        flags = [] if family is V4 else ["nodad"]
        for netns, device, address in ((pod, name, link.inside), (other, "far0", link.outside)):
            netns.run(["ip", "addr", "add", f"{address}/{link.prefix}", "dev", device, *flags])
            netns.run(["ip", "link", "set", device, "up"])
        yield link
    finally:
        pod.run(["ip", "link", "del", name])


@pytest.fixture
def guest() -> Iterator[Netns]:
    """What a virtual machine behind the pod's interface would be."""
    netns = namespaces.create(f"hg-guest{os.getpid()}")
    try:
        netns.run(["ip", "link", "set", "lo", "up"])
        yield netns
    finally:
        namespaces.delete(netns)


@pytest.mark.parametrize("excluded", ["net1", "net+"])
def test_b15_an_excluded_interface_is_left_alone_in_both_directions(
    place: Place, family: Family, excluded: str
) -> None:
    with (
        _joined(place, family, "net1", place.peer.netns) as link,
        place.steered(Steering(exclude_interfaces=(excluded,)), family) as steered,
    ):
        pod, peer = steered.pod.netns, steered.peer.netns
        with listen(peer, link.outside, 80) as server:
            assert_direct(pod, link.outside, 80, server, source=link.inside)
        with listen(pod, link.inside, 8080) as application:
            assert_direct(peer, link.inside, 8080, application, source=link.outside)
        steered.assert_nothing_captured()
        target = (steered.peer_address, 80)
        with dial(pod, *target) as client:
            steered.assert_captured(client, target)


@contextmanager
def _routing(place: Place, family: Family, guest: Netns, link: Link) -> Iterator[None]:
    """The guest sends everything through the pod, which forwards."""
    guest.run(["ip", f"-{family.version}", "route", "add", "default", "via", link.inside])
    key = "net/ipv4/ip_forward" if family is V4 else "net/ipv6/conf/all/forwarding"
    place.pod.netns.write_sysctl(key, "1")
    try:
        yield
    finally:
        place.pod.netns.write_sysctl(key, "0")


@pytest.mark.parametrize("name", ["vnet0", "vnet+"])
def test_b16_what_a_guest_sends_is_outbound(place: Place, family: Family, guest: Netns, name: str) -> None:
    with (
        _joined(place, family, "vnet0", guest) as link,
        _routing(place, family, guest, link),
        place.steered(Steering(virtual_interfaces=(VirtualInterface(name),)), family) as steered,
    ):
        target = (steered.peer_address, 80)
        with dial(guest, *target) as client:
            assert own(client)[0] == link.outside
            steered.assert_captured(client, target)
        inbound = (steered.pod_address, 8080)
        with dial(steered.peer.netns, *inbound) as client:
            steered.assert_captured_inbound(client, inbound)


def test_b16_except_into_the_interface_s_own_networks(place: Place, family: Family, guest: Netns) -> None:
    own_network = ip_network(LINKS[family.version].network, strict=False)
    steering = Steering(virtual_interfaces=(VirtualInterface("vnet0", (own_network,)),))
    with (
        _joined(place, family, "vnet0", guest) as link,
        place.steered(steering, family) as steered,
        listen(steered.pod.netns, link.inside, 8080) as application,
    ):
        assert_direct(guest, link.inside, 8080, application, source=link.outside)
        steered.assert_nothing_captured()


def test_b16_a_guests_dns_query_goes_to_the_dns_listener(place: Place, family: Family, guest: Netns) -> None:
    steering = Steering(virtual_interfaces=(VirtualInterface("vnet0"),), dns=DnsCapture())
    resolver = (family.vip, 53)
    with (
        _joined(place, family, "vnet0", guest) as link,
        _routing(place, family, guest, link),
        place.steered(steering, family) as steered,
        steered.pod.netns.open_socket(family.number, socket.SOCK_DGRAM) as dns,
        guest.open_socket(family.number, socket.SOCK_DGRAM) as client,
    ):
        for sock in (dns, client):
            sock.settimeout(TIMEOUT_S)
        dns.bind((link.inside, DNS_PORT))  # where a redirect of what arrives leads: the interface's own address
        client.sendto(b"question", resolver)
        heard, asker = dns.recvfrom(2048)
        assert (heard, asker[0]) == (b"question", link.outside)
        dns.sendto(b"answer", asker)
        heard, answerer = client.recvfrom(2048)
        assert (heard, answerer[:2]) == (b"answer", resolver)
        assert is_untouched(steered.outbound)
