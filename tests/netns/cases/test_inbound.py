"""Packet-path cases of what reaches a pod, under the plan's rules, and of the proxy's way on to the application."""

import socket
from contextlib import ExitStack

import pytest

from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, TUNNEL_PORT
from tests.netns.cases.conftest import ENDS, Ruled, Steered, link_local_ends
from tests.netns.cases.sysctl import strict_reverse_path
from tests.netns.cases.wire import (
    accept,
    assert_direct,
    assert_talk,
    dial,
    dial_as_proxy,
    end_by_reset,
    is_untouched,
    listen,
    original_destination,
    own,
    peer,
)

APPLICATION_PORT = 8080
LIVE_CONNECTIONS = 2000


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


def _assert_application_sees_the_client(steered: Steered) -> None:
    """A client's connection is met at 15006; the proxy's, made with the client's address, reaches the application,
    whose answers come back to the proxy: addressed to the client, they would leave by eth0 if nobody held them."""
    target = (steered.pod_address, APPLICATION_PORT)
    with (
        listen(steered.pod.netns, *target) as application,
        dial(steered.peer.netns, *target) as client,
        accept(steered.inbound) as met,
        dial_as_proxy(steered.pod.netns, *target, source=(own(client)[0], 0)) as upstream,
        accept(application) as served,
    ):
        assert original_destination(met) == target
        assert peer(served) == own(upstream)
        assert peer(served)[0] == steered.peer_address
        assert_talk(upstream, served, size=65_536)
        assert_talk(client, met)
    steered.assert_nothing_captured()


def test_b22_the_application_sees_the_clients_own_address(steered: Steered) -> None:
    _assert_application_sees_the_client(steered)


@pytest.mark.parametrize("src_valid_mark", [True, False], ids=["src_valid_mark=1", "src_valid_mark=0"])
def test_b23_the_application_sees_the_clients_own_address_under_strict_reverse_path_filtering(
    steered: Steered, src_valid_mark: bool
) -> None:
    with strict_reverse_path(steered.pod.netns, src_valid_mark=src_valid_mark):
        _assert_application_sees_the_client(steered)


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
def test_b54_link_local_is_left_alone_inbound(ruled: Ruled, steered6: Steered, link_local: str) -> None:
    source, destination = link_local_ends(ruled.peer, ruled.pod, link_local)
    with listen(steered6.pod.netns, "::", APPLICATION_PORT) as application:
        assert_direct(steered6.peer.netns, destination, APPLICATION_PORT, application, source=source)
    steered6.assert_nothing_captured()


def test_b55_2000_live_connections_with_upstreams_on_the_clients_own_ports(steered: Steered) -> None:
    """Each upstream has the very tuple of a client's redirected connection: the zone keeps them apart."""
    target = (steered.pod_address, APPLICATION_PORT)
    with ExitStack() as stack:
        live: list[socket.socket] = []
        stack.callback(lambda: end_by_reset(live))
        application = stack.enter_context(listen(steered.pod.netns, *target, backlog=4096))
        for number in range(LIVE_CONNECTIONS):
            client = dial(steered.peer.netns, *target)
            live.append(client)
            met = accept(steered.inbound)
            live.append(met)
            assert peer(met) == own(client)
            upstream = dial_as_proxy(steered.pod.netns, *target, source=own(client))
            live.append(upstream)
            served = accept(application)
            live.append(served)
            assert peer(served) == own(client), f"connection {number}: the application sees the client, port included"
        for client, met, upstream, served in zip(*(live[start::4] for start in range(4)), strict=True):
            assert original_destination(met) == target
            for sender, receiver in ((client, met), (upstream, served), (served, upstream), (met, client)):
                sender.sendall(b"still here")
                assert receiver.recv(32) == b"still here"
    steered.assert_nothing_captured()
