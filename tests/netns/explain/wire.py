"""A Packet's bytes, and which of the bytes that a sniffer has are its. Every packet carries a token of its own, and so
do the errors that quote it (RFC 792; RFC 4443, 2.4)."""

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Final

from agent.explain.packet import ICMP, ICMP6, SCTP, TCP, UDP, Packet
from agent.pods import IPAddress

PORTED: Final = (TCP, UDP, SCTP)
_RST: Final = 4
_ERRORS: Final = {ICMP: (3, 5, 11), ICMP6: (1, 3, 137)}
_REDIRECTS: Final = (5, 137)
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")


@dataclass(frozen=True, slots=True)
class Parsed:
    """One IP packet. `ports`: source, destination; of what has none, zeros. `flags`: TCP's. `icmp`: type, code."""

    protocol: int
    source: IPAddress
    destination: IPAddress
    ports: tuple[int, int] = (0, 0)
    flags: int = 0
    icmp: tuple[int, int] | None = None
    payload: bytes = b""

    @property
    def is_error(self) -> bool:
        return self.icmp is not None and self.icmp[0] in _ERRORS[self.protocol]

    @property
    def is_reset(self) -> bool:
        return self.protocol == TCP and bool(self.flags & _RST)


def build(packet: Packet, source: IPAddress, source_port: int, token: int) -> bytes:
    """With its IP header, checksums right."""
    body = _body(packet, source, source_port, token.to_bytes(4, "big"))
    if packet.destination.version == 4:
        header = _IPV4.pack(
            0x45, 0, 20 + len(body), token & 0xFFFF, 0x4000, 64, packet.protocol, 0, source.packed,
            packet.destination.packed,
        )  # fmt: skip
        return header[:10] + _checksum(header) + header[12:] + body
    return (
        _IPV6.pack(0x60000000, len(body), packet.protocol, 64, source.packed, packet.destination.packed) + body
    )  # fmt: skip


def _body(packet: Packet, source: IPAddress, source_port: int, token: bytes) -> bytes:
    to = packet.destination_port or 0
    if packet.protocol == TCP:
        acknowledged = b"\0\0\0\1" if packet.tcp_flags & 0x10 else bytes(4)
        body = struct.pack("!HH4s4sBBHHH", source_port, to, token, acknowledged, 0x50, packet.tcp_flags, 65535, 0, 0)
        return _summed(packet, source, body, 16)
    if packet.protocol == UDP:
        body = struct.pack("!HHHH4s", source_port, to, 12, 0, token)
        return _summed(packet, source, body, 6)
    if packet.protocol == SCTP:  # INIT: tag, window, streams (RFC 9260, 3.3.2); its checksum is nobody's business here
        return struct.pack("!HHII", source_port, to, 0, 0) + struct.pack("!BBH4sIHHI", 1, 0, 20, token, 65536, 1, 1, 1)
    if packet.protocol in (ICMP, ICMP6):
        kind = packet.icmp_type if packet.icmp_type is not None else {ICMP: 8, ICMP6: 128}[packet.protocol]
        body = struct.pack("!BBHHH4s", kind, packet.icmp_code or 0, 0, source_port, 1, token)
        return _summed(packet, source, body, 2)
    return token


def _summed(packet: Packet, source: IPAddress, body: bytes, at: int) -> bytes:
    pseudo = b""
    if packet.protocol != ICMP:
        pseudo = source.packed + packet.destination.packed + struct.pack("!II", len(body), packet.protocol)
    return body[:at] + _checksum(pseudo + body) + body[at + 2 :]


def _checksum(data: bytes) -> bytes:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    folded: bytes = (~total & 0xFFFF).to_bytes(2, "big")
    return folded


def parse(data: bytes) -> Parsed | None:
    """None: not IP, or cut short. Without extension headers: nobody here sends any."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        return of_body(data[9], ip_address(data[12:16]), ip_address(data[16:20]), data[(data[0] & 15) * 4 :])
    if len(data) >= 40 and data[0] >> 4 == 6:
        return of_body(data[6], ip_address(data[8:24]), ip_address(data[24:40]), data[40:])
    return None


def of_body(protocol: int, source: IPAddress, destination: IPAddress, body: bytes) -> Parsed:
    if protocol in PORTED and len(body) >= 8:
        ports = struct.unpack_from("!HH", body)
        flags = body[13] if protocol == TCP and len(body) >= 14 else 0
        return Parsed(protocol, source, destination, (ports[0], ports[1]), flags, payload=body)
    if protocol in (ICMP, ICMP6) and len(body) >= 4:
        return Parsed(protocol, source, destination, icmp=(body[0], body[1]), payload=body)
    return Parsed(protocol, source, destination, payload=body)


def is_packet(parsed: Parsed, packet: Packet, token: bytes) -> bool:
    """The packet itself, whatever was translated in it; not an answer that quotes it or acknowledges it."""
    if parsed.protocol != packet.protocol or token not in parsed.payload or parsed.is_error:
        return False
    return parsed.protocol != TCP or parsed.payload[4:8] == token


def is_refusal(parsed: Parsed, packet: Packet, token: bytes) -> bool:
    """An answer that says the packet is not wanted."""
    if parsed.is_error:
        return token in parsed.payload and parsed.icmp is not None and parsed.icmp[0] not in _REDIRECTS
    if not parsed.is_reset or packet.protocol != TCP:
        return False
    # RFC 9293, 3.10.7.1: it acknowledges what it answers, or takes its sequence number from there
    after = (int.from_bytes(token, "big") + bool(packet.tcp_flags & 3)) & 0xFFFFFFFF
    return parsed.payload[8:12] == after.to_bytes(4, "big") or bool(packet.tcp_flags & 0x10)


def number(address: IPAddress) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
