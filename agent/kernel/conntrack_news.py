"""conntrack entries of any protocol, as the kernel tells them when they are made, or when it is asked for one.

Numbers are of linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
"""

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.kernel.netlink import Message, Netlink, attribute, attributes, nested
from agent.pods import IPAddress

_HEADER: Final = struct.Struct("=IHHIIBBH")  # struct nlmsghdr, struct nfgenmsg
_NFGENMSG: Final = struct.Struct("=BBH")
_CT_NEW, _CT_GET = 1 << 8, 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_FAMILIES: Final = {4: 2, 6: 10}  # IP version: AF_*
_ORIGINAL, _REPLY, _STATUS, _ID, _ZONE = 1, 2, 3, 12, 18
_STATUS_MASK: Final = 26  # since Linux 5.13; an older kernel gives all entries
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE = 1, 2, 3
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_SRC_NAT, _DST_NAT = 1 << 4, 1 << 5


@dataclass(frozen=True, slots=True)
class Direction:
    """Ports None: the protocol has none."""

    source: IPAddress
    source_port: int | None
    destination: IPAddress
    destination_port: int | None


@dataclass(frozen=True, slots=True)
class Connection:
    """`original`: as its first packet was sent; `reply`: as its answers come before they are translated back, so its
    source is where the first packet was led. `ct_id`: the kernel's, of this entry (nf_ct_get_id)."""

    ct_id: int
    protocol: int
    original: Direction
    reply: Direction
    status: int
    zone: int = 0

    @property
    def destination_translated(self) -> bool:
        return bool(self.status & _DST_NAT)

    @property
    def source_translated(self) -> bool:
        return bool(self.status & _SRC_NAT)


def decode(data: bytes) -> Connection | None:
    """A netlink message, of a group or of a dump; None for another message."""
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[1] != _CT_NEW:
        return None
    return connection(data[_HEADER.size :])


def connection(entry: bytes) -> Connection | None:
    """The attributes of one entry, behind nfgenmsg."""
    found = attributes(entry)
    original, reply = _direction(found.get(_ORIGINAL, b"")), _direction(found.get(_REPLY, b""))
    if original is None or reply is None:
        return None
    zone = found.get(_ZONE) or attributes(found.get(_ORIGINAL, b"")).get(_TUPLE_ZONE, b"")
    return Connection(
        int.from_bytes(found.get(_ID, b""), "big"),
        original[0],
        original[1],
        reply[1],
        int.from_bytes(found.get(_STATUS, b""), "big"),
        int.from_bytes(zone, "big"),
    )


def _direction(data: bytes) -> tuple[int, Direction] | None:
    parts = attributes(data)
    addresses, ports = attributes(parts.get(_TUPLE_IP, b"")), attributes(parts.get(_TUPLE_PROTO, b""))
    source = addresses.get(_V4_SRC) or addresses.get(_V6_SRC)
    destination = addresses.get(_V4_DST) or addresses.get(_V6_DST)
    if not source or not destination or not ports.get(_PROTO_NUM):
        return None
    try:
        ends = ip_address(source), ip_address(destination)
    except ValueError:
        return None
    here, there = (int.from_bytes(ports[kind], "big") if kind in ports else None for kind in (_SRC_PORT, _DST_PORT))
    return ports[_PROTO_NUM][0], Direction(ends[0], here, ends[1], there)


def translated(netlink: Netlink) -> Iterator[Connection]:
    """Entries that are there and whose source or destination is translated, some twice; of the namespace of `netlink`.
    Raises OSError."""
    for status in (_SRC_NAT, _DST_NAT):
        wanted = status.to_bytes(4, "big")
        only = attribute(_STATUS, wanted) + attribute(_STATUS_MASK, wanted)
        for family in _FAMILIES.values():
            for data in netlink.dump(Message(_CT_GET, 0, _NFGENMSG.pack(family, 0, 0) + only)):
                if (found := connection(data[_NFGENMSG.size :])) is not None:
                    yield found


def find(netlink: Netlink, protocol: int, packet: Direction, zone: int = 0) -> Connection | None:
    """The entry of a packet that looks so, of either direction; of the namespace of `netlink`. None when there is
    none, or when the packet has no ports to tell it by. Raises OSError."""
    if packet.source_port is None or packet.destination_port is None:
        return None
    family = _FAMILIES[packet.source.version]
    request = _NFGENMSG.pack(family, 0, 0) + _key(protocol, packet, zone)
    try:
        return connection(netlink.ask(Message(_CT_GET, 0, request))[_NFGENMSG.size :])
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _key(protocol: int, packet: Direction, zone: int) -> bytes:
    source, destination = (_V4_SRC, _V4_DST) if packet.source.version == 4 else (_V6_SRC, _V6_DST)
    ports = ((_SRC_PORT, packet.source_port or 0), (_DST_PORT, packet.destination_port or 0))
    return nested(
        _ORIGINAL,
        nested(_TUPLE_IP, attribute(source, packet.source.packed), attribute(destination, packet.destination.packed)),
        nested(
            _TUPLE_PROTO,
            attribute(_PROTO_NUM, bytes([protocol])),
            *(attribute(kind, port.to_bytes(2, "big")) for kind, port in ports),
        ),
        *((attribute(_TUPLE_ZONE, zone.to_bytes(2, "big")),) if zone else ()),
    )
