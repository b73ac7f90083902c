"""Packet-path cases of what a pod sends, under the plan's rules: who accepts, and what for."""

import pytest

from proxy.api.constants import TUNNEL_PORT
from tests.netns.cases.conftest import ENDS, Steered, link_local_ends
from tests.netns.cases.wire import (
    APPLICATION_UID,
    V4,
    accept,
    assert_direct,
    assert_talk,
    dial,
    dial_as,
    is_untouched,
    listen,
    original_destination,
    own,
    peer,
)

APPLICATION_PORT = 8080
NAMELESS_UID = 54_321  # in no passwd file: B9


@pytest.mark.parametrize("uid", [APPLICATION_UID, 0, NAMELESS_UID], ids=["uid1000", "root", "nameless"])
def test_b01_b09_outbound_is_captured_with_its_original_destination(steered: Steered, uid: int) -> None:
    target = (steered.peer_address, 80)
    with listen(steered.peer.netns, *target) as bystander, dial_as(uid, steered.pod.netns, *target) as client:
        with accept(steered.outbound) as met:
            assert original_destination(met) == target
            assert peer(met) == own(client)
            assert own(client)[0] == steered.pod_address
            assert peer(client) == target, "the application must not notice"
            assert_talk(client, met)
        assert is_untouched(bystander)
    steered.assert_nothing_captured()


def test_b01_a_port_where_nobody_listens_is_captured_all_the_same(steered: Steered) -> None:
    target = (steered.peer_address, 9)
    with dial(steered.pod.netns, *target), accept(steered.outbound) as met:
        assert original_destination(met) == target


def test_b02_the_proxys_own_connection_leaves_as_it_is(steered: Steered) -> None:
    target = (steered.peer_address, 80)
    with (
        listen(steered.peer.netns, *target) as server,
        steered.dial_as_proxy(*target) as upstream,
        accept(server) as served,
    ):
        assert peer(served) == own(upstream)
        assert peer(served)[0] == steered.pod_address
        assert_talk(upstream, served)
    steered.assert_nothing_captured()


def test_b08_another_pods_tunnel_port_is_an_ordinary_port(steered: Steered) -> None:
    """As ztunnel has it: only what the proxy itself sends reaches another proxy's tunnel."""
    target = (steered.peer_address, TUNNEL_PORT)
    with dial(steered.pod.netns, *target) as client:
        steered.assert_captured(client, target)
    with listen(steered.peer.netns, *target) as tunnel, steered.dial_as_proxy(*target), accept(tunnel):
        pass
    steered.assert_nothing_captured()


def test_b03_loopback_reaches_the_application(steered: Steered) -> None:
    loopback = steered.family.loopback
    with listen(steered.pod.netns, loopback, APPLICATION_PORT) as application:
        with dial(steered.pod.netns, loopback, APPLICATION_PORT) as client:
            assert own(client)[0] == loopback, "what an application gets that does not ask for an address"
            accept(application).close()
        assert_direct(steered.pod.netns, loopback, APPLICATION_PORT, application, source=loopback)
    steered.assert_nothing_captured()


@pytest.mark.parametrize("address", ["127.0.0.2", "127.255.255.254"])
@pytest.mark.parametrize("family", [V4], ids=["v4"])
def test_b04_all_of_127_is_loopback(steered: Steered, address: str) -> None:
    """IPv6 has one loopback address only (RFC 4291 2.5.3): ::1 is B03's."""
    with (
        listen(steered.pod.netns, address, APPLICATION_PORT) as application,
        dial(steered.pod.netns, address, APPLICATION_PORT) as client,
        accept(application) as served,
    ):
        assert peer(served) == own(client)
        assert_talk(client, served)
    steered.assert_nothing_captured()


def test_b05_the_pods_own_address_is_reached_directly(steered: Steered) -> None:
    address = steered.pod_address
    with listen(steered.pod.netns, address, APPLICATION_PORT) as application:
        with dial(steered.pod.netns, address, APPLICATION_PORT) as client:
            assert own(client)[0] == address, "what an application gets that does not ask for an address"
            accept(application).close()
        assert_direct(steered.pod.netns, address, APPLICATION_PORT, application, source=address)
    steered.assert_nothing_captured()


@pytest.mark.parametrize("link_local", ENDS)
def test_b54_link_local_is_left_alone_outbound(steered6: Steered, link_local: str) -> None:
    """A redirect of link-local leads to ::1, which it cannot reach: the connection would hang. One end suffices."""
    source, destination = link_local_ends(steered6.pod, steered6.peer, link_local)
    with listen(steered6.peer.netns, "::", 80) as server:
        assert_direct(steered6.pod.netns, destination, 80, server, source=source)
    steered6.assert_nothing_captured()
