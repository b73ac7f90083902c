"""Packet-path cases of a node's proxy, which is known by its mark."""

import pytest

from tests.netns.cases.conftest import Steered
from tests.netns.cases.setups import NODE_SETUPS, Setup
from tests.netns.cases.wire import (
    accept,
    assert_talk,
    dial,
    listen,
    original_destination,
    own,
    peer,
)

APPLICATION_PORT = 8080


@pytest.fixture(scope="module", params=NODE_SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


def test_b02_a_mark_of_other_bits_makes_nobody_the_proxy(steered: Steered) -> None:
    """Masks: the bits above the low twelve belong to other CNIs (B53), alone or beside ours."""
    target = (steered.peer_address, 80)
    with dial(steered.pod.netns, *target, mark=0x1000), accept(steered.outbound) as met:
        assert original_destination(met) == target
    with listen(steered.peer.netns, *target) as server, dial(steered.pod.netns, *target, mark=0x1539):
        accept(server).close()
    steered.assert_nothing_captured()


def test_b06_a_vip_is_captured_and_the_proxys_way_back_to_its_own_pod_is_not(steered: Steered) -> None:
    vip, address = (steered.family.vip, 80), steered.pod_address
    with (
        listen(steered.pod.netns, address, APPLICATION_PORT) as application,
        dial(steered.pod.netns, *vip) as client,
        accept(steered.outbound) as met,
        steered.dial_as_proxy(address, APPLICATION_PORT) as upstream,
        accept(application) as served,
    ):
        assert original_destination(met) == vip
        assert peer(served) == own(upstream)
        assert_talk(upstream, served)
        assert_talk(client, met)
    steered.assert_nothing_captured()
