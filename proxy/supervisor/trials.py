"""Connections that a sidecar opens, before it serves anybody, to learn what its pod's rules and routes do with its own.

None leaves the host: one to elsewhere may be forwarded by nobody (TTL 1), the others are to the pod's own address.
"""

import asyncio
import errno
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROOF_PORT, PROXY_MARK, RETURN_MARK

ANSWER_S: Final = 0.25
"""What stays within the host is answered in the instant it is sent; a busy one may be that late."""

ELSEWHERE: Final = {socket.AF_INET: "192.0.2.2", socket.AF_INET6: "2001:db8::2"}
"""Nobody's, by RFC 5737 and 3849; the first is what linkerd-network-validator connects to."""
STRANGER: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""A client of nowhere."""

_IPV6_TRANSPARENT: Final = 75
"""include/uapi/linux/in6.h; Python names only the IPv4 one."""

_NLMSG_ERROR: Final = 2
_RTM_GETROUTE: Final = 26
_RTA_DST: Final = 1
_RTA_MARK: Final = 16
_NLM_F_REQUEST: Final = 1
_RTN_LOCAL: Final = 2
_ROUTE: Final = struct.Struct("=IHHII BBBBBBBBI")
"""struct nlmsghdr and struct rtmsg: linux/netlink.h, linux/rtnetlink.h."""
_ATTRIBUTE: Final = struct.Struct("=HH")


class Outcome(Enum):
    LED_BACK = "led back"  # to a listener of this proxy
    NOT_LED_BACK = "not led back"
    NO_SUCH_SOURCE = "no such source"


@dataclass(frozen=True, slots=True)
class Permissions:
    """What this process may do with a socket, tried: CAP_NET_ADMIN, or in part CAP_NET_RAW."""

    mark: bool
    transparent: bool


def permissions() -> Permissions:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        return Permissions(
            _sets(sock, socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK),
            _sets(sock, socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1),
        )


def _sets(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except PermissionError:
        return False
    return True


def own_address(family: socket.AddressFamily) -> str:
    """The address that the pod speaks from; "" when it has none of this family, or no way out."""
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((ELSEWHERE[family], PROOF_PORT))  # nothing is sent
        return str(sock.getsockname()[0])
    return ""


async def call_elsewhere(family: socket.AddressFamily, marks: bool) -> Outcome:
    """As this proxy calls a server."""
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        return await _call(sock, ELSEWHERE[family], marks)


async def call_application(address: str, source: str, marks: bool) -> Outcome:
    """As this proxy calls the application at the pod's own address; `source` "": the kernel's choice."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        if source:
            try:
                sock.bind((source, 0))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    return Outcome.NO_SUCH_SOURCE
                raise
        return await _call(sock, address, marks)


async def _call(sock: socket.socket, address: str, marks: bool) -> Outcome:
    if marks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            # No application has this port, and the worker takes who says nothing there for nobody.
            await asyncio.get_running_loop().sock_connect(sock, (address, PROOF_PORT))
        if _is_met_here(sock):
            return Outcome.LED_BACK
    return Outcome.NOT_LED_BACK


def _is_met_here(sock: socket.socket) -> bool:
    """Whether the other end is a listener's of this proxy: then both ends are in the table of this namespace."""
    host, port = sock.getsockname()[:2]
    packed = socket.inet_pton(sock.family, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    own = "".join(f"{word:08X}" for word in words) + f":{port:04X}"
    table = "tcp" if sock.family == socket.AF_INET else "tcp6"
    for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
        _, here, there, *_ = line.split()
        if there == own and int(here.rsplit(":", 1)[1], 16) in {OUTBOUND_PORT, INBOUND_PORT}:
            return True
    return False


async def call_with_a_strangers_address(address: str) -> bool:
    """Whether a connection to the pod's own address that seems to come from elsewhere comes about: the answers to it
    must find back, which takes the rules and the route of agent.kernel.iproute, or others that do the same."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if not _answers_lead_here(family):
        return False  # asked first: otherwise the answers would go out into the world
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    with suppress(OSError, TimeoutError), socket.socket(family, kind) as server, socket.socket(family, kind) as client:
        server.bind((address, 0))
        server.listen(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
        if family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        else:
            client.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        client.bind((STRANGER[family], 0))
        async with asyncio.timeout(ANSWER_S):
            await asyncio.get_running_loop().sock_connect(client, server.getsockname()[:2])
            accepted, seen = await asyncio.get_running_loop().sock_accept(server)
            accepted.close()
            return bool(seen[0] == STRANGER[family])
    return False


def _answers_lead_here(family: socket.AddressFamily) -> bool:
    """What `ip route get STRANGER mark RETURN_MARK` says, rtnetlink(7)."""
    destination = socket.inet_pton(family, STRANGER[family])
    attributes = b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
        for kind, value in ((_RTA_DST, destination), (_RTA_MARK, RETURN_MARK.to_bytes(4, sys.byteorder)))
    )
    length = _ROUTE.size + len(attributes)
    header = (length, _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    route = (family, 8 * len(destination), 0, 0, 0, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(ANSWER_S)
        netlink.send(_ROUTE.pack(*header, *route) + attributes)
        answer = netlink.recv(4096)
    if len(answer) < _ROUTE.size:
        return False
    _, kind, _, _, _, *told = _ROUTE.unpack_from(answer)
    return bool(kind != _NLMSG_ERROR and told[7] == _RTN_LOCAL)
