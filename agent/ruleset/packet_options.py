"""From what a person says of a packet to the packet: what contradicts itself is refused, what was not said is settled
as the kernel would, or as most packets are, and told. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Final

from agent.explain.packet import ACK, ICMP, ICMP6, SCTP, SYN, TCP, UDP, ConntrackState, Packet, Sender, Way
from agent.explain.surroundings import Asked, RouteKind, Surroundings
from agent.pods import IPAddress
from agent.printable import printable

PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMP6, "sctp": SCTP}
FLAGS: Final = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
_WITH_PORTS: Final = frozenset({TCP, UDP, SCTP})
_ECHO: Final = {ICMP: 8, ICMP6: 128}  # RFC 792, RFC 4443 4.1: echo request
_LOOPBACK: Final = "lo"
LARGEST_ID: Final = 2**32 - 2
"""The last number stands for no user (chown(2))."""


class BadPacket(Exception):
    """`option` names what is wrong, `reason` why and what to give instead."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason


@dataclass(frozen=True, slots=True)
class End:
    """One side of a packet; `port` None: any, not known."""

    address: IPAddress
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """As they were given; None: not given."""

    to: End
    source: End | None = None
    uid: int | None = None
    gid: int | None = None
    mark: int | None = None
    interface: str | None = None
    protocol: int | None = None
    flags: int | None = None
    state: ConntrackState = ConntrackState.NEW
    way: Way | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """An address of an interface of the namespace."""

    interface: str
    address: IPAddress
    prefix_length: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the packet is: names of all interfaces, their addresses, and how they are routed."""

    surroundings: Surroundings
    interfaces: tuple[str, ...] = (_LOOPBACK,)
    addresses: tuple[Held, ...] = ()

    def holds(self, address: IPAddress) -> bool:
        return address.is_loopback or any(held.address == address for held in self.addresses)

    def interface_of(self, address: IPAddress) -> str | None:
        """Of one of the namespace's own addresses; not lo, by which nothing arrives."""
        return next((h.interface for h in self.addresses if h.address == address and h.interface != _LOOPBACK), None)

    def towards(self, address: IPAddress) -> str | None:
        """The interface by which the kernel would send there."""
        route = self.surroundings.route(Asked(address))
        return route.interface if route is not None and route.kind is RouteKind.UNICAST else None


@dataclass(frozen=True, slots=True)
class Described:
    """`assumed`: what was not said, and how to say otherwise."""

    packet: Packet
    assumed: tuple[str, ...] = field(default=())


# ── Ends of it, as they are written ────────────────────────────────────────────────────────────────────────────────
def end(text: str) -> End:
    """ADDR, IPV4:PORT or [IPV6]:PORT. Raises ValueError with the reason and the remedy."""
    written, port = _parted(text)
    if "%" in written:
        raise ValueError("an address with an interface in it: give the address alone, and --iface where it arrives")
    try:
        address = ip_address(written)
    except ValueError:
        raise ValueError(_no_address(text, written)) from None
    if address.is_unspecified:
        loopback = "127.0.0.1" if address.version == 4 else "::1"
        raise ValueError(f"{address} is nobody's address (who connects to it meets {loopback}): give {loopback}")
    if (mapped := getattr(address, "ipv4_mapped", None)) is not None:
        raise ValueError(f"on the wire {address} is IPv4: give {mapped}")
    return End(address, None if port is None else _port(port))


def _parted(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"'{printable(text)}': write IPv6 with a port as [2001:db8::1]:80")
        return address, rest[1:] if rest else None
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, port
    return text, None


def _no_address(text: str, written: str) -> str:
    shown = printable(text)
    if "/" in written:
        return f"'{shown}' is a network: a packet has one address, give one of it"
    if any(c.isalpha() for c in written) and ":" not in written:
        return f"'{shown}' is a name, and rules know addresses only: give what it resolves to (getent ahosts NAME)"
    return f"'{shown}' is no address: give ADDR, IPV4:PORT or [IPV6]:PORT"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text[:6]) < 65536:
        raise ValueError(f"'{printable(text)}' is no port: 1 to 65535")
    return int(text)


# ── The packet ─────────────────────────────────────────────────────────────────────────────────────────────────────
def described(options: Options, place: Place) -> Described:
    """Raises BadPacket."""
    protocol = _protocol(options)
    _fitting(options, protocol)
    way, why = _way(options, place)
    assumed = list(why)
    if way is Way.OUTBOUND:
        packet = _outbound(options, protocol, assumed)
    else:
        packet = _inbound(options, protocol, place, assumed)
    if protocol in _WITH_PORTS and packet.destination_port is None:
        assumed.append("to any port: a rule that asks for one is followed both ways (--to ADDR:PORT)")
    return Described(packet, tuple(assumed))


def _protocol(options: Options) -> int:
    if options.protocol is None:
        return TCP
    return ICMP6 if options.protocol == ICMP and options.to.address.version == 6 else options.protocol


def _fitting(options: Options, protocol: int) -> None:
    """Raises BadPacket for what no packet can be."""
    to, source = options.to, options.source
    if source is not None and source.address.version != to.address.version:
        told = f"{source.address} is IPv{source.address.version} and --to is IPv{to.address.version}: give both of one"
        raise BadPacket("--from", told)
    if source is not None and source.address.is_multicast:
        raise BadPacket("--from", f"{source.address} is a multicast address, from which nothing comes")
    if protocol == ICMP6 and to.address.version == 4:
        raise BadPacket("--proto", "icmpv6 is of IPv6, and --to is IPv4: give --proto icmp")
    if protocol not in _WITH_PORTS:
        for option, given in (("--to", to), ("--from", source)):
            if given is not None and given.port is not None:
                raise BadPacket(option, f"protocol {protocol} has no ports: give {given.address} alone")
    if protocol != TCP and options.flags is not None:
        raise BadPacket("--flags", "these are TCP's: leave --proto out")
    if options.interface is not None and options.way is Way.OUTBOUND:
        told = "routing decides by which interface a packet leaves: leave it out, or give --direction inbound"
        raise BadPacket("--iface", told)


def _way(options: Options, place: Place) -> tuple[Way, tuple[str, ...]]:
    if options.way is not None:
        return options.way, ()
    if options.interface is not None:
        return Way.INBOUND, ()
    source, to = options.source, options.to.address
    if source is not None and not place.holds(source.address):
        return Way.INBOUND, (f"inbound: {source.address} is no address of this namespace (--direction outbound)",)
    by_socket = (options.uid, options.gid, options.mark) != (None, None, None)
    if source is None and not by_socket and place.interface_of(to) is not None:
        return Way.INBOUND, (f"inbound: {to} is an address of this namespace (--direction outbound: sent by itself)",)
    return Way.OUTBOUND, ()


def _outbound(options: Options, protocol: int, assumed: list[str]) -> Packet:
    uid, gid = options.uid or 0, options.gid or 0
    unsaid = [name for name, given in (("uid", options.uid), ("gid", options.gid)) if given is None]
    if unsaid:
        words = ", ".join(f"{name} 0" for name in unsaid)
        assumed.append(f"sent by {words} ({', '.join(f'--{name}' for name in unsaid)} N for another)")
    return _packet(options, protocol, Way.OUTBOUND, options.source, sender=Sender(uid, gid), mark=options.mark or 0)


def _inbound(options: Options, protocol: int, place: Place, assumed: list[str]) -> Packet:
    for option, given in (("--uid", options.uid), ("--gid", options.gid), ("--mark", options.mark)):
        if given is not None:
            told = "of a packet that arrives there is none: leave it out, or give --direction outbound"
            raise BadPacket(option, told)
    interface = _arrival(options, place, assumed)
    source = options.source or _neighbour(options, place, interface, assumed)
    return _packet(options, protocol, Way.INBOUND, source, interface=interface)


def _packet(
    options: Options,
    protocol: int,
    way: Way,
    source: End | None,
    *,
    sender: Sender | None = None,
    mark: int = 0,
    interface: str | None = None,
) -> Packet:
    to = options.to
    opening = options.state in (ConntrackState.NEW, ConntrackState.UNTRACKED)
    flags = options.flags if options.flags is not None else SYN if opening else ACK
    return Packet(
        way,
        protocol,
        to.address,
        to.port,
        None if source is None else source.address,
        None if source is None else source.port,
        sender,
        interface,
        mark,
        options.state,
        flags,
        _ECHO.get(protocol),
        0 if protocol in _ECHO else None,
    )


# ── Where it arrives, and from whom ────────────────────────────────────────────────────────────────────────────────
def _arrival(options: Options, place: Place, assumed: list[str]) -> str:
    named = options.interface
    if named == _LOOPBACK:
        raise BadPacket("--iface", "what comes by lo was sent from here: leave it out, or give --direction outbound")
    if named is not None:
        if named not in place.interfaces:
            there = ", ".join(printable(name) for name in place.interfaces)
            raise BadPacket("--iface", f"'{printable(named)}' does not exist there: {there}")
        return named
    to = options.to.address
    if options.source is not None and (found := place.towards(options.source.address)):
        why = f"by which answers to {options.source.address} leave"
    elif found := place.interface_of(to):
        why = f"which has {to}"
    else:
        others = [name for name in place.interfaces if name != _LOOPBACK]
        if len(others) != 1:
            there = ", ".join(printable(name) for name in others) or "there is none but lo"
            raise BadPacket("--iface", f"say where the packet arrives: {there}")
        found, why = others[0], "the only one"
    assumed.append(f"arrives on {found}, {why} (--iface for another)")
    return found


def _neighbour(options: Options, place: Place, interface: str, assumed: list[str]) -> End | None:
    """An address on that link that is none of ours: where a client or a gateway would be."""
    for held in place.addresses:
        if held.interface == interface and held.address.version == options.to.address.version:
            for address in _others_of(held):
                if not place.holds(address) and address != options.to.address:
                    assumed.append(f"from {address}, an address on {interface}'s link (--from ADDR for another)")
                    return End(address)
    assumed.append("from any address: a rule that asks for one is followed both ways (--from ADDR)")
    return None


_TRIED: Final = 16
"""More addresses of its own than this an interface has on one link only by design; then its owner says --from."""


def _others_of(held: Held) -> Iterator[IPAddress]:
    network = ip_network(f"{held.address}/{held.prefix_length}", strict=False)
    last = min(network.num_addresses - 2, _TRIED)  # neither the network's own nor the last, the broadcast
    return (network[number] for number in range(1, last + 1))
