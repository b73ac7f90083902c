"""What of a packet can be told by the beginnings of its headers."""

import random
from ipaddress import ip_address

import pytest

from agent.tracing import headers
from tests.unit.agent.tracing.messages import ACK, IPV4, IPV6, SYN, ip_header, tcp_header, udp_header


def test_tcp_over_ipv4() -> None:
    found = headers.of(IPV4, ip_header("10.0.0.5", "10.0.0.9"), tcp_header(4000, 80, SYN | ACK))
    assert found is not None
    assert found.ends == (ip_address("10.0.0.5"), 4000, ip_address("10.0.0.9"), 80)
    assert (found.kind, found.opens_connection) == ("tcp syn,ack", False)


def test_udp_over_ipv6() -> None:
    found = headers.of(IPV6, ip_header("fd00::5", "fd00::9", protocol=17), udp_header(4000, 53))
    assert found is not None
    assert found.ends == (ip_address("fd00::5"), 4000, ip_address("fd00::9"), 53)
    assert (found.kind, found.opens_connection) == ("udp", True)


def test_a_later_fragment_has_no_ports() -> None:
    fragment = bytearray(ip_header("10.0.0.5", "10.0.0.9", protocol=17))
    fragment[7] = 1
    found = headers.of(IPV4, bytes(fragment), udp_header(4000, 53))
    assert found is not None and found.source_port is None and found.destination_port is None


def test_behind_an_extension_header_nothing_is_guessed() -> None:
    found = headers.of(IPV6, ip_header("fd00::5", "fd00::9", protocol=0), tcp_header(4000, 80))
    assert found is not None and (found.protocol, found.source_port) == (0, None)


def test_translation_leaves_the_identity_as_it_is_and_another_packet_has_another() -> None:
    sent = headers.of(IPV4, ip_header("10.0.0.5", "10.0.0.9"), tcp_header(4000, 80))
    translated = headers.of(IPV4, ip_header("10.0.0.5", "127.0.0.1"), tcp_header(4000, 15001))
    again = headers.of(IPV4, ip_header("10.0.0.5", "10.0.0.9", ident=8), tcp_header(4000, 80))
    assert sent is not None and translated is not None and again is not None
    assert sent.identity == translated.identity != again.identity


@pytest.mark.parametrize(
    ("address", "port", "said"), [("10.0.0.1", 80, "10.0.0.1:80"), ("fd00::1", 80, "[fd00::1]:80")]
)
def test_an_end_is_written_as_it_is_read(address: str, port: int, said: str) -> None:
    assert headers.end(ip_address(address), port) == said
    assert headers.end(ip_address(address), None) == address


def test_no_bytes_however_broken_are_an_error() -> None:
    chance = random.Random(6)
    for _ in range(3000):
        network, transport = (chance.randbytes(chance.randrange(45)) for _ in range(2))
        headers.of(chance.choice((IPV4, IPV6, 7)), network, transport)
