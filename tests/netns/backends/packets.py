"""The opening packet of a connection, or a datagram, and where it may arrive."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from agent.plan.rules import IPFamily, Protocol

Address = IPv4Address | IPv6Address

PORTS: Final = (53, 80, 443, 3000, 3001, 3005, 3006, 5432, 8080)
"""Where application and peer listen."""
UIDS: Final = (0, 1000, 1337, 1338, 2000, 2003)
GIDS: Final = (0, 1000, 2102, 3000)


def _both(four: str, six: str) -> dict[IPFamily, Address]:
    return {IPFamily.IPV4: ip_address(four), IPFamily.IPV6: ip_address(six)}


POD: Final = _both("10.0.0.5", "fd00::5")
PEER: Final = _both("10.0.0.9", "fd00::9")
POD_NET1: Final = _both("10.9.0.5", "fd09::5")
PEER_NET1: Final = _both("10.9.0.9", "fd09::9")
LOOPBACK: Final = _both("127.0.0.1", "::1")
PASSTHROUGH: Final = _both("127.0.0.6", "::6")
FAR: Final = tuple(
    _both(four, six)
    for four, six in (
        ("10.1.2.3", "fd01::2:3"),
        ("10.1.9.9", "fd01::9:9"),
        ("10.2.0.1", "fd02::1"),
        ("10.3.255.255", "fd03::ffff"),
    )
)
"""Addresses of the peer, reached through its own as a gateway."""


class Arrival(Enum):
    """Which listener got it."""

    PEER = "the peer"
    APPLICATION = "the application"
    OUTBOUND = "the proxy's outbound port"
    INBOUND = "the proxy's inbound port"
    TUNNEL = "the proxy's tunnel port"
    DNS = "the DNS listener"
    REFUSED = "nobody: refused"


class Way(Enum):
    """How the packet comes by the pod's rules."""

    SENT = "sent"  # by a socket of the pod
    RECEIVED = "received"  # for the pod, through `interface`
    PASSING = "passing"  # from behind `interface`, for somebody else


@dataclass(frozen=True, slots=True)
class Packet:
    """`interface`: by which it leaves (SENT) or arrives. `source` None: whichever the kernel takes."""

    way: Way
    protocol: Protocol
    family: IPFamily
    destination: Address
    port: int
    interface: str
    source: Address | None = None
    uid: int = 0
    gid: int = 0
    mark: int = 0

    def __str__(self) -> str:
        who = f" by {self.uid}:{self.gid} mark {self.mark:#x}" if self.way is Way.SENT else f" from {self.source}"
        return f"{self.protocol.value} {self.way.value}{who} {self.interface} → {self.destination}:{self.port}"
