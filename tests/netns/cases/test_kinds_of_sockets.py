"""Sockets that are not plain: the rules see the same packets."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns.cases.conftest import Steered
from tests.netns.cases.wire import (
    TIMEOUT_S,
    V4,
    Family,
    accept,
    assert_talk,
    dial,
    is_untouched,
    listen,
    original_destination,
    peer,
)

_IPPROTO_MPTCP = 262  # linux/in.h
_MSG_FASTOPEN = 0x20000000  # linux/socket.h
_FAST_OPEN = "net/ipv4/tcp_fastopen"


def _dial(steered: Steered, family: socket.AddressFamily, protocol: int, address: str, port: int) -> socket.socket:
    sock = steered.pod.netns.call(socket.socket, family, socket.SOCK_STREAM, protocol)
    sock.settimeout(TIMEOUT_S)
    sock.connect((address, port))
    return sock


def _assert_met(steered: Steered, client: socket.socket) -> None:
    with accept(steered.outbound) as met:
        assert original_destination(met) == (steered.peer_address, 80)
        assert peer(met)[1] == client.getsockname()[1]
        assert_talk(client, met)


@pytest.mark.parametrize("family", [V4], ids=["v4"])
def test_b58_a_v4_mapped_connection_is_captured_as_the_ipv4_it_is(steered: Steered) -> None:
    with _dial(steered, socket.AF_INET6, 0, f"::ffff:{steered.peer_address}", 80) as client:
        _assert_met(steered, client)


@pytest.mark.parametrize("family", [V4], ids=["v4"])
def test_b58_a_v4_mapped_connection_over_loopback_is_direct(steered: Steered) -> None:
    with (
        listen(steered.pod.netns, "127.0.0.1", 8080) as application,
        _dial(steered, socket.AF_INET6, 0, "::ffff:127.0.0.1", 8080) as client,
        accept(application) as served,
    ):
        assert_talk(client, served)
    steered.assert_nothing_captured()


def test_b58_a_bound_source_is_captured_and_kept(steered: Steered) -> None:
    target = (steered.peer_address, 80)
    with dial(steered.pod.netns, *target, source=steered.pod_address) as client:
        steered.assert_captured(client, target)


def test_b58_a_socket_bound_to_its_device_cannot_be_steered_and_fails_closed(steered: Steered) -> None:
    """A redirect leads over lo, which such a socket neither sends to nor hears (net/ipv4/inet_hashtables.c:
    inet_bound_dev_eq), and no rule can tell it from others. Nothing of it may reach the peer past the proxy."""
    target = (steered.peer_address, 80)
    with (
        listen(steered.peer.netns, *target) as bystander,
        steered.pod.netns.open_socket(steered.family.number) as client,
    ):
        client.settimeout(0.5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        with pytest.raises(TimeoutError):
            client.connect(target)
        assert is_untouched(bystander)
    steered.assert_nothing_captured()


def test_b58_multipath_tcp_is_captured(steered: Steered) -> None:
    """A listener without MPTCP answers plainly, and the connection is plain TCP then (RFC 8684 3.7)."""
    with _dial(steered, steered.family.number, _IPPROTO_MPTCP, steered.peer_address, 80) as client:
        _assert_met(steered, client)


@contextmanager
def _fast_open(steered: Steered) -> Iterator[None]:
    steered.pod.netns.write_sysctl(_FAST_OPEN, str(0x1 | 0x2 | 0x4 | 0x200 | 0x400))
    try:
        yield
    finally:
        steered.pod.netns.write_sysctl(_FAST_OPEN, "1")


def test_b58_fast_open_is_captured_and_its_first_bytes_are_not_lost(steered: Steered, family: Family) -> None:
    """The SYN carries data (RFC 7413): client without cookie 0x4, server without cookie 0x200, any listener 0x400."""
    target = (steered.peer_address, 80)
    with (
        _fast_open(steered),
        listen(steered.peer.netns, *target),
        steered.pod.netns.open_socket(family.number) as client,
    ):
        client.settimeout(TIMEOUT_S)
        assert client.sendto(b"first", _MSG_FASTOPEN, target) == len(b"first")
        with accept(steered.outbound) as met:
            assert original_destination(met) == target
            assert met.recv(64) == b"first"
            assert_talk(client, met)
    steered.assert_nothing_captured()
