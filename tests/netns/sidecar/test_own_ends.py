"""Whether a connection ends at the sidecar's own listener, as the kernel tells it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from agent.lab.namespaces import Netns
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT
from proxy.datapath.own_ends import OwnEnds
from proxy.model.direction import Direction

LOOPBACK = ["127.0.0.1", "::1"]


@pytest.fixture
def netns(make_netns: Callable[[], Netns]) -> Netns:
    return make_netns()


@pytest.fixture
def own_ends(netns: Netns) -> Iterator[OwnEnds]:
    with closing(netns.call(OwnEnds)) as made:
        yield made


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize(
    ("port", "outbound", "inbound"),
    [(OUTBOUND_PORT, True, True), (INBOUND_PORT, False, True), (8080, False, False)],
)
def test_it_does_where_the_listener_has_the_other_end(
    netns: Netns, own_ends: OwnEnds, host: str, port: int, outbound: bool, inbound: bool
) -> None:
    """Before it is accepted. What a sidecar sends to its own pod through a Service may come in again."""
    with netns.listen(host, port), netns.connect(host, port) as sock:
        assert own_ends.led_back(sock, Direction.OUTBOUND) is outbound
        assert own_ends.led_back(sock, Direction.INBOUND) is inbound


@pytest.mark.parametrize("host", LOOPBACK)
def test_it_does_not_where_another_has_that_connection_or_nobody(netns: Netns, own_ends: OwnEnds, host: str) -> None:
    with netns.listen(host, OUTBOUND_PORT), netns.listen(host, 8080), netns.connect(host, OUTBOUND_PORT) as other:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with netns.connect(host, 8080) as sock, netns.open_socket(family) as idle:
            assert not own_ends.led_back(sock, Direction.INBOUND)
            assert not own_ends.led_back(idle, Direction.INBOUND)
        assert own_ends.led_back(other, Direction.INBOUND)
