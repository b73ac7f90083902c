"""conntrack entries of the namespace that the calling thread is in, by ctnetlink.

Numbers are of linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h, nf_conntrack_common.h and nf_conntrack_tcp.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Final

from agent.kernel.netlink import Message, Netlink, attribute, attributes, nested
from agent.plan import FlowKey
from agent.pods import IPAddress
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT

_NETLINK_NETFILTER: Final = 12
_CT_GET: Final = (1 << 8) | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NFGENMSG: Final = struct.Struct("=BBH")  # family, version, resource
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_PROTOINFO = 1, 2, 3, 4
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST, _CTA_IP_V6_SRC, _CTA_IP_V6_DST = 1, 2, 3, 4
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP: Final = 1
_CTA_PROTOINFO_TCP_STATE: Final = 1

_IPS_DST_NAT: Final = 1 << 5
_TCP_CONNTRACK_TIME_WAIT: Final = 7
"""From here on (TIME_WAIT 7, CLOSE 8) an entry only waits to be forgotten."""

STEERED_PORTS: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT})


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a TCP connection."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A TCP connection as conntrack knows it: what was sent, what answers are expected to look like."""

    original: Tuple
    reply: Tuple
    translated: bool
    alive: bool

    @property
    def steered_to(self) -> int | None:
        """The port that the connection was redirected to; None when its destination was not translated."""
        return self.reply.source_port if self.translated else None


def count_steered(ports: frozenset[int] = STEERED_PORTS) -> int:
    """Living connections that were redirected to one of `ports`: what a pod that leaves still has in the mesh.

    Raises OSError when ctnetlink cannot be read (no CAP_NET_ADMIN, or CONFIG_NF_CT_NETLINK off).
    """
    return sum(entry.alive and entry.steered_to in ports for entry in _entries())


def other_ends() -> dict[FlowKey, FlowKey]:
    """Of each living connection whose addresses or ports conntrack translates: the one end's socket by the other's,
    both ways. Raises OSError as `count_steered`."""
    ends = {}
    for entry in _entries():
        opener, answerer = _key(entry.original), _key(entry.reply)
        if entry.alive and opener != (*answerer[2:], *answerer[:2]):
            ends[opener], ends[answerer] = answerer, opener
    return ends


def _key(sent: Tuple) -> FlowKey:
    return sent.source, sent.source_port, sent.destination, sent.destination_port


def _entries() -> Iterator[Entry]:
    with Netlink(_NETLINK_NETFILTER) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            for data in netlink.dump(Message(_CT_GET, 0, _NFGENMSG.pack(family, 0, 0))):
                entry = _entry(data)
                if entry is not None:
                    yield entry


def find(original: Tuple) -> Entry | None:
    """The entry of the TCP connection that was sent as `original` (zone 0); None when there is none. Raises OSError."""
    ipv4 = isinstance(original.source, IPv4Address)
    source, destination = (_CTA_IP_V4_SRC, _CTA_IP_V4_DST) if ipv4 else (_CTA_IP_V6_SRC, _CTA_IP_V6_DST)
    payload = _NFGENMSG.pack(socket.AF_INET if ipv4 else socket.AF_INET6, 0, 0) + nested(
        _CTA_TUPLE_ORIG,
        nested(
            _CTA_TUPLE_IP,
            attribute(source, original.source.packed),
            attribute(destination, original.destination.packed),
        ),
        nested(
            _CTA_TUPLE_PROTO,
            attribute(_CTA_PROTO_NUM, bytes([socket.IPPROTO_TCP])),
            attribute(_CTA_PROTO_SRC_PORT, original.source_port.to_bytes(2, "big")),
            attribute(_CTA_PROTO_DST_PORT, original.destination_port.to_bytes(2, "big")),
        ),
    )
    try:
        with Netlink(_NETLINK_NETFILTER) as netlink:
            return _entry(netlink.ask(Message(_CT_GET, 0, payload)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _entry(data: bytes) -> Entry | None:
    """None for another protocol than TCP."""
    found = attributes(data[_NFGENMSG.size :])
    original = _tuple(found.get(_CTA_TUPLE_ORIG, b""))
    reply = _tuple(found.get(_CTA_TUPLE_REPLY, b""))
    if original is None or reply is None:
        return None
    status = int.from_bytes(found.get(_CTA_STATUS, b""), "big")
    tcp = attributes(attributes(found.get(_CTA_PROTOINFO, b"")).get(_CTA_PROTOINFO_TCP, b""))
    state = tcp.get(_CTA_PROTOINFO_TCP_STATE, b"\0")[0]
    return Entry(original, reply, bool(status & _IPS_DST_NAT), state < _TCP_CONNTRACK_TIME_WAIT)


def _tuple(data: bytes) -> Tuple | None:
    parts = attributes(data)
    addresses = attributes(parts.get(_CTA_TUPLE_IP, b""))
    ports = attributes(parts.get(_CTA_TUPLE_PROTO, b""))
    source = addresses.get(_CTA_IP_V4_SRC) or addresses.get(_CTA_IP_V6_SRC)
    destination = addresses.get(_CTA_IP_V4_DST) or addresses.get(_CTA_IP_V6_DST)
    if ports.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_TCP]) or source is None or destination is None:
        return None
    return Tuple(
        ip_address(source),
        int.from_bytes(ports.get(_CTA_PROTO_SRC_PORT, b""), "big"),
        ip_address(destination),
        int.from_bytes(ports.get(_CTA_PROTO_DST_PORT, b""), "big"),
    )
