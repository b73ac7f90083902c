"""conntrack entries of the namespace that the calling thread is in, by ctnetlink.

Numbers are of linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h, nf_conntrack_common.h and nf_conntrack_tcp.h.
"""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Final

from agent.kernel.netlink import Message, Netlink, attribute, attributes, nested
from agent.plan import FlowKey
from agent.pods import IPAddress
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT

_NETLINK_NETFILTER: Final = 12
_CT_GET, _CT_DELETE, _CT_GET_STATS_CPU, _CT_GET_STATS = (1 << 8 | kind for kind in (1, 2, 4, 5))
"""NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*"""
_NFGENMSG: Final = struct.Struct("=BBH")  # family, version, resource
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_PROTOINFO = 1, 2, 3, 4
_CTA_STATUS_MASK: Final = 26
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO, _CTA_TUPLE_ZONE = 1, 2, 3
_CTA_IP_V4_SRC, _CTA_IP_V4_DST, _CTA_IP_V6_SRC, _CTA_IP_V6_DST = 1, 2, 3, 4
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP: Final = 1
_CTA_PROTOINFO_TCP_STATE: Final = 1
_CTA_STATS_DROP: Final = 10
_CTA_STATS_GLOBAL_ENTRIES, _CTA_STATS_GLOBAL_MAX_ENTRIES = 1, 2

_IPS_DST_NAT: Final = 1 << 5
_TCP_CONNTRACK_ESTABLISHED: Final = 3
_TCP_CONNTRACK_TIME_WAIT: Final = 7
"""From here on (TIME_WAIT 7, CLOSE 8) an entry only waits to be forgotten."""

_OVER: Final = tuple(attribute(_CTA_PROTOINFO_TCP_STATE, bytes([state]))[:5] for state in (7, 8))
"""How a state of TIME_WAIT or CLOSE is written in an entry."""

_AT_ONCE: Final = 100
"""Requests in one send: each answer takes a kilobyte of the receive buffer (net.core.rmem_default, 212,992), and they
all come before the send returns."""

NEARLY_FULL: Final = 0.95
"""From here on the kernel itself drops closing connections to make room (nf_conntrack_core.c: nf_conntrack_max95)."""

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
    """A TCP connection as conntrack knows it: what was sent, what answers are expected to look like. `zone`: of the
    direction in which it was opened; the proxy's own have one (DESIGN 4)."""

    original: Tuple
    reply: Tuple
    translated: bool
    alive: bool
    established: bool = False
    zone: int = 0

    @property
    def steered_to(self) -> int | None:
        """The port that the connection was redirected to; None when its destination was not translated."""
        return self.reply.source_port if self.translated else None


@dataclass(frozen=True, slots=True)
class Table:
    """How full the namespace's share of the table is: each has `limit` entries of its own (nf_conntrack_core.c:
    __nf_conntrack_alloc compares the namespace's count with the one nf_conntrack_max). `dropped`: packets that found no
    room, since the namespace was made; None where there is room."""

    entries: int
    limit: int
    dropped: int | None = None

    @property
    def is_full(self) -> bool:
        return 0 < self.limit <= self.entries


def table() -> Table:
    """One message, or two when it is nearly full, whatever the table holds. Raises OSError as `steered`."""
    with Netlink(_NETLINK_NETFILTER) as netlink:
        data = netlink.ask(Message(_CT_GET_STATS, 0, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0)))
        totals = attributes(data[_NFGENMSG.size :])
        entries, limit = (
            int.from_bytes(totals.get(kind, b""), "big")
            for kind in (_CTA_STATS_GLOBAL_ENTRIES, _CTA_STATS_GLOBAL_MAX_ENTRIES)
        )
        if entries < NEARLY_FULL * limit:
            return Table(entries, limit)
        dropped = sum(
            int.from_bytes(attributes(cpu[_NFGENMSG.size :]).get(_CTA_STATS_DROP, b""), "big")
            for cpu in netlink.dump(Message(_CT_GET_STATS_CPU, 0, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0)))
        )
    return Table(entries, limit, dropped)


def count_steered(ports: frozenset[int] = STEERED_PORTS) -> int:
    """Living connections that were redirected to one of `ports`: what a pod that leaves still has in the mesh.
    Raises OSError as `steered`."""
    return len(steered(ports))


def steered(ports: frozenset[int] = STEERED_PORTS) -> tuple[Entry, ...]:
    """Living connections that were redirected to one of `ports`.

    Raises OSError when ctnetlink cannot be read (no CAP_NET_ADMIN, or CONFIG_NF_CT_NETLINK off).
    """
    # The kernel leaves out what is not translated (since Linux 5.13; an older one ignores the wish): a table may hold
    # 262,144 entries, and each costs 10 µs to read here.
    translated = _IPS_DST_NAT.to_bytes(4, "big")
    only = attribute(_CTA_STATUS, translated) + attribute(_CTA_STATUS_MASK, translated)
    return tuple(entry for entry in _entries(only) if entry.alive and entry.steered_to in ports)


def forget(originals: Iterable[Tuple]) -> None:
    """Takes entries (zone 0) out of the table: the next packet of such a connection is new to conntrack. One that is
    not there is no failure. Raises OSError."""
    messages = (
        Message(_CT_DELETE, 0, _NFGENMSG.pack(_family(original), 0, 0) + _named(original)) for original in originals
    )
    with Netlink(_NETLINK_NETFILTER) as netlink:
        while some := tuple(itertools.islice(messages, _AT_ONCE)):
            refused = next((number for number in netlink.commit(some) if number not in (0, errno.ENOENT)), 0)
            if refused:
                raise OSError(refused, f"ctnetlink delete: {os.strerror(refused)}")


def other_ends() -> dict[FlowKey, FlowKey]:
    """Of each living connection whose addresses or ports conntrack translates: the one end's socket by the other's,
    both ways. Raises OSError as `steered`.

    The proxy speaks to the application from its client's address, and the kernel may give it a port that the client
    uses as well. Then the socket of that name here is the proxy's, and the client's is elsewhere: two entries of one
    original tuple, in two zones.
    """
    entries = [entry for entry in _entries() if entry.alive]
    proxys = {_key(entry.original) for entry in entries if entry.zone}
    ends = {}
    for entry in entries:
        opener, answerer = _key(entry.original), _key(entry.reply)
        if opener != (*answerer[2:], *answerer[:2]) and (entry.zone or opener not in proxys):
            ends[opener], ends[answerer] = answerer, opener
    return ends


def opened() -> frozenset[FlowKey]:
    """The first packet of each living connection but the proxy's own: who opened it, to where. Raises OSError as
    `steered`."""
    return frozenset(_key(entry.original) for entry in _entries() if entry.alive and not entry.zone)


def _key(sent: Tuple) -> FlowKey:
    return sent.source, sent.source_port, sent.destination, sent.destination_port


def _entries(only: bytes = b"") -> Iterator[Entry]:
    """All that are not merely waiting to be forgotten: of these a load of short connections leaves ten thousand, and to
    take each apart would take longer than whatever the entries are wanted for."""
    # Both families in one: a dump walks the whole machine's table, a lock a bucket, 6 ms at its 262,144 buckets.
    with Netlink(_NETLINK_NETFILTER) as netlink:
        for data in netlink.dump(Message(_CT_GET, 0, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0) + only)):
            if any(over in data for over in _OVER):
                continue
            entry = _entry(data)
            if entry is not None:
                yield entry


def find(original: Tuple, *, zone: int = 0, protocol: int = socket.IPPROTO_TCP) -> Entry | None:
    """The entry of the connection that was sent as `original`; None when there is none. `zone`: of the original
    direction. Of UDP `alive` and `established` say nothing. Raises OSError."""
    payload = _NFGENMSG.pack(_family(original), 0, 0) + _named(original, zone, protocol)
    try:
        with Netlink(_NETLINK_NETFILTER) as netlink:
            return _entry(netlink.ask(Message(_CT_GET, 0, payload)), protocol)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _family(original: Tuple) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(original.source, IPv4Address) else socket.AF_INET6


def _named(original: Tuple, zone: int = 0, protocol: int = socket.IPPROTO_TCP) -> bytes:
    ipv4 = isinstance(original.source, IPv4Address)
    source, destination = (_CTA_IP_V4_SRC, _CTA_IP_V4_DST) if ipv4 else (_CTA_IP_V6_SRC, _CTA_IP_V6_DST)
    return nested(
        _CTA_TUPLE_ORIG,
        nested(
            _CTA_TUPLE_IP,
            attribute(source, original.source.packed),
            attribute(destination, original.destination.packed),
        ),
        nested(
            _CTA_TUPLE_PROTO,
            attribute(_CTA_PROTO_NUM, bytes([protocol])),
            attribute(_CTA_PROTO_SRC_PORT, original.source_port.to_bytes(2, "big")),
            attribute(_CTA_PROTO_DST_PORT, original.destination_port.to_bytes(2, "big")),
        ),
        *((attribute(_CTA_TUPLE_ZONE, zone.to_bytes(2, "big")),) if zone else ()),
    )


def _entry(data: bytes, protocol: int = socket.IPPROTO_TCP) -> Entry | None:
    """None for another protocol."""
    found = attributes(data[_NFGENMSG.size :])
    sent = found.get(_CTA_TUPLE_ORIG, b"")
    original = _tuple(sent, protocol)
    reply = _tuple(found.get(_CTA_TUPLE_REPLY, b""), protocol)
    if original is None or reply is None:
        return None
    status = int.from_bytes(found.get(_CTA_STATUS, b""), "big")
    tcp = attributes(attributes(found.get(_CTA_PROTOINFO, b"")).get(_CTA_PROTOINFO_TCP, b""))
    state = tcp.get(_CTA_PROTOINFO_TCP_STATE, b"\0")[0]
    alive, established = state < _TCP_CONNTRACK_TIME_WAIT, state == _TCP_CONNTRACK_ESTABLISHED
    zone = int.from_bytes(attributes(sent).get(_CTA_TUPLE_ZONE, b""), "big")
    return Entry(original, reply, bool(status & _IPS_DST_NAT), alive, established, zone)


def _tuple(data: bytes, protocol: int) -> Tuple | None:
    parts = attributes(data)
    addresses = attributes(parts.get(_CTA_TUPLE_IP, b""))
    ports = attributes(parts.get(_CTA_TUPLE_PROTO, b""))
    source = addresses.get(_CTA_IP_V4_SRC) or addresses.get(_CTA_IP_V6_SRC)
    destination = addresses.get(_CTA_IP_V4_DST) or addresses.get(_CTA_IP_V6_DST)
    if ports.get(_CTA_PROTO_NUM) != bytes([protocol]) or source is None or destination is None:
        return None
    return Tuple(
        ip_address(source),
        int.from_bytes(ports.get(_CTA_PROTO_SRC_PORT, b""), "big"),
        ip_address(destination),
        int.from_bytes(ports.get(_CTA_PROTO_DST_PORT, b""), "big"),
    )
