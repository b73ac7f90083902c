"""A connection whose port conntrack alters on the way to the proxy, and what the agent takes it for."""

import socket

import pytest

from agent.kernel.backends import Backend
from agent.supervisor import inside
from tests.netns.cases.conftest import Ruled, Steered
from tests.netns.cases.setups import Setup
from tests.netns.cases.wire import Endpoint, accept, assert_talk, dial, end_by_reset, original_destination, own, peer


@pytest.fixture(scope="module", params=[Setup(Backend.NFTABLES, init=False)], ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


def test_b38_a_steered_connection_with_an_altered_port_is_known_as_steered(ruled: Ruled, steered: Steered) -> None:
    """A port that an ended connection to elsewhere had: conntrack shows another one to the listener. Were the new one
    taken for older than the rules, it would be let pass in clear once conntrack forgets it."""
    port, vip = 19_999, steered.family.vip
    end_by_reset(_captured(steered, (vip, 80), port))
    client, met = _captured(steered, (vip, 81), port)
    with client, met:
        assert peer(met)[1] != own(client)[1] == port, "conntrack had no reason to alter the port"
        again = steered.pod.call(inside.install, ruled.plan, ruled.place.setup.settings)
        assert again.unsteered.flows == frozenset()
        assert_talk(client, met)


def _captured(steered: Steered, target: Endpoint, port: int) -> tuple[socket.socket, socket.socket]:
    """The application's end, speaking from `port`, and the proxy's."""
    client = dial(steered.pod.netns, *target, from_port=port)
    met = accept(steered.outbound)
    assert original_destination(met) == target
    return client, met
