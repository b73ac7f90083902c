"""A namespace without IPv6: the rules of IPv4 are complete, and nobody complains."""

from collections.abc import Iterator

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from agent.plan.steering import Steering
from tests.netns.cases.conftest import Place
from tests.netns.cases.setups import Setup
from tests.netns.cases.wire import V4, dial


@pytest.fixture(scope="module")
def place(setup: Setup) -> Iterator[Place]:
    """`disable_ipv6` on all of the pod's interfaces, lo too."""
    with Lab(LabSpec((PodSpec("pod", families=(4,)), PodSpec("peer")))) as lab:
        lab.pod("pod").netns.write_sysctl("net/ipv6/conf/lo/disable_ipv6", "1")
        yield Place(setup, lab.pod("pod"), lab.pod("peer"))


def test_b45_without_ipv6_everything_of_ipv4_works(place: Place) -> None:
    with place.steered(Steering(), V4) as steered:
        outbound, inbound = (steered.peer_address, 80), (steered.pod_address, 8080)
        with dial(steered.pod.netns, *outbound) as client:
            steered.assert_captured(client, outbound)
        with dial(steered.peer.netns, *inbound) as client:
            steered.assert_captured_inbound(client, inbound)
