"""Packet-path cases of DNS, with a listener in the place of the proxy's."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from agent.plan.ranges import Ranges
from agent.plan.steering import DnsCapture, Steering
from proxy.api.constants import DNS_PORT, PROXY_MARK
from tests.netns.cases.conftest import Place, Steered
from tests.netns.cases.setups import PROXY_UID
from tests.netns.cases.wire import (
    APPLICATION_UID,
    TIMEOUT_S,
    V4,
    Endpoint,
    Family,
    accept,
    assert_talk,
    dial,
    is_untouched,
    listen,
    original_destination,
    read_all,
    socket_as,
)

ALL_DNS = Steering(dns=DnsCapture())
QUESTION, ANSWER = b"who is it", b"it is I"
LARGE_ANSWER = b"a" * 60_000
"""What a server that sets TC (RFC 1035 4.1.1) gives over TCP: beyond any UDP answer, over many segments."""


def _udp(steered: Steered, uid: int = APPLICATION_UID, mark: int = 0, bound: Endpoint | None = None) -> socket.socket:
    sock = socket_as(uid, steered.pod.netns, steered.family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if bound is not None:
        sock.bind(bound)
    return sock


def _udp_of_the_proxy(steered: Steered, bound: Endpoint | None = None) -> socket.socket:
    if steered.place.setup.init:
        return _udp(steered, PROXY_UID, bound=bound)
    return _udp(steered, mark=PROXY_MARK, bound=bound)


@contextmanager
def _server(where: object, family: Family, address: str, port: int) -> Iterator[socket.socket]:
    with where.call(socket.socket, family.number, socket.SOCK_DGRAM) as sock:  # type: ignore[attr-defined]
        sock.settimeout(TIMEOUT_S)
        sock.bind((address, port))
        yield sock


@contextmanager
def _dns_proxy(steered: Steered) -> Iterator[socket.socket]:
    """Where a redirect of what the pod sends leads: the loopback address."""
    with _server(steered.pod.netns, steered.family, steered.family.loopback, DNS_PORT) as sock:
        yield sock


def _is_silent(sock: socket.socket) -> bool:
    sock.settimeout(0)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(TIMEOUT_S)
    return False


def _assert_asked(client: socket.socket, server: Endpoint, answering: socket.socket, seen_as: Endpoint) -> None:
    """The question reaches `answering`, and the answer comes back from `seen_as`."""
    client.sendto(QUESTION, server)
    heard, asker = answering.recvfrom(2048)
    assert heard == QUESTION
    answering.sendto(ANSWER, asker)
    heard, answerer = client.recvfrom(2048)
    assert (heard, answerer[:2]) == (ANSWER, seen_as)


def test_b33_a_query_is_answered_by_the_dns_listener_in_the_servers_name(place: Place, family: Family) -> None:
    resolver = (family.vip, 53)
    with place.steered(ALL_DNS, family) as steered, _dns_proxy(steered) as dns, _udp(steered) as client:
        _assert_asked(client, resolver, dns, resolver)
        for port in (52, 54):
            client.sendto(QUESTION, (family.vip, port))
        assert _is_silent(dns), "only port 53 is DNS"


@pytest.mark.parametrize("first", ["application", "proxy"])
def test_b33_a_port_that_the_other_one_has_just_used_leads_nobody_astray(
    place: Place, family: Family, first: str
) -> None:
    """conntrack remembers a UDP flow for 30 s. Application and proxy ask one resolver from one port, one after the
    other: the zone of the proxy's packets keeps the flows apart."""
    resolver, bound = (family.of(place.peer), 53), (family.of(place.pod), 15_353)
    with (
        place.steered(ALL_DNS, family) as steered,
        _dns_proxy(steered) as dns,
        _server(steered.peer.netns, family, *resolver) as server,
    ):
        for who in (first, "application", "proxy", "application"):
            asking = _udp(steered, bound=bound) if who == "application" else _udp_of_the_proxy(steered, bound)
            with asking:
                _assert_asked(asking, resolver, dns if who == "application" else server, resolver)
        assert _is_silent(server)
        assert _is_silent(dns)


def test_b34_a_query_over_tcp_is_led_to_the_dns_listener_and_a_large_answer_comes_whole(
    place: Place, family: Family
) -> None:
    resolver = (family.vip, 53)
    with (
        place.steered(ALL_DNS, family) as steered,
        listen(steered.pod.netns, family.any, DNS_PORT) as dns,
        dial(steered.pod.netns, *resolver) as client,
        accept(dns) as met,
    ):
        assert original_destination(met) == resolver
        met.sendall(LARGE_ANSWER)
        met.shutdown(socket.SHUT_WR)
        assert read_all(client) == LARGE_ANSWER
        steered.assert_nothing_captured()


def test_b34_tcp_is_captured_like_any_when_dns_over_tcp_is_not_wanted(place: Place, family: Family) -> None:
    """Kuma's way: only UDP queries go to the DNS listener."""
    resolver = (family.vip, 53)
    with (
        place.steered(Steering(dns=DnsCapture(tcp=False)), family) as steered,
        dial(steered.pod.netns, *resolver) as client,
    ):
        steered.assert_captured(client, resolver)


def test_b33_only_the_servers_of_a_list_are_captured(place: Place, family: Family) -> None:
    listed = Steering(dns=DnsCapture(servers=(ip_address(family.vip),)))
    other = (family.of(place.peer), 53)
    with (
        place.steered(listed, family) as steered,
        _dns_proxy(steered) as dns,
        _server(steered.peer.netns, family, *other) as server,
        _udp(steered) as client,
    ):
        _assert_asked(client, (family.vip, 53), dns, (family.vip, 53))
        _assert_asked(client, other, server, other)


def test_b11_an_excluded_port_53_is_direct_over_udp_too(place: Place, family: Family) -> None:
    resolver = (family.of(place.peer), 53)
    steering = Steering(dns=DnsCapture(), exclude_outbound_ports=Ranges.of(53))
    with (
        place.steered(steering, family) as steered,
        _dns_proxy(steered) as dns,
        _server(steered.peer.netns, family, *resolver) as server,
        _udp(steered) as client,
        listen(steered.peer.netns, *resolver) as tcp_server,
        dial(steered.pod.netns, *resolver) as tcp_client,
        accept(tcp_server) as served,
    ):
        _assert_asked(client, resolver, server, resolver)
        assert_talk(tcp_client, served)
        assert _is_silent(dns)
        steered.assert_nothing_captured()


@pytest.mark.parametrize("family", [V4], ids=["v4"])
def test_b35_a_resolver_on_loopback_is_left_alone(place: Place, family: Family) -> None:
    stub = ("127.0.0.53", 53)
    with (
        place.steered(ALL_DNS, family) as steered,
        _dns_proxy(steered) as dns,
        _server(steered.pod.netns, family, *stub) as resolver,
        _udp(steered) as client,
    ):
        _assert_asked(client, stub, resolver, stub)
        assert _is_silent(dns)


@pytest.mark.parametrize("family", [V4], ids=["v4"])
def test_b35_unless_it_is_asked_for_and_then_the_proxys_own_query_reaches_it(place: Place, family: Family) -> None:
    """istio-iptables --redirect-dns with 127.0.0.53 in resolv.conf: no loop."""
    stub = ("127.0.0.53", 53)
    steering = Steering(dns=DnsCapture(servers=(ip_address(stub[0]),), over_loopback=True))
    with (
        place.steered(steering, family) as steered,
        _dns_proxy(steered) as dns,
        _server(steered.pod.netns, family, *stub) as resolver,
        _udp(steered) as client,
        _udp_of_the_proxy(steered) as upstream,
    ):
        _assert_asked(client, stub, dns, stub)
        _assert_asked(upstream, stub, resolver, stub)


def test_b36_before_the_proxy_runs_what_is_steered_fails_at_once(place: Place, family: Family) -> None:
    """An init container that comes too early sees `connection refused`, not a time-out."""
    with place.steered(ALL_DNS, family) as steered:
        for listener in (steered.outbound, steered.inbound):
            listener.close()
        with pytest.raises(ConnectionRefusedError):
            dial(steered.pod.netns, steered.peer_address, 80)
        with _udp(steered) as client, pytest.raises(ConnectionRefusedError):
            client.connect((family.vip, 53))
            client.send(QUESTION)
            client.recv(2048)


def test_b18_dns_capture_leaves_other_datagrams_alone(place: Place, family: Family) -> None:
    server_at = (family.of(place.peer), 443)
    with (
        place.steered(ALL_DNS, family) as steered,
        _server(steered.peer.netns, family, *server_at) as server,
        _udp(steered) as client,
    ):
        _assert_asked(client, server_at, server, server_at)
        assert is_untouched(steered.outbound)
