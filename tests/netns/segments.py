"""TCP segments that no socket would send, made by hand."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_ACK, _PUSH = 0x10, 0x08
_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQUENCE = 19, 20, 21  # linux/tcp.h
_RECEIVED, _SENT = 1, 2  # TCP_RECV_QUEUE, TCP_SEND_QUEUE
_REPAIR_OFF_NO_PROBE: Final = -1


def sequence(connection: socket.socket) -> tuple[int, int]:
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


def inject(data: bytes, to: str) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(data, (to, 0))


def segment(
    source: IPv4Address | IPv6Address,
    destination: IPv4Address | IPv6Address,
    ports: tuple[int, int],
    number: int,
    ack: int,
) -> bytes:
    """A TCP segment with five bytes (RFC 9293, 3.1), from the first port to the second; the kernel puts the IP header
    before it."""
    payload = b"stale"
    fields = (*ports, number & 0xFFFF_FFFF, ack, 5 << 4, _ACK | _PUSH, 512, 0, 0)
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
