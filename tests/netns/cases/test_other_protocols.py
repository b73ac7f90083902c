"""What is not TCP passes a steered pod as if no rule were there: both ways, small and fragmented."""

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from agent.lab.namespaces import Netns
from tests.netns.cases.conftest import Steered
from tests.netns.cases.wire import TIMEOUT_S, Family

QUIC_PORT = 443
_SCTP = 132  # IANA protocol numbers
SIZES = [1, 1200, 9000, 60_000]
"""Bytes of payload; the link's MTU is 1,500, so the last two travel in 7 and 41 fragments."""


@pytest.fixture(params=["from the pod", "to the pod"])
def ways(steered: Steered, request: pytest.FixtureRequest) -> Iterator[tuple[Netns, str, Netns, str]]:
    """(asking namespace, its address, asked namespace, its address)."""
    pod = (steered.pod.netns, steered.pod_address)
    other = (steered.peer.netns, steered.peer_address)
    yield (*pod, *other) if request.param == "from the pod" else (*other, *pod)
    steered.assert_nothing_captured()


@pytest.mark.parametrize("size", SIZES)
def test_b17_icmp_echo_is_answered(ways: tuple[Netns, str, Netns, str], family: Family, size: int) -> None:
    """Type 8/0 (RFC 792), 128/129 (RFC 4443 4): answered by the other pod's kernel, byte for byte."""
    asking, _, _, asked_address = ways
    request, answer = (8, 0) if family.version == 4 else (128, 129)
    rest = struct.pack("!HH", os.getpid() & 0xFFFF, size & 0xFFFF) + bytes(range(256)) * (size // 256 + 1)
    rest = rest[: 4 + size]
    protocol = socket.IPPROTO_ICMP if family.version == 4 else socket.IPPROTO_ICMPV6
    with _raw(asking, family, protocol) as sock:
        sock.sendto(_checksummed(struct.pack("!BBH", request, 0, 0) + rest), (asked_address, 0))
        while True:
            heard, sender = sock.recvfrom(65_536)
            heard = heard[20:] if family.version == 4 else heard  # raw IPv4 sockets hear the header too, raw(7)
            if heard[0] == answer and sender[0] == asked_address:
                break
    assert heard[4:] == rest


def _checksummed(message: bytes) -> bytes:
    """RFC 1071; for ICMPv6 the kernel writes its own over it (RFC 3542 3.1)."""
    padded = message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


@pytest.mark.parametrize("size", SIZES)
def test_b18_udp_443_passes_unmodified(ways: tuple[Netns, str, Netns, str], family: Family, size: int) -> None:
    asking, asking_address, asked, asked_address = ways
    question, answer = os.urandom(size), os.urandom(size)
    with (
        _udp(asked, family, asked_address, QUIC_PORT) as server,
        _udp(asking, family, asking_address, 0) as client,
    ):
        client.sendto(question, (asked_address, QUIC_PORT))
        heard, sender = server.recvfrom(65_536)
        assert (heard, sender[:2]) == (question, client.getsockname()[:2])
        server.sendto(answer, sender)
        heard, sender = client.recvfrom(65_536)
        assert (heard, sender[:2]) == (answer, (asked_address, QUIC_PORT))


def test_b19_sctp_passes_unmodified(ways: tuple[Netns, str, Netns, str], family: Family) -> None:
    """An INIT chunk (RFC 9260 3.3.2), by raw sockets: a kernel needs no SCTP to leave it alone."""
    asking, asking_address, asked, asked_address = ways
    packet = struct.pack("!HHII", 5_000, 80, 0, 0) + struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65_535, 1, 1, 7)
    with _raw(asking, family, _SCTP) as sender, _raw(asked, family, _SCTP) as receiver:
        sender.sendto(packet, (asked_address, 0))
        heard, source = receiver.recvfrom(2048)
    assert (heard[20:] if family.version == 4 else heard) == packet
    assert source[0] == asking_address


def _raw(where: Netns, family: Family, protocol: int) -> socket.socket:
    sock = where.call(socket.socket, family.number, socket.SOCK_RAW, protocol)
    sock.settimeout(TIMEOUT_S)
    return sock


def _udp(where: Netns, family: Family, address: str, port: int) -> socket.socket:
    sock = where.call(socket.socket, family.number, socket.SOCK_DGRAM)
    sock.settimeout(TIMEOUT_S)
    sock.bind((address, port))
    return sock
