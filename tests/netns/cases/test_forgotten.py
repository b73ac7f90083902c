"""Packet-path cases of connections that conntrack does not know: older than the rules, or forgotten."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from agent.kernel import backends
from agent.plan.ranges import Ranges
from agent.plan.steering import Steering
from tests.netns.cases.conftest import Place, Steered
from tests.netns.cases.wire import (
    TIMEOUT_S,
    Family,
    accept,
    dial,
    end_by_reset,
    is_untouched,
    listen,
    original_destination,
)
from tests.netns.life.wire import Capture
from tests.netns.segments import inject, segment, sequence

_FAR = 0x4000_0000
SECRET = b"not for the wire"


@pytest.fixture
def steered(place: Place, family: Family) -> Iterator[Steered]:
    """For one test alone: others of this module have wishes of their own."""
    with place.steered(Steering(), family) as steered:
        yield steered


@dataclass(frozen=True, slots=True)
class Pair:
    """A direct connection's two ends."""

    opener: socket.socket
    answerer: socket.socket

    def assert_talks(self) -> None:
        for sender, receiver in ((self.opener, self.answerer), (self.answerer, self.opener)):
            sender.sendall(b"still here")
            assert receiver.recv(64) == b"still here"


@contextmanager
def _direct(place: Place, family: Family, *, inbound: bool, port: int = 8080) -> Iterator[Pair]:
    asking, asked = (place.peer, place.pod) if inbound else (place.pod, place.peer)
    target = (family.of(asked), port)
    with listen(asked.netns, *target) as server, dial(asking.netns, *target) as opener, accept(server) as answerer:
        pair = Pair(opener, answerer)
        pair.assert_talks()
        yield pair
        end_by_reset((opener, answerer))


def test_b37_connections_older_than_the_rules_live_on_through_them_and_beyond(place: Place, family: Family) -> None:
    with _direct(place, family, inbound=False) as sent, _direct(place, family, inbound=True, port=8081) as received:
        with place.steered(Steering(), family) as steered:
            for pair in (sent, received):
                pair.assert_talks()
            target = (steered.peer_address, 80)
            with dial(steered.pod.netns, *target) as client:
                steered.assert_captured(client, target)
        for pair in (sent, received):
            pair.assert_talks()


def _forget_everything(steered: Steered) -> None:
    steered.pod.run(["conntrack", "-F"])


def _packets(steered: Steered, rule_id: str) -> int:
    found = steered.pod.call(backends.counters, steered.place.setup.backend)
    return sum(counter.packets for counter in found if counter.rule_id == rule_id)


def _until_counted(steered: Steered, rule_id: str, more_than: int) -> None:
    until = time.monotonic() + TIMEOUT_S
    while _packets(steered, rule_id) <= more_than:
        assert time.monotonic() < until, f"rule {rule_id} has counted nothing"


def test_b56_what_the_application_sends_on_a_forgotten_connection_never_leaves_in_clear(
    steered: Steered, family: Family
) -> None:
    target = (steered.peer_address, 80)
    with (
        Capture(steered.peer.netns, "eth0") as wire,
        dial(steered.pod.netns, *target) as client,
        accept(steered.outbound) as met,
    ):
        assert original_destination(met) == target
        before = _packets(steered, "out-forgotten")
        _forget_everything(steered)
        client.sendall(SECRET)
        _until_counted(steered, "out-forgotten", before)
        end_by_reset((client, met))
    assert [segment for segment in wire.segments if SECRET in segment.payload] == []


@pytest.mark.parametrize("inbound", [False, True], ids=["outbound", "inbound"])
def test_b56_what_is_older_than_the_rules_lives_on_when_it_is_forgotten(
    place: Place, family: Family, inbound: bool
) -> None:
    with _direct(place, family, inbound=inbound) as older, place.steered(Steering(), family) as steered:
        for first, second in ((older.opener, older.answerer), (older.answerer, older.opener)):
            _forget_everything(steered)
            first.sendall(b"who speaks first")
            assert second.recv(64) == b"who speaks first"


@pytest.mark.parametrize("inbound", [False, True], ids=["outbound", "inbound"])
def test_b56_what_is_excluded_lives_on_when_it_is_forgotten_whoever_speaks_first(
    place: Place, family: Family, inbound: bool
) -> None:
    ports = Ranges.of(8080)
    steering = Steering(exclude_inbound_ports=ports) if inbound else Steering(exclude_outbound_ports=ports)
    with place.steered(steering, family) as steered, _direct(place, family, inbound=inbound) as excluded:
        for first, second in ((excluded.opener, excluded.answerer), (excluded.answerer, excluded.opener)):
            _forget_everything(steered)
            first.sendall(b"who speaks first")
            assert second.recv(64) == b"who speaks first"
        assert is_untouched(steered.outbound)
        assert is_untouched(steered.inbound)


def test_b56_an_excluded_network_lives_on_when_it_is_forgotten(place: Place, family: Family) -> None:
    network = ip_network(family.of(place.peer))
    with (
        place.steered(Steering(exclude_outbound_networks=(network,)), family) as steered,
        _direct(place, family, inbound=False) as excluded,
    ):
        _forget_everything(steered)
        excluded.answerer.sendall(b"who speaks first")
        assert excluded.opener.recv(64) == b"who speaks first"


@pytest.mark.parametrize("inbound", [False, True], ids=["outbound", "inbound"])
def test_b39_an_invalid_segment_is_dropped_and_ends_no_connection(place: Place, family: Family, inbound: bool) -> None:
    """Far out of the window: untranslated it would meet no socket, and the reset in answer would hit. A node's rules
    drop it always, a sidecar's when that is asked for; towards a connection that is older than the rules it is left."""
    with (
        _direct(place, family, inbound=inbound, port=8081) as older,
        place.steered(Steering(drop_invalid=True), family) as steered,
    ):
        target = (steered.pod_address, 8080)
        with dial(steered.peer.netns, *target) as client, accept(steered.inbound) as met:
            for ends in (Pair(client, met), older):
                _inject_far_out_of_the_window(steered, ends, from_opener=ends is not older or inbound)
                ends.assert_talks()
            assert _packets(steered, "in-forgotten") >= 1


def _inject_far_out_of_the_window(steered: Steered, pair: Pair, *, from_opener: bool) -> None:
    """From the peer's end of a connection to the pod's."""
    far = pair.opener if from_opener else pair.answerer
    next_sent, next_received = sequence(far)
    ends = ip_address(far.getsockname()[0]), ip_address(far.getpeername()[0])
    ports = far.getsockname()[1], far.getpeername()[1]
    stale = segment(*ends, ports, next_sent + _FAR, next_received)
    steered.peer.call(inject, stale, far.getpeername()[0])
