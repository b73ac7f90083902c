"""conntrack's table, written from outside: a connection that it takes for established, and none. ctnetlink's numbers
are of linux/netfilter/nfnetlink_conntrack.h."""

import socket
import struct
from typing import Final

from agent.explain.packet import ICMP, ICMP6, TCP, Packet
from agent.kernel.netlink import NLM_F_ACK, NLM_F_CREATE, Message, Netlink, attribute, nested
from agent.pods import IPAddress
from tests.netns.explain.wire import PORTED, number

_NETLINK_NETFILTER: Final = 12
_NEW, _DELETE = 1 << 8, 1 << 8 | 2
_SEEN_REPLY, _ASSURED, _CONFIRMED = 1 << 1, 1 << 2, 1 << 3
_LIBERAL: Final = 0x08 | 0x02  # IP_CT_TCP_FLAG_BE_LIBERAL, …_SACK_PERM


def forget_all() -> None:
    """Of the namespace that the calling thread is in."""
    with Netlink(_NETLINK_NETFILTER) as netlink:
        netlink.commit([Message(_DELETE, NLM_F_ACK, struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))])


def establish(packet: Packet, source: IPAddress, source_port: int) -> None:
    """As if an answer to such a packet had been seen. Raises OSError."""
    there = (source, source_port, packet.destination, packet.destination_port or 0)
    body = _tuple(1, packet, *there) + _tuple(2, packet, there[2], there[3], there[0], there[1])
    body += attribute(3, (_SEEN_REPLY | _ASSURED | _CONFIRMED).to_bytes(4, "big"))
    body += attribute(7, (60).to_bytes(4, "big"))
    if packet.protocol == TCP:
        flags = bytes([_LIBERAL, _LIBERAL])
        body += nested(4, nested(1, attribute(1, b"\3"), attribute(4, flags), attribute(5, flags)))
    family = number(packet.destination)
    with Netlink(_NETLINK_NETFILTER) as netlink:
        message = Message(_NEW, NLM_F_CREATE | NLM_F_ACK, struct.pack("=BBH", family, 0, 0) + body)
        refused = netlink.commit([message])[0]
    if refused:
        raise OSError(refused, f"conntrack of {packet}")


def _tuple(kind: int, packet: Packet, source: IPAddress, sport: int, destination: IPAddress, dport: int) -> bytes:
    first = 1 if source.version == 4 else 3
    protocol = attribute(1, bytes([packet.protocol]))
    if packet.protocol in PORTED:
        protocol += attribute(2, sport.to_bytes(2, "big")) + attribute(3, dport.to_bytes(2, "big"))
    elif packet.protocol in (ICMP, ICMP6):
        echo = {(ICMP, 1): 8, (ICMP, 2): 0, (ICMP6, 1): 128, (ICMP6, 2): 129}[packet.protocol, kind]
        base = 4 if packet.protocol == ICMP else 7
        identity = (sport if kind == 1 else dport).to_bytes(2, "big")
        protocol += attribute(base, identity) + attribute(base + 1, bytes([echo])) + attribute(base + 2, b"\0")
    return nested(
        kind, nested(1, attribute(first, source.packed), attribute(first + 1, destination.packed)), nested(2, protocol)
    )
