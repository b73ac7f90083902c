"""What a sidecar's sockets are made with: marks, addresses, and whose namespace they are of."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.datapath.netns import OwnNetns, netns_cookie
from proxy.datapath.standing import NODE, CallFrom, Standing
from proxy.datapath.upstream_sockets import SO_MARK, UpstreamSockets


def sidecar(way: CallFrom) -> Standing:
    return Standing(own_netns=True, marks=False, from4=way, from6=way)


@pytest.fixture
def own() -> Iterator[OwnNetns]:
    with closing(OwnNetns()) as entry:
        yield entry


def take(own: OwnNetns, standing: Standing, family: int, source: str | None) -> socket.SocketType:
    return UpstreamSockets(own, own.fileno(), standing).take(family, source)


def mark_of(sock: socket.SocketType) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, SO_MARK)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not looked at


def test_sockets_are_of_the_namespace_that_it_lives_in(own: OwnNetns) -> None:
    with own.enter(own.fileno()), socket.socket() as here, closing(take(own, NODE, socket.AF_INET, None)) as taken:
        assert netns_cookie(taken) == netns_cookie(here)
    assert os.path.samestat(os.fstat(own.fileno()), Path("/proc/self/ns/net").stat())


def test_one_without_a_mark_has_none_and_is_bound_where_it_may(own: OwnNetns) -> None:
    with closing(take(own, sidecar(CallFrom.PASSTHROUGH), socket.AF_INET, "127.0.0.6")) as sock:
        assert mark_of(sock) == 0
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT) == 0
        assert sock.getsockname()[0] == "127.0.0.6"


def test_only_transparent_ones_are_marked_where_the_rules_go_by_user(own: OwnNetns) -> None:
    for family, source in ((socket.AF_INET, "198.51.100.7"), (socket.AF_INET6, "2001:db8::7")):
        with closing(take(own, sidecar(CallFrom.CLIENT), family, source)) as sock:
            assert mark_of(sock) == 0x539
            assert sock.getsockname()[0] == source
        with closing(take(own, sidecar(CallFrom.CLIENT), family, None)) as sock:
            assert mark_of(sock) == 0


def test_an_address_that_is_not_there_is_refused_and_nothing_stays_open(own: OwnNetns) -> None:
    before = open_files()
    with pytest.raises(OSError) as refused:
        take(own, sidecar(CallFrom.PASSTHROUGH), socket.AF_INET, "198.51.100.7")
    assert refused.value.errno == errno.EADDRNOTAVAIL
    assert open_files() == before
