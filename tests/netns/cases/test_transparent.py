"""The node's proxy on its way to the application, with the client's own address."""

import re
import socket
from contextlib import ExitStack

import pytest

from tests.netns.cases.conftest import Steered
from tests.netns.cases.setups import NODE_SETUPS, Setup
from tests.netns.cases.sysctl import strict_reverse_path
from tests.netns.cases.wire import (
    accept,
    assert_talk,
    dial,
    dial_as_proxy,
    end_by_reset,
    listen,
    original_destination,
    own,
    peer,
)

APPLICATION_PORT = 8080
LIVE_CONNECTIONS = 2000


@pytest.fixture(scope="module", params=NODE_SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


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


_BITS = 0x539000, 0xAB000
"""Of somebody else, above the twelve that are ours; the first would be ours if they were shifted."""


_KEPT, _LOST = r"meta mark .* counter packets (\d+)", r"meta l4proto tcp counter packets (\d+)"


@pytest.mark.parametrize("packet_bits", _BITS, ids=hex)
def test_b53_marks_of_others_in_the_upper_bits_stay_and_change_nothing(steered: Steered, packet_bits: int) -> None:
    """Another CNI marks every packet and every connection; the client's address is kept all the same, and of what the
    other one wrote nothing is lost."""
    before = f"meta mark set meta mark | {packet_bits:#x} ct mark set ct mark | 0xcd000"
    kept = f"meta mark & 0xfffff000 == {packet_bits:#x} ct mark & 0xfffff000 == 0xcd000"
    behind = f"{kept} counter accept\nmeta l4proto tcp counter"
    script = "table inet others {\n"
    for hook, chain_type in (("prerouting", "filter"), ("output", "route")):
        for priority, rules in ((-151, before), (-149, behind)):  # around our mark chains
            head = f"type {chain_type} hook {hook} priority {priority}"
            script += f"chain {hook}{-priority} {{ {head};\n{rules}\n}}\n"
    steered.pod.run(["nft", f"{script}}}"])
    try:
        _assert_application_sees_the_client(steered)
        listing = steered.pod.run(["nft", "list", "table", "inet", "others"]).stdout
    finally:
        steered.pod.run(["nft", "delete", "table", "inet", "others"])
    seen, lost = (re.findall(rf"^\t\t{rule}", listing, re.MULTILINE) for rule in (_KEPT, _LOST))
    assert len(seen) == len(lost) == 2
    assert all(int(packets) > 5 for packets in seen) and not any(map(int, lost)), listing
