"""Which headers a captured frame has, by whatever link and behind whatever stands before them."""

import random
import struct
from ipaddress import ip_address

import pytest

from agent.capture import frames, pcapng
from tests.unit.agent.tracing.messages import ip_header, tcp_header, udp_header

MACS = bytes(12)
FOUR, SIX = b"\x08\x00", b"\x86\xdd"
TAG = b"\x81\x00\x00\x05"
IPV4 = ip_header("10.0.0.5", "10.0.0.9") + tcp_header(4000, 80)
IPV6 = ip_header("fd00::5", "fd00::9") + tcp_header(4000, 80)


@pytest.mark.parametrize(
    ("link_type", "data"),
    [
        pytest.param(pcapng.ETHERNET, MACS + FOUR + IPV4, id="ethernet"),
        pytest.param(pcapng.ETHERNET, MACS + TAG + FOUR + IPV4, id="tagged"),
        pytest.param(pcapng.ETHERNET, MACS + TAG + TAG + SIX + IPV6, id="tagged-twice"),
        pytest.param(pcapng.ETHERNET, MACS + SIX + IPV6, id="ipv6"),
        pytest.param(pcapng.RAW, IPV4, id="raw-ipv4"),
        pytest.param(pcapng.RAW, IPV6, id="raw-ipv6"),
    ],
)
def test_addresses_and_ports_are_found(link_type: int, data: bytes) -> None:
    found = frames.of(link_type, data)
    assert found is not None
    assert (found.protocol, found.source_port, found.destination_port) == (6, 4000, 80)


def test_ipv4_options_are_skipped() -> None:
    header = bytearray(ip_header("10.0.0.5", "10.0.0.9"))
    header[0] = 0x46
    found = frames.of(pcapng.RAW, bytes(header) + bytes(4) + tcp_header(4000, 80))
    assert found is not None and found.destination_port == 80


def _behind(*extensions: bytes, first: int) -> bytes:
    return ip_header("fd00::5", "fd00::9", protocol=first) + b"".join(extensions)


def test_ipv6_extensions_are_skipped() -> None:
    hop_by_hop, fragment = struct.pack(">BB6x", 44, 0), struct.pack(">BxHI", 17, 1, 5)
    found = frames.of(pcapng.RAW, _behind(hop_by_hop, fragment, udp_header(4000, 53), first=0))
    assert found is not None
    assert (found.protocol, found.ends) == (17, (ip_address("fd00::5"), 4000, ip_address("fd00::9"), 53))


def test_a_later_ipv6_fragment_has_its_protocol_and_no_ports() -> None:
    found = frames.of(pcapng.RAW, _behind(struct.pack(">BxHI", 17, 8, 5), udp_header(4000, 53), first=44))
    assert found is not None and (found.protocol, found.source_port) == (17, None)


def test_what_is_not_ip_has_none() -> None:
    assert frames.of(pcapng.ETHERNET, MACS + b"\x08\x06" + bytes(28)) is None
    assert frames.of(pcapng.ETHERNET, b"") is None
    assert frames.of(pcapng.RAW, b"") is None


def test_no_bytes_however_broken_are_an_error() -> None:
    chance = random.Random(6)
    whole = MACS + SIX + _behind(struct.pack(">BB6x", 44, 0), struct.pack(">BxHI", 6, 1, 5), tcp_header(1, 2), first=0)
    for _ in range(5000):
        data = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(5)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        frames.of(chance.choice((pcapng.ETHERNET, pcapng.RAW)), bytes(data))
