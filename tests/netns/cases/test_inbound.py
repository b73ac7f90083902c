"""Packet-path cases of what reaches a pod, under the plan's rules."""

import pytest

from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, TUNNEL_PORT
from tests.netns.cases.conftest import ENDS, Steered, link_local_ends
from tests.netns.cases.wire import (
    accept,
    assert_direct,
    assert_talk,
    dial,
    is_untouched,
    listen,
    original_destination,
    own,
    peer,
)

APPLICATION_PORT = 8080


def test_b20_inbound_is_captured_with_its_original_destination_and_the_peers_address(steered: Steered) -> None:
    target = (steered.pod_address, APPLICATION_PORT)
    with listen(steered.pod.netns, *target) as application, dial(steered.peer.netns, *target) as client:
        with accept(steered.inbound) as met:
            assert original_destination(met) == target
            assert peer(met) == own(client)
            assert peer(met)[0] == steered.peer_address
            assert peer(client) == target
            assert_talk(client, met)
        assert is_untouched(application)
    steered.assert_nothing_captured()


def test_b21_the_tunnel_port_is_reached_as_it_is(steered: Steered) -> None:
    target = (steered.pod_address, TUNNEL_PORT)
    with listen(steered.pod.netns, *target) as tunnel:
        assert_direct(steered.peer.netns, *target, tunnel, source=steered.peer_address)
    steered.assert_nothing_captured()


def test_b32_a_call_to_the_proxys_ports_is_recognised_by_its_original_destination(steered: Steered) -> None:
    """What lets the proxy refuse it: a connection straight to 15001 or 15006 shows the pod's own address and that."""
    for port in (OUTBOUND_PORT, INBOUND_PORT):
        target = (steered.pod_address, port)
        with dial(steered.peer.netns, *target) as client, accept(steered.inbound) as met:
            assert original_destination(met) == target
            assert peer(met) == own(client)
    steered.assert_nothing_captured()


@pytest.mark.parametrize("link_local", ENDS)
def test_b54_link_local_is_left_alone_inbound(steered6: Steered, link_local: str) -> None:
    source, destination = link_local_ends(steered6.peer, steered6.pod, link_local)
    with listen(steered6.pod.netns, "::", APPLICATION_PORT) as application:
        assert_direct(steered6.peer.netns, destination, APPLICATION_PORT, application, source=source)
    steered6.assert_nothing_captured()
