"""Whether a connection that a sidecar has opened ends at its own listener: the other end is in the same namespace then.

Rules that do not know a sidecar as the proxy lead its calls back to it, each of which would become a further call. A
node's proxy is known by its mark everywhere, and is not looked after like this.
"""

import socket
import struct
from typing import Final

from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT
from proxy.model.direction import Direction

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_TCP_LISTEN: Final = 10
"""linux/netlink.h, linux/sock_diag.h, net/tcp_states.h"""

_REQUEST: Final = struct.Struct("=IHHII BBBxI 2s2s16s16sI8s")
"""struct nlmsghdr; struct inet_diag_req_v2: family, protocol, extensions, states; struct inet_diag_sockid: ports and
addresses in network order, interface, cookie (linux/inet_diag.h)."""
_ANY_COOKIE: Final = b"\xff" * 8
_ANSWER: Final = struct.Struct("=IHHII BB")
"""struct nlmsghdr; of struct inet_diag_msg the family and the state."""

_REDIRECTED_TO: Final = {
    socket.AF_INET: socket.inet_pton(socket.AF_INET, "127.0.0.1").ljust(16, b"\0"),
    socket.AF_INET6: socket.inet_pton(socket.AF_INET6, "::1"),
}
"""Where REDIRECT leads what this host sends (net/netfilter/nf_nat_redirect.c)."""

_LED_BACK: Final = {
    # A Service may lead a sidecar to its own pod: that call goes on to the inbound listener, as anybody's does.
    Direction.OUTBOUND: (OUTBOUND_PORT.to_bytes(2, "big"),),
    Direction.INBOUND: (INBOUND_PORT.to_bytes(2, "big"), OUTBOUND_PORT.to_bytes(2, "big")),
}


class OwnEnds:
    """Asks sock_diag(7), which needs no capability; holds one netlink socket. Where the kernel is without it nothing is
    known, and nothing refused."""

    __slots__ = ("_netlink",)

    def __init__(self) -> None:
        """Raises OSError: no sock_diag here."""
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._netlink.setblocking(False)

    def led_back(self, sock: socket.SocketType, direction: Direction) -> bool:
        """Of a socket that connects or is connected: what stays within the host is there at once. Some 10 µs."""
        host, port = sock.getsockname()[:2]
        far = socket.inet_pton(sock.family, host).ljust(16, b"\0"), port.to_bytes(2, "big")
        return any(self._established(sock.family, listener, *far) for listener in _LED_BACK[direction])

    def _established(self, family: int, port: bytes, far_address: bytes, far_port: bytes) -> bool:
        near = _REDIRECTED_TO[socket.AddressFamily(family)]
        header = (_REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
        wanted = (family, socket.IPPROTO_TCP, 0, 0, port, far_port, near, far_address, 0, _ANY_COOKIE)
        try:
            self._netlink.send(_REQUEST.pack(*header, *wanted))
            answer = self._netlink.recv(4096)  # there with the return of send: af_netlink.c, netlink_unicast_kernel
        except OSError:  # ENOBUFS, ENOMEM
            return False
        if len(answer) < _ANSWER.size:
            return False
        _, kind, _, _, _, _, state = _ANSWER.unpack_from(answer)
        # The kernel names a listener where no connection matches (inet_lookup).
        return bool(kind == _SOCK_DIAG_BY_FAMILY and state != _TCP_LISTEN)

    def close(self) -> None:
        self._netlink.close()


def own_ends() -> OwnEnds | None:
    """None: no sock_diag here."""
    try:
        return OwnEnds()
    except OSError:
        return None
