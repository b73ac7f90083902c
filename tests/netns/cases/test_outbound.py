"""Packet-path cases of what a pod sends, under the plan's rules: who accepts, and what for."""

import socket

import pytest

from agent.plan import PlanSettings
from agent.supervisor import inside
from tests.netns.cases.conftest import ENDS, Ruled, Steered, link_local_ends
from tests.netns.cases.wire import (
    APPLICATION_UID,
    V4,
    Endpoint,
    accept,
    assert_direct,
    assert_talk,
    dial,
    dial_as,
    dial_as_proxy,
    end_by_reset,
    is_untouched,
    listen,
    original_destination,
    own,
    peer,
)

APPLICATION_PORT = 8080


@pytest.mark.parametrize("uid", [APPLICATION_UID, 0], ids=["uid1000", "root"])
def test_b01_outbound_is_captured_with_its_original_destination(steered: Steered, uid: int) -> None:
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
        dial_as_proxy(steered.pod.netns, *target) as upstream,
        accept(server) as served,
    ):
        assert peer(served) == own(upstream)
        assert peer(served)[0] == steered.pod_address
        assert_talk(upstream, served)
    steered.assert_nothing_captured()


def test_b02_a_mark_of_other_bits_makes_nobody_the_proxy(steered: Steered) -> None:
    """Masks: the bits above the low twelve belong to other CNIs (B53), alone or beside ours."""
    target = (steered.peer_address, 80)
    with dial(steered.pod.netns, *target, mark=0x1000), accept(steered.outbound) as met:
        assert original_destination(met) == target
    with listen(steered.peer.netns, *target) as server, dial(steered.pod.netns, *target, mark=0x1539):
        accept(server).close()
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


def test_b06_a_vip_is_captured_and_the_proxys_way_back_to_its_own_pod_is_not(steered: Steered) -> None:
    vip, address = (steered.family.vip, 80), steered.pod_address
    with (
        listen(steered.pod.netns, address, APPLICATION_PORT) as application,
        dial(steered.pod.netns, *vip) as client,
        accept(steered.outbound) as met,
        dial_as_proxy(steered.pod.netns, address, APPLICATION_PORT) as upstream,
        accept(application) as served,
    ):
        assert original_destination(met) == vip
        assert peer(served) == own(upstream)
        assert_talk(upstream, served)
        assert_talk(client, met)
    steered.assert_nothing_captured()


@pytest.mark.parametrize("link_local", ENDS)
def test_b54_link_local_is_left_alone_outbound(ruled: Ruled, steered6: Steered, link_local: str) -> None:
    """A redirect of link-local leads to ::1, which it cannot reach: the connection would hang. One end suffices."""
    source, destination = link_local_ends(ruled.pod, ruled.peer, link_local)
    with listen(steered6.peer.netns, "::", 80) as server:
        assert_direct(steered6.pod.netns, destination, 80, server, source=source)
    steered6.assert_nothing_captured()


def test_b38_a_steered_connection_with_an_altered_port_is_known_as_steered(ruled: Ruled, steered: Steered) -> None:
    """A port that an ended connection to elsewhere had: conntrack shows another one to the listener. Were the new one
    taken for older than the rules, it would be let pass in clear once conntrack forgets it."""
    port, vip = 19_999, steered.family.vip
    end_by_reset(_captured(steered, (vip, 80), port))
    client, met = _captured(steered, (vip, 81), port)
    with client, met:
        assert peer(met)[1] != own(client)[1] == port, "conntrack had no reason to alter the port"
        again = steered.pod.call(inside.install, ruled.plan, PlanSettings())
        assert again.unsteered.flows == frozenset()
        assert_talk(client, met)


def _captured(steered: Steered, target: Endpoint, port: int) -> tuple[socket.socket, socket.socket]:
    """The application's end, speaking from `port`, and the proxy's."""
    client = dial(steered.pod.netns, *target, from_port=port)
    met = accept(steered.outbound)
    assert original_destination(met) == target
    return client, met
