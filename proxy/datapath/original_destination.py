"""Where a steered connection was going before the kernel redirected it."""

import socket
from typing import Final

from proxy.model.address import SocketAddress

SO_ORIGINAL_DST: Final = 80
"""include/uapi/linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST (netfilter_ipv6/ip6_tables.h) has the same number."""

_AF_INET: Final = int(socket.AF_INET)
_IPPROTO_IP: Final = int(socket.IPPROTO_IP)
_IPPROTO_IPV6: Final = int(socket.IPPROTO_IPV6)


def original_sockaddr(sock: socket.SocketType) -> bytes:
    """Asked of conntrack, as it answers: struct sockaddr_in or sockaddr_in6, by the socket's family. Empty when there
    is no entry (ENOENT), since nobody redirected the connection or its peer is gone already."""
    try:
        if sock.family == _AF_INET:
            return sock.getsockopt(_IPPROTO_IP, SO_ORIGINAL_DST, 16)
        return sock.getsockopt(_IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
    except OSError:
        return b""


def parse_sockaddr(told: bytes) -> SocketAddress:
    port = int.from_bytes(told[2:4], "big")
    if len(told) == 16:  # family, port, address
        return SocketAddress(socket.inet_ntoa(told[4:8]), port)
    return SocketAddress(socket.inet_ntop(socket.AF_INET6, told[8:24]), port)  # family, port, flow, address, scope


def own_address(sock: socket.SocketType) -> SocketAddress:
    """What a connection that nobody redirected was meant for. Raises OSError."""
    host, port = sock.getsockname()[:2]
    return SocketAddress(host, port)
