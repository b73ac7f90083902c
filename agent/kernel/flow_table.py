"""Every flow that conntrack knows in the namespace that the calling thread is in, TCP and UDP, with its translation.

Numbers are of linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h and nf_conntrack_tcp.h.
"""

import functools
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.kernel.netlink import Message, Netlink, attribute_list, attributes
from agent.plan import FlowKey
from agent.pods import IPAddress

_NETLINK_NETFILTER: Final = 12
_CT_GET: Final = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NFGENMSG: Final = struct.Struct("=BBH")  # family, version, resource
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_PROTOINFO, _CTA_TIMESTAMP = 1, 2, 3, 4, 20
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO, _CTA_TUPLE_ZONE = 1, 2, 3
_CTA_IP_V4_SRC, _CTA_IP_V4_DST, _CTA_IP_V6_SRC, _CTA_IP_V6_DST = 1, 2, 3, 4
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE = 1, 1
_CTA_TIMESTAMP_START: Final = 1
_IPS_SEEN_REPLY, _IPS_DST_NAT = 1 << 1, 1 << 5
_TCP_CONNTRACK_TIME_WAIT: Final = 7
"""From here on an entry only waits to be forgotten."""


@dataclass(frozen=True, slots=True)
class Flow:
    """`opener`: the socket that sent the first packet, `answerer`: the one that it came to, each as itself sees it
    (local, port, remote, port). Untranslated, one is the other's reverse. `translated`: the destination was. `zone`: of
    the original direction. `since_s`: time of day when it began; None unless net.netfilter.nf_conntrack_timestamp."""

    protocol: int
    opener: FlowKey
    answerer: FlowKey
    translated: bool
    answered: bool
    zone: int = 0
    since_s: float | None = None


def flows() -> tuple[Flow, ...]:
    """All but those that have ended. Raises OSError when ctnetlink cannot be read (no CAP_NET_ADMIN, or CONFIG_NF_CT_-
    NETLINK off)."""
    found = []
    with Netlink(_NETLINK_NETFILTER) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            for data in netlink.dump(Message(_CT_GET, 0, _NFGENMSG.pack(family, 0, 0))):
                if (flow := _flow(data)) is not None:
                    found.append(flow)
    return tuple(found)


def _flow(data: bytes) -> Flow | None:
    """None for another protocol, and for what has ended."""
    parts = attributes(data[_NFGENMSG.size :])
    sent = attributes(parts.get(_CTA_TUPLE_ORIG, b""))
    original, reply = _key(sent), _key(attributes(parts.get(_CTA_TUPLE_REPLY, b"")))
    if original is None or reply is None:
        return None
    protocol, opener = original
    if protocol == socket.IPPROTO_TCP:
        of_tcp = attributes(attributes(parts.get(_CTA_PROTOINFO, b"")).get(_CTA_PROTOINFO_TCP, b""))
        if of_tcp.get(_CTA_PROTOINFO_TCP_STATE, b"\0")[0] >= _TCP_CONNTRACK_TIME_WAIT:
            return None
    status = int.from_bytes(parts.get(_CTA_STATUS, b""), "big")
    zone = int.from_bytes(sent.get(_CTA_TUPLE_ZONE, b""), "big")
    began_ns = int.from_bytes(attributes(parts.get(_CTA_TIMESTAMP, b"")).get(_CTA_TIMESTAMP_START, b""), "big")
    return Flow(
        protocol,
        opener,
        reply[1],
        bool(status & _IPS_DST_NAT),
        bool(status & _IPS_SEEN_REPLY),
        zone,
        began_ns / 1e9 if began_ns else None,
    )


def _key(parts: dict[int, bytes]) -> tuple[int, FlowKey] | None:
    """Protocol, and the end that sends this direction."""
    addresses = dict(attribute_list(parts.get(_CTA_TUPLE_IP, b"")))
    ports = dict(attribute_list(parts.get(_CTA_TUPLE_PROTO, b"")))
    source = addresses.get(_CTA_IP_V4_SRC) or addresses.get(_CTA_IP_V6_SRC)
    destination = addresses.get(_CTA_IP_V4_DST) or addresses.get(_CTA_IP_V6_DST)
    protocol = int.from_bytes(ports.get(_CTA_PROTO_NUM, b""), "big")
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) or source is None or destination is None:
        return None
    sport = int.from_bytes(ports.get(_CTA_PROTO_SRC_PORT, b""), "big")
    dport = int.from_bytes(ports.get(_CTA_PROTO_DST_PORT, b""), "big")
    return protocol, (_address(source), sport, _address(destination), dport)


@functools.lru_cache(maxsize=65536)
def _address(raw: bytes) -> IPAddress:
    return ip_address(raw)
