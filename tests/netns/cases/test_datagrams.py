"""UDP, which the mesh does not carry: left alone, or refused where the pod's owner wants it so."""

import select
import socket
from contextlib import ExitStack

import pytest

from agent.plan.steering import DnsCapture, Steering, UdpPolicy
from tests.netns.cases.conftest import Place, Steered
from tests.netns.cases.wire import TIMEOUT_S, Family

ASKED_PORTS = (53, 443, 444)
REFUSED = {UdpPolicy.ALLOW: (), UdpPolicy.DENY_443: (443,), UdpPolicy.DENY: (443, 444)}


def _is_answered(steered: Steered, port: int, *, inbound: bool, by_proxy: bool = False) -> bool:
    """False: refused at once, as by a host where nobody listens (ICMP port unreachable, RFC 1122 4.1.3.1)."""
    pod, peer = (steered.pod.netns, steered.pod_address), (steered.peer.netns, steered.peer_address)
    (asking, _), (asked, address) = (peer, pod) if inbound else (pod, peer)
    with ExitStack() as stack:
        server = stack.enter_context(asked.open_socket(steered.family.number, socket.SOCK_DGRAM))
        client = stack.enter_context(asking.open_socket(steered.family.number, socket.SOCK_DGRAM))
        for sock in (server, client):
            sock.settimeout(TIMEOUT_S)
        server.bind((address, port))
        client.connect((address, port))
        try:
            client.send(b"question")
            readable, _, _ = select.select([server, client], [], [], TIMEOUT_S)
            if server in readable:
                heard, asker = server.recvfrom(64)
                server.sendto(heard, asker)
            return client.recv(64) == b"question"
        except (ConnectionRefusedError, PermissionError):  # told by ICMP, or to the sender itself
            return False


@pytest.mark.parametrize("inbound", [False, True], ids=["outbound", "inbound"])
@pytest.mark.parametrize("policy", UdpPolicy, ids=lambda policy: policy.value)
def test_b18_udp_is_refused_as_far_as_the_policy_says(
    place: Place, family: Family, policy: UdpPolicy, inbound: bool
) -> None:
    with place.steered(Steering(udp=policy), family) as steered:
        answered = {port: _is_answered(steered, port, inbound=inbound) for port in ASKED_PORTS}
    assert answered == {port: port not in REFUSED[policy] for port in ASKED_PORTS}


def test_b33_denied_udp_leaves_dns_capture_alone(place: Place, family: Family) -> None:
    with place.steered(Steering(udp=UdpPolicy.DENY, dns=DnsCapture()), family) as steered:
        dns = steered.pod.netns.open_socket(family.number, socket.SOCK_DGRAM)
        client = steered.pod.netns.open_socket(family.number, socket.SOCK_DGRAM)
        with dns, client:
            for sock in (dns, client):
                sock.settimeout(TIMEOUT_S)
            dns.bind((family.loopback, 15053))
            client.sendto(b"question", (family.vip, 53))
            heard, asker = dns.recvfrom(64)
            dns.sendto(heard, asker)
            assert client.recvfrom(64)[0] == b"question"
