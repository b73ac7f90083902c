"""Which connections are shown. Pure."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from agent.connections.values import Connection, End, Path, Way

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Peer:
    """One end's address, port, or both. None: any."""

    network: Network | None = None
    port: int | None = None

    def holds(self, end: End) -> bool:
        return (self.network is None or end.address in self.network) and self.port in (None, end.port)


@dataclass(frozen=True, slots=True)
class Filter:
    """All of it must hold. `port`: of either end, or the listener's."""

    unsteered: bool = False
    source: Peer | None = None
    destination: Peer | None = None
    port: int | None = None
    protocol: str | None = None
    path: Path | None = None
    way: Way | None = None
    pid: int | None = None

    def holds(self, one: Connection) -> bool:
        return (
            (not self.unsteered or one.unsteered)
            and (self.source is None or self.source.holds(one.source))
            and (self.destination is None or self.destination.holds(one.destination))
            and (self.port is None or self.port in (one.source.port, one.destination.port, one.listener))
            and self.protocol in (None, one.protocol)
            and self.path in (None, one.path)
            and self.way in (None, one.way)
            and (self.pid is None or self.pid in _pids(one))
        )


def _pids(one: Connection) -> set[int]:
    return {end.process.pid for end in (one.source, one.destination) if end.process is not None}


def peer_of(text: str) -> Peer:
    """`10.0.0.1`, `10.0.0.0/8`, `10.0.0.1:80`, `:80`, `fd00::1`, `[fd00::1]:80`. Raises ValueError with words."""
    host, port = text, None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an address with a port is written [ADDRESS]:PORT")
        port = port_of(rest[1:]) if rest else None
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
        port = port_of(number)
    if not host:
        return Peer(None, port)
    try:
        return Peer(ip_network(host, strict=False), port)
    except ValueError:
        raise ValueError("give ADDRESS, ADDRESS/LENGTH, ADDRESS:PORT, [ADDRESS]:PORT or :PORT") from None


def port_of(text: str) -> int:
    """Raises ValueError with words."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) <= 65535):
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)
