"""A captured packet's IP headers, whatever link it came by. Pure; absent is what is cut short or not IP."""

import struct
from typing import Final

from agent.capture import pcapng
from agent.tracing import headers
from agent.tracing.headers import IPV4, IPV6, Headers

_MACS: Final = 12
_TAGS: Final = frozenset({0x8100, 0x88A8})
_KINDS: Final = {0x0800: IPV4, 0x86DD: IPV6}
_TYPE: Final = struct.Struct(">H")
_AS_MUCH: Final = 512
"""More than IP's header, its extensions and the beginning of the transport's."""
_IPV4_BYTES, _IPV6_BYTES, _NEXT = 20, 40, 6
_FRAGMENT, _EXTENSIONS = 44, frozenset({0, 43, 44, 60, 135})  # RFC 7045
_MOST_EXTENSIONS: Final = 8

LINK_TYPES: Final = {
    1: pcapng.ETHERNET,
    772: pcapng.ETHERNET,  # loopback, which has Ethernet's header too
    65534: pcapng.RAW,  # none: tun, WireGuard
    768: pcapng.RAW,  # tunnels: IPv4 and IPv6 in IPv4, IPv6, GRE without Ethernet
    769: pcapng.RAW,
    776: pcapng.RAW,
    778: pcapng.RAW,
    823: pcapng.RAW,
}
"""By ARPHRD_* (linux/if_arp.h). Packets of other links are not captured: a reader could not tell what they are."""


def of(link_type: int, data: bytes) -> Headers | None:
    if link_type == pcapng.RAW:
        return _ip({4: IPV4, 6: IPV6}.get(data[0] >> 4 if data else 0, 0), data[:_AS_MUCH])
    offset = _MACS
    while len(data) >= offset + 2:
        kind = _TYPE.unpack_from(data, offset)[0]
        if kind not in _TAGS:
            return _ip(_KINDS.get(kind, 0), data[offset + 2 : offset + 2 + _AS_MUCH])
        offset += 4
    return None


def _ip(nfproto: int, data: bytes) -> Headers | None:
    if nfproto == IPV4 and data:
        size = (data[0] & 0xF) * 4
        return headers.of(IPV4, data, data[size:]) if size >= _IPV4_BYTES else None
    if nfproto == IPV6 and len(data) >= _IPV6_BYTES:
        return _ipv6(data)
    return None


def _ipv6(data: bytes) -> Headers | None:
    """The extensions between the headers are skipped."""
    kind, offset = data[_NEXT], _IPV6_BYTES
    for _ in range(_MOST_EXTENSIONS):
        if kind not in _EXTENSIONS or len(data) < offset + 8:
            break
        if kind != _FRAGMENT:
            kind, offset = data[offset], offset + (data[offset + 1] + 1) * 8
            continue
        if _TYPE.unpack_from(data, offset + 2)[0] & 0xFFF8:  # not the first fragment: no transport header in it
            return headers.of(IPV6, _as_if(data, data[offset]), b"")
        kind, offset = data[offset], offset + 8
    return headers.of(IPV6, _as_if(data, kind), data[offset:])


def _as_if(data: bytes, following: int) -> bytes:
    """IPv6's header as if the transport followed at once."""
    return data[:_NEXT] + bytes([following]) + data[_NEXT + 1 : _IPV6_BYTES]
