"""One packet sent for real, and the kernel's trace of it beside what agent.explain says. Blocking; in the network
namespace that the calling thread is in."""

import errno
import os
import socket
import struct
from contextlib import ExitStack
from ipaddress import ip_network
from typing import Final

from agent.explain.packet import ICMP, ICMP6, SYN, TCP, UDP, ConntrackState, Packet, Way
from agent.ruleset.explained import Explained
from agent.ruleset.explaining import explained
from agent.ruleset.packet_options import BadPacket, Options
from agent.tracing.beside import Beside, beside
from agent.tracing.filter import Ends, Filter
from agent.tracing.watch import trace_while
from agent.verify.probes import acting_as

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_KINDS: Final = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM, ICMP: socket.SOCK_RAW, ICMP6: socket.SOCK_RAW}
_RESET: Final = struct.pack("=ii", 1, 0)
"""SO_LINGER: whoever took the connection is told at once that nobody wants it."""
_SO_MARK: Final = 36  # asm-generic/socket.h
_ECHO: Final = struct.Struct(">BBHHH")
_ALL_BITS: Final = 0xFFFFFFFF
_WAITS: Final = frozenset({errno.EINPROGRESS, errno.EAGAIN})


def tried(options: Options, *, everything: bool = False) -> tuple[Explained, Beside]:
    """Explained, then sent and traced. Raises BadPacket for what cannot be sent from here, NotPermitted (which names a
    capability), and as agent.ruleset.explaining.explained."""
    told = explained(options, everything=everything)
    packet = told.described.packet
    _sendable(packet)
    refused: list[str] = []
    with ExitStack() as sockets:
        trace = trace_while(_filter(packet), lambda: refused.append(_send(packet, sockets)))
    return told, beside(told.explanation, trace, refused[0])


def _sendable(packet: Packet) -> None:
    if packet.way is Way.INBOUND:
        told = "a packet that arrives cannot be sent from here: run `headgate rules trace` here, and send it from there"
        raise BadPacket("--live", told)
    if packet.protocol not in _KINDS:
        raise BadPacket("--live", "sends tcp, udp and icmp: give one of them with --proto")
    if packet.state is not ConntrackState.NEW or (packet.protocol == TCP and packet.tcp_flags != SYN):
        raise BadPacket("--live", "sends what opens a connection: leave out --state and --flags")
    if packet.protocol in (TCP, UDP) and packet.destination_port is None:
        raise BadPacket("--to", "to be sent the packet needs a port: give ADDR:PORT")


def _filter(packet: Packet) -> Filter:
    """No more than that packet, as far as it can be told from others beforehand."""
    bits = packet.destination.max_prefixlen
    port = packet.destination_port
    return Filter(
        destination=Ends(ip_network(f"{packet.destination}/{bits}"), None if port is None else (port, port)),
        protocol=packet.protocol,
        uid=None if packet.sender is None else packet.sender.uid,
        mark=(packet.mark, _ALL_BITS),
        way=Way.OUTBOUND,
    )


def _send(packet: Packet, sockets: ExitStack) -> str:
    """Why it was not sent, in the kernel's words; empty when it was. The socket stays open until `sockets` closes."""
    sender = packet.sender
    assert sender is not None
    assert sender.uid is not None
    assert sender.gid is not None
    kind = _KINDS[packet.protocol] | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with acting_as(sender.uid, sender.gid):
        sock = socket.socket(_FAMILIES[packet.destination.version], kind, packet.protocol)
    sockets.enter_context(sock)
    try:
        if packet.mark:
            sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, packet.mark)
        if packet.source is not None:
            sock.bind((str(packet.source), packet.source_port or 0))
        elif packet.source_port is not None:
            sock.bind(("", packet.source_port))
        if packet.protocol == TCP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        number = sock.connect_ex((str(packet.destination), packet.destination_port or 0))
        if number == 0 and packet.protocol != TCP:
            sock.send(b"" if packet.protocol == UDP else _echo(packet))
    except OSError as error:
        number = error.errno or errno.EIO
    return "" if number == 0 or number in _WAITS else os.strerror(number)


def _echo(packet: Packet) -> bytes:
    """An echo request; of ICMPv6 the kernel writes the checksum (RFC 3542 3.1)."""
    kind, code = packet.icmp_type or 0, packet.icmp_code or 0
    header = _ECHO.pack(kind, code, 0, 0, 0)
    return _ECHO.pack(kind, code, _checksum(header), 0, 0) if packet.protocol == ICMP else header


def _checksum(data: bytes) -> int:
    """RFC 1071; of an even number of bytes."""
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
