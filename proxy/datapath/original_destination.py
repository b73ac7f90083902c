"""Where a steered connection was going before the kernel redirected it."""

import socket
from typing import Final

from proxy.model.address import SocketAddress

SO_ORIGINAL_DST: Final = 80
"""include/uapi/linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST (netfilter_ipv6/ip6_tables.h) has the same number."""

_SOL_IPV6: Final = socket.IPPROTO_IPV6


def original_destination(sock: socket.socket) -> SocketAddress:
    """Asked of conntrack; a connection that was not redirected answers its own local address.

    Raises OSError when the peer is gone already.
    """
    try:
        if sock.family == socket.AF_INET:
            # struct sockaddr_in: family, port, address
            answer = sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
            return SocketAddress(socket.inet_ntoa(answer[4:8]), int.from_bytes(answer[2:4], "big"))
        # struct sockaddr_in6: family, port, flow label, address, scope
        answer = sock.getsockopt(_SOL_IPV6, SO_ORIGINAL_DST, 28)
        return SocketAddress(socket.inet_ntop(socket.AF_INET6, answer[8:24]), int.from_bytes(answer[2:4], "big"))
    except OSError:
        # No conntrack entry (ENOENT): nobody redirected it, so it was meant for this very address.
        host, port = sock.getsockname()[:2]
        return SocketAddress(host, port)
