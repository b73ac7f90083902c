"""Words of the peers whose meaning is the peer's own, seen on the wire."""

import socket

from tests.netns.cases.wire import TIMEOUT_S, V4, V6, accept, dial_as, is_untouched, listen, original_destination
from tests.netns.init.conftest import Pod, assert_straight

DNS_PORT = 15053


def dns_listener(place: Pod) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(TIMEOUT_S)
        sock.bind(("127.0.0.1", DNS_PORT))
        return sock

    return place.pod.call(make)


def ask(place: Pod, server: str) -> socket.socket:
    """A query over UDP to port 53."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(TIMEOUT_S)
        sock.sendto(b"query", (server, 53))
        return sock

    return place.pod.call(make)


def test_b34_kumas_queries_over_udp_go_to_the_listener_and_over_tcp_direct(place: Pod) -> None:
    """Also where 53 is an excluded port: that is of TCP in Kuma."""
    server = V4.of(place.peer)
    words = ("kuma", "--kuma-dp-user", "5678", "--redirect-all-dns-traffic", "--exclude-outbound-ports", "53")
    with place.steered(*words), dns_listener(place) as listener, ask(place, server) as asking:
        query, asker = listener.recvfrom(100)
        listener.sendto(b"answer", asker)
        assert (query, asking.recvfrom(100)) == (b"query", (b"answer", (server, 53)))
        with (
            listen(place.peer.netns, server, 53) as resolver,
            dial_as(1000, place.pod.netns, server, 53) as client,
            accept(resolver) as served,
        ):
            assert_straight(client, served)


def test_b34_b11_istios_queries_over_both_go_to_the_listener_unless_53_is_excluded(place: Pod) -> None:
    server = V4.of(place.peer)
    words = ("istio", "-u", "1337", "-i", "*", "--redirect-dns", "--capture-all-dns")
    with place.steered(*words), dns_listener(place) as listener, listen(place.pod.netns, V4.any, DNS_PORT) as over_tcp:
        with ask(place, server):
            assert listener.recvfrom(100)[0] == b"query"
        with dial_as(1000, place.pod.netns, server, 53), accept(over_tcp) as met:
            assert original_destination(met) == (server, 53)
        place.init(*words, "-o", "53")
        with (
            listen(place.peer.netns, server, 53) as resolver,
            dial_as(1000, place.pod.netns, server, 53) as client,
            accept(resolver) as served,
        ):
            assert_straight(client, served)


def test_istio_leaves_ipv6_alone_where_the_first_address_is_ipv4_without_dual_stack(place: Pod) -> None:
    """As istio-iptables: its Envoy listens on IPv4 alone there, and IPv6 would end at a port where nobody is."""
    target = (V6.of(place.peer), 80)
    with (
        place.steered("istio", "-u", "1337", "-i", "*", "-b", "*"),
        listen(place.peer.netns, *target) as server,
        dial_as(1000, place.pod.netns, *target) as client,
        accept(server) as served,
    ):
        assert_straight(client, served)


def test_b07_istios_second_user_is_the_proxy_as_the_first_is(place: Pod) -> None:
    """istio-iptables gets this wrong (reference/redirection.md A3)."""
    target = (V4.of(place.pod), 8080)
    with place.steered("istio", "-u", "1337,1338", "-i", "*", "-b", "*"):
        for uid in (1337, 1338):
            with (
                listen(place.pod.netns, V4.any, 15006) as proxy,
                listen(place.pod.netns, V4.any, 8080) as application,
                dial_as(uid, place.pod.netns, *target),
                accept(proxy) as met,
            ):
                assert original_destination(met) == target
                assert is_untouched(application)
