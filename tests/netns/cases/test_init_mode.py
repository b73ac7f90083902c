"""Packet-path cases of a sidecar, which is known by its user or group."""

from collections.abc import Iterator

import pytest

from agent.plan.ranges import Ranges
from agent.plan.steering import Steering
from proxy.api.constants import TUNNEL_PORT
from tests.netns.cases.conftest import Place, Steered
from tests.netns.cases.setups import INIT_SETUPS, PROXY_GID, PROXY_UID, SECOND_PROXY_UID, Setup
from tests.netns.cases.wire import (
    APPLICATION_UID,
    Family,
    accept,
    assert_direct,
    assert_talk,
    dial_as,
    is_untouched,
    listen,
    own,
    peer,
)

APPLICATION_PORT = 8080
PASSTHROUGH = {4: "127.0.0.6", 6: "::6"}
"""What istio-proxy and kuma-dp bind when they pass an inbound connection on."""
IDENTITIES = [
    pytest.param(PROXY_UID, PROXY_UID, id="first user"),
    pytest.param(SECOND_PROXY_UID, SECOND_PROXY_UID, id="second user"),
    pytest.param(APPLICATION_UID, PROXY_GID, id="group"),
]


@pytest.fixture(scope="module", params=INIT_SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


@pytest.fixture
def steered(place: Place, family: Family) -> Iterator[Steered]:
    """For one test alone: others of this module have wishes of their own."""
    with place.steered(Steering(), family) as steered:
        yield steered


@pytest.mark.parametrize(("uid", "gid"), IDENTITIES)
def test_b02_each_of_the_proxys_identities_leaves_as_it_is(steered: Steered, uid: int, gid: int) -> None:
    target = (steered.peer_address, 80)
    with (
        listen(steered.peer.netns, *target) as server,
        dial_as(uid, steered.pod.netns, *target, gid=gid) as upstream,
        accept(server) as served,
    ):
        assert peer(served) == own(upstream)
    steered.assert_nothing_captured()


@pytest.mark.parametrize(("uid", "gid"), IDENTITIES)
def test_b06_b07_the_proxys_call_of_its_own_pod_comes_in_again(steered: Steered, uid: int, gid: int) -> None:
    """A VIP that leads back: captured on its way out, and the proxy's connection once more on its way in."""
    vip, target = (steered.family.vip, 80), (steered.pod_address, APPLICATION_PORT)
    with listen(steered.pod.netns, *target) as application:
        with dial_as(APPLICATION_UID, steered.pod.netns, *vip) as client:
            steered.assert_captured(client, vip)
        with dial_as(uid, steered.pod.netns, *target, gid=gid) as upstream:
            steered.assert_captured_inbound(upstream, target)
        assert is_untouched(application)
    steered.assert_nothing_captured()


@pytest.mark.parametrize(("uid", "gid"), IDENTITIES)
def test_b06_b25_its_call_of_a_port_that_is_not_captured_inbound_is_direct(
    place: Place, family: Family, uid: int, gid: int
) -> None:
    with place.steered(Steering(exclude_inbound_ports=Ranges.of(9090)), family) as steered:
        for port in (9090, TUNNEL_PORT):
            target = (steered.pod_address, port)
            with (
                listen(steered.pod.netns, *target) as application,
                dial_as(uid, steered.pod.netns, *target, gid=gid) as upstream,
                accept(application) as served,
            ):
                assert peer(served) == own(upstream)
        steered.assert_nothing_captured()


def test_b24_what_the_proxy_passes_in_from_its_passthrough_address_reaches_the_application(steered: Steered) -> None:
    target, source = (steered.pod_address, APPLICATION_PORT), PASSTHROUGH[steered.family.version]
    with (
        listen(steered.pod.netns, *target) as application,
        steered.dial_as_proxy(*target, source=source) as upstream,
        accept(application) as served,
    ):
        assert peer(served) == own(upstream)
        assert peer(served)[0] == source
        assert_talk(upstream, served)
    steered.assert_nothing_captured()


def test_b24_the_proxys_call_over_a_loopback_address_reaches_the_application(steered: Steered) -> None:
    target = (steered.family.loopback, APPLICATION_PORT)
    with (
        listen(steered.pod.netns, *target) as application,
        steered.dial_as_proxy(*target) as upstream,
        accept(application) as served,
    ):
        assert_talk(upstream, served)
    steered.assert_nothing_captured()


def test_b05_an_application_that_calls_its_own_address_is_no_proxy(steered: Steered) -> None:
    target = (steered.pod_address, APPLICATION_PORT)
    with listen(steered.pod.netns, *target) as application:
        assert_direct(steered.pod.netns, *target, application, source=steered.pod_address)
    steered.assert_nothing_captured()
