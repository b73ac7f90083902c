"""What a packet's way depends on besides rules: routes and sockets. Pure: the kernel is asked by who passes it in."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from agent.pods import IPAddress


class RouteKind(Enum):
    """`fib type` of nft(8), as far as a packet's way differs by it."""

    LOCAL = "local"  # delivered here; of what is sent here: over lo
    UNICAST = "unicast"  # leaves by the interface
    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    NONE = "none"  # no route, or one that refuses: blackhole, unreachable, prohibit; the sender is told, or nobody
    REFUSED = "refused"  # a source that must not come from there: rp_filter, martians


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of routing. `arrives_on` None: it is sent here. `source` None: not chosen yet."""

    destination: IPAddress
    source: IPAddress | None = None
    mark: int = 0
    arrives_on: str | None = None
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """`interface`: by which it leaves; lo for what is local. `source`: what the kernel would choose for a sender that
    did not. `table`: of the route that decided (254 main, 255 local)."""

    kind: RouteKind
    interface: str = ""
    source: IPAddress | None = None
    table: int = 0


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket of this namespace that a packet is addressed to (nft: socket expression, xt_socket)."""

    mark: int = 0
    transparent: bool = False
    wildcard: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """Protocol and both ends of a packet."""

    protocol: int
    source: IPAddress
    source_port: int | None
    destination: IPAddress
    destination_port: int | None


@dataclass(frozen=True, slots=True)
class Connection:
    """What becomes of a packet of a connection that conntrack knows: its ends once all is translated. `answers`: the
    packet is of the direction in which the connection was not opened."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    answers: bool = False


class Surroundings(Protocol):
    """None: not known, and what depends on it is followed both ways."""

    def route(self, asked: Asked, /) -> Route | None:
        """As the kernel decides it now."""

    def socket(self, ends: Ends, /) -> "Socket | NoSocket | None":
        """Who such a packet would be delivered to, as the namespace is now."""

    def connection(self, ends: Ends, zone: int, /) -> Connection | None:
        """That such a packet belongs to, in conntrack's zone; None also when there is none."""

    def addresses(self, interface: str, /) -> tuple[IPAddress, ...] | None:
        """Of an interface, the primary one of each family first: what `redirect` and `masquerade` write."""


class NoSocket:
    """Nobody has a socket there."""
