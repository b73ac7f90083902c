"""B39: a segment that conntrack takes for invalid (far out of the window: an old duplicate, or a guess) reaches a
steered connection. conntrack does not translate such a segment, so the pod's kernel would see a connection that it does
not have and answer with a reset that ends the caller's. It is dropped and counted, and the connection lives on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.life.talk import PORT, Echo, Talk, address, outside, until

INJECTED: Final = 20
_FAR: Final = 0x4000_0000
_ACK, _PUSH = 0x10, 0x08
_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQUENCE = 19, 20, 21  # linux/tcp.h
_RECEIVED, _SENT = 1, 2  # TCP_RECV_QUEUE, TCP_SEND_QUEUE
_REPAIR_OFF_NO_PROBE: Final = -1


@pytest.fixture
def lab() -> Iterator[Lab]:
    """`client` is outside the mesh: its own kernel tracks nothing and lets every segment out."""
    with Lab(LabSpec((outside("client"), PodSpec("server")))) as made:
        made.start()
        yield made


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b39_invalid_segments_are_dropped_and_reset_no_steered_connection(lab: Lab, family: int) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server), Talk(client, address(server, family)) as talk:
        talk.says()
        before = _dropped(lab)
        own, peer = address(client, family), address(server, family)
        for _ in range(INJECTED):
            next_sent, next_received = _sequence(talk.socket)
            segment = _segment(own, peer, talk.local[1], next_sent + _FAR, next_received)
            client.call(_inject, segment, str(peer))
        until("the invalid segments to meet the rule", lambda: _dropped(lab) >= before + INJECTED)
        talk.says(10)


def _dropped(lab: Lab) -> int:
    return kernel.packets_of(lab, "server", "in-forgotten")


def _sequence(connection: socket.socket) -> tuple[int, int]:
    """What it will send and what it expects next: with this a reset in answer would hit (TCP_REPAIR, include/uapi/
    linux/tcp.h)."""
    connection.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
    try:
        numbers = []
        for queue in (_SENT, _RECEIVED):
            connection.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
            found = connection.getsockopt(socket.IPPROTO_TCP, _QUEUE_SEQUENCE, 4)
            numbers.append(struct.unpack("=I", found)[0])
    finally:
        connection.setsockopt(socket.IPPROTO_TCP, _REPAIR, _REPAIR_OFF_NO_PROBE)
    return numbers[0], numbers[1]


def _inject(segment: bytes, to: str) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(segment, (to, 0))


def _segment(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, port: int, sequence: int, ack: int
) -> bytes:
    """A TCP segment with five bytes (RFC 9293, 3.1); the kernel puts the IP header before it."""
    payload = b"stale"
    fields = (port, PORT, sequence & 0xFFFF_FFFF, ack, 5 << 4, _ACK | _PUSH, 512, 0, 0)
    bare = struct.pack("!HHIIBBHHH", *fields) + payload
    length = struct.pack("!IxxxB", len(bare), socket.IPPROTO_TCP)
    checksum = _checksum(source.packed + destination.packed + length + bare)
    return bare[:16] + struct.pack("!H", checksum) + bare[18:]


def _checksum(data: bytes) -> int:
    """RFC 1071, over the pseudo header too."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total) ^ 0xFFFF
