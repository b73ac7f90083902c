"""Whatever filter can be said, the kernel takes it; and of real packets it takes those that it says."""

import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network

import pytest

from agent.explain.packet import Way
from agent.kernel import nft
from agent.kernel.scratch import in_scratch
from agent.tracing.filter import Chosen, Ends, Filter, InvalidFilter
from agent.tracing.table import script
from agent.tracing.watch import trace_while
from tests.netns.kernel.scratch import NODE4, NODE6, POD4
from tests.netns.rules.here import Here, pod

NETWORKS = {4: ["10.0.0.9/32", "10.0.0.0/8", "0.0.0.0/0"], 6: ["fd00::9/128", "fd00::/64", "::/0"]}


def _some(chance: random.Random) -> Iterator[Filter]:
    while True:
        networks = [ip_network(text) for text in NETWORKS[chance.choice((4, 6))]]
        ports = [None, (1, 1), (80, 80), (1, 65535), (8000, 8010)]
        ends = [Ends(chance.choice([None, *networks]), chance.choice(ports)) for _ in range(2)]
        with suppress(InvalidFilter):
            yield Filter(
                *ends,
                chance.choice([None, 6, 17, 1, 58, 132, 47]),
                chance.choice([None, 0, 4294967294]),
                chance.choice([None, (0x539, 0xFFF), (0, 0xFFFFFFFF)]),
                chance.choice([None, "lo", "eth0.1@x", "a-b_c:1"]),
                chance.choice([None, *Way]),
                chance.choice(list(Chosen)),
            )


def test_the_kernel_takes_every_filter() -> None:
    some = _some(random.Random(6))
    filters = [next(some) for _ in range(120)]

    def complaints() -> list[tuple[Filter, str]]:
        found = ((wanted, nft.complaint(script("headgate-trace-1-1", wanted))) for wanted in filters)
        return [(wanted, complaint) for wanted, complaint in found if complaint is not None]

    assert in_scratch(complaints) == []


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    with pod() as made:
        yield made


def _send() -> None:
    """TCP and UDP to two ports of the node, by each family."""
    for address, family in ((NODE4, socket.AF_INET), (NODE6, socket.AF_INET6)):
        for port in (80, 81):
            with socket.socket(family) as stream, socket.socket(family, socket.SOCK_DGRAM) as datagrams:
                stream.setblocking(False)
                stream.connect_ex((address, port))
                datagrams.sendto(b"x", (address, port))


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        pytest.param(Filter(Ends(ports=(80, 80))), {"tcp 4 80", "udp 4 80", "tcp 6 80", "udp 6 80"}, id="port"),
        pytest.param(
            Filter(Ends(ports=(80, 81)), protocol=17), {"udp 4 80", "udp 4 81", "udp 6 80", "udp 6 81"}, id="udp"
        ),
        pytest.param(Filter(Ends(ip_network(NODE6))), {"tcp 6 80", "udp 6 80", "tcp 6 81", "udp 6 81"}, id="ipv6"),
        pytest.param(
            Filter(source=Ends(ip_network(f"{POD4}/24", strict=False)), protocol=6), {"tcp 4 80", "tcp 4 81"}, id="from"
        ),
        pytest.param(Filter(Ends(ports=(80, 80)), interface="lo"), set(), id="interface"),
        pytest.param(Filter(Ends(ports=(80, 80)), uid=1), set(), id="user"),
    ],
)
def test_of_real_packets_those_are_taken_that_are_meant(here: Here, wanted: Filter, seen: set[str]) -> None:
    trace = here.pod.run(trace_while, wanted, _send)
    sent = [packet.sent for packet in trace.packets if packet.way is Way.OUTBOUND]
    assert {f"{s.kind.split()[0]} {s.destination.version} {s.destination_port}" for s in sent} == seen
