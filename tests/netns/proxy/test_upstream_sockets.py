"""Sockets towards servers, made ahead in a pod's namespace: how many, whose, and that none stays."""

import os
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from proxy.api.constants import PROXY_MARK
from proxy.datapath.netns import NetnsEntry, netns_cookie
from proxy.datapath.upstream_sockets import IP_LOCAL_PORT_RANGE, MAX_BATCH, SO_MARK, UpstreamSockets
from tests.netns.proxy.mesh import Mesh


class CountingEntry(NetnsEntry):
    """The real one; counts how often it was used."""

    entered = 0

    def enter(self, netns_fd: int) -> NetnsEntry:
        self.entered += 1
        return super().enter(netns_fd)


@pytest.fixture
def entry() -> Iterator[CountingEntry]:
    with closing(CountingEntry()) as made:
        yield made


@pytest.fixture
def sockets(mesh: Mesh, entry: CountingEntry) -> Iterator[UpstreamSockets]:
    with mesh.netns("client").path.open() as netns:
        made = UpstreamSockets(entry, netns.fileno())
        yield made
        made.close_unused()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not looked at


def take(sockets: UpstreamSockets, number: int, family: int = socket.AF_INET) -> None:
    for _ in range(number):
        sockets.take(family, None).close()


def test_each_is_the_pods_marked_and_does_not_block(mesh: Mesh, sockets: UpstreamSockets) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        for _ in range(3):  # the first alone, the others out of one batch
            with closing(sockets.take(family, None)) as sock:
                assert sock.family == family
                assert netns_cookie(sock) == mesh.netns_cookie("client")
                assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == PROXY_MARK
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                assert sock.gettimeout() == 0.0
                assert not os.get_inheritable(sock.fileno())


def test_ports_are_tried_in_turn_and_the_range_stays_the_namespaces(sockets: UpstreamSockets) -> None:
    with closing(sockets.take(socket.AF_INET, None)) as sock:
        (told,) = struct.unpack("I", sock.getsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, 4))
        assert (told & 0xFFFF, told >> 16) == (1, 65535)


def test_one_that_speaks_from_another_address_is_bound_to_it(sockets: UpstreamSockets) -> None:
    for family, address in ((socket.AF_INET, "198.51.100.7"), (socket.AF_INET6, "2001:db8::7")):
        with closing(sockets.take(family, address)) as sock:
            assert sock.getsockname()[0] == address


def test_a_burst_enters_the_namespace_once_for_many(sockets: UpstreamSockets, entry: CountingEntry) -> None:
    before = open_files()
    take(sockets, 1 + 2 + 4 + 8 + 3 * MAX_BATCH)
    assert entry.entered == 4 + 3
    assert open_files() == before


def test_what_a_tick_finds_unused_is_closed_and_the_next_begins_with_one(
    sockets: UpstreamSockets, entry: CountingEntry
) -> None:
    before = open_files()
    take(sockets, 2)
    assert open_files() == before + 1
    sockets.close_unused()
    assert open_files() == before
    take(sockets, 1)
    assert (entry.entered, open_files()) == (3, before)


def test_when_descriptors_run_out_those_that_were_made_are_used(sockets: UpstreamSockets) -> None:
    take(sockets, 7)  # the next batch would be of 8
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, limits[1]))
    taken = []
    try:
        taken.append(sockets.take(socket.AF_INET, None))
        taken.append(sockets.take(socket.AF_INET, None))
        with pytest.raises(OSError, match="Too many open files"):
            sockets.take(socket.AF_INET, None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for sock in taken:
            sock.close()
    take(sockets, 1)
