"""Which packets are meant: what a person says of them, typed, and the same as conditions of an nft rule. Pure.

A filter is rendered by type, never as text that somebody gave: nothing of it can become another rule.
"""

import re
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from agent.explain.packet import ICMP6, SCTP, TCP, UDP, Way
from agent.pods import IPAddress
from agent.printable import printable

IPNetwork = IPv4Network | IPv6Network

_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_BRACKETED: Final = re.compile(r"\[([^\]]*)\](?::(.*))?", re.DOTALL)
_INTERFACE: Final = re.compile(r"[^\s\"/\\*\x00-\x1f\x7f-\U0010ffff]{1,15}")
"""What nft takes between quotes and the kernel as a name (dev_valid_name: no slash, no blank, 15 characters)."""
_MARK: Final = re.compile(r"(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})(?:/(0x[0-9a-fA-F]{1,8}|[0-9]{1,10}))?")
_ALL_BITS: Final = 0xFFFFFFFF
_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58}
_WITH_PORTS: Final = "{ 6, 17, 132 }"
_OPENING: Final = "tcp flags & (fin|syn|rst|ack) == syn"


class InvalidFilter(ValueError):
    """What was given is no filter; `option` is the one, the message says what it takes."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(reason)
        self.option = option


class Chosen(Enum):
    """Of a connection's packets."""

    OPENING = "opening"  # TCP's SYN, ICMPv6's echo requests; of other protocols every one
    EVERY = "every"


@dataclass(frozen=True, slots=True)
class Ends:
    """Addresses and ports, both borders in; None: any."""

    network: IPNetwork | None = None
    ports: tuple[int, int] | None = None

    def takes(self, address: IPAddress, port: int | None) -> bool:
        if self.network is not None and address not in self.network:
            return False
        return self.ports is None or (port is not None and self.ports[0] <= port <= self.ports[1])


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must hold; None: anything. `mark`: value and mask. `interface`: where it arrives or leaves.
    `way`: only what comes in, or what is sent here. `uid`: of the sending socket, so of what is sent here only."""

    destination: Ends = Ends()
    source: Ends = Ends()
    protocol: int | None = None
    uid: int | None = None
    mark: tuple[int, int] | None = None
    interface: str | None = None
    way: Way | None = None
    chosen: Chosen = Chosen.OPENING

    def __post_init__(self) -> None:
        networks = [end.network for end in (self.source, self.destination) if end.network is not None]
        if len({network.version for network in networks}) > 1:
            raise InvalidFilter("--from", "is of another family than --to: give both IPv4 or both IPv6")
        if self.has_ports and self.protocol not in (None, TCP, UDP, SCTP):
            raise InvalidFilter("--proto", "has no ports: give tcp, udp or sctp, or addresses without port")
        if self.uid is not None and self.way is Way.INBOUND:
            raise InvalidFilter("--uid", "is of what is sent here; what comes in has no user")

    @property
    def has_ports(self) -> bool:
        return (self.source.ports or self.destination.ports) is not None

    @property
    def names_ends(self) -> bool:
        """Whether protocol or ends are asked for at all."""
        return self.protocol is not None or self.source != Ends() or self.destination != Ends()

    @property
    def version(self) -> int | None:
        """4 or 6 when an address says so."""
        network = self.source.network or self.destination.network
        return None if network is None else network.version

    def either_way(
        self, protocol: int, source: IPAddress, source_port: int | None, destination: IPAddress, port: int | None
    ) -> bool:
        """Whether protocol and ends hold for a packet that looks so, or for one that it answers. `port`: of the
        destination."""
        if self.protocol is not None and protocol != self.protocol:
            return False
        return (self.source.takes(source, source_port) and self.destination.takes(destination, port)) or (
            self.source.takes(destination, port) and self.destination.takes(source, source_port)
        )


def parse_ends(option: str, text: str) -> Ends:
    """`ADDR`, `ADDR:PORT`, `[ADDR]:PORT`, `NETWORK/BITS`, `:PORT`, `PORT` alone is none; ports as `80` or `80-90`.
    Raises InvalidFilter."""
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        address, port = bracketed[1], bracketed[2]
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, None
    network = None
    if address:
        try:
            network = ip_network(address, strict=False)
        except ValueError:
            remedy = "give an address, as 10.0.0.9:80, [fd00::9]:80, 10.0.0.0/8 or :80 (names are not looked up)"
            raise InvalidFilter(option, f"{printable(text, 100)!r} is no address: {remedy}") from None
        # An address with a zone would be rendered with it, and nft takes none.
        if "%" in address:
            raise InvalidFilter(option, f"{printable(text, 100)!r}: give the address without zone, and --iface")
    if port is None and network is None:
        raise InvalidFilter(option, "is empty: give an address, as 10.0.0.9:80 or :80")
    return Ends(network, None if port is None else _ports(option, port))


def _ports(option: str, text: str) -> tuple[int, int]:
    found = _PORT.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise InvalidFilter(option, f"port {printable(text, 50)!r}: give 1 to 65535, or a range as 8000-8010")
    return first, last


def parse_protocol(option: str, text: str) -> int:
    """A name, or a number of IANA's. Raises InvalidFilter."""
    if text.lower() in _PROTOCOLS:
        return _PROTOCOLS[text.lower()]
    if text.isascii() and text.isdigit() and int(text) < 256:
        return int(text)
    raise InvalidFilter(option, f"{printable(text, 50)!r}: give tcp, udp, icmp, icmpv6, sctp or a number to 255")


def parse_mark(option: str, text: str) -> tuple[int, int]:
    """`MARK` or `MARK/MASK`, decimal or 0x. Raises InvalidFilter."""
    found = _MARK.fullmatch(text)
    value, mask = (int(found[1], 0), int(found[2] or "0xffffffff", 0)) if found else (-1, 0)
    if not (0 <= value <= _ALL_BITS and 0 < mask <= _ALL_BITS):
        raise InvalidFilter(option, f"{printable(text, 50)!r}: give a mark as 0x539, or with a mask as 0x539/0xfff")
    return value & mask, mask


def parse_interface(option: str, text: str) -> str:
    """Raises InvalidFilter."""
    if _INTERFACE.fullmatch(text) is None:
        raise InvalidFilter(option, f"{printable(text, 50)!r} is no interface's name: `ip link` lists them")
    return text


# ── As conditions of nft rules ─────────────────────────────────────────────────────────────────────────────────────
def conditions(wanted: Filter, way: Way) -> tuple[str, ...]:
    """The rules whose packets, together, are what is meant in the hooks of that way; empty: none is."""
    if wanted.way not in (None, way) or (wanted.uid is not None and way is Way.INBOUND):
        return ()
    if wanted.chosen is Chosen.EVERY:
        return (_rule(wanted, way),)
    if wanted.protocol == TCP:
        return (f"{_rule(wanted, way)} {_OPENING}",)
    if wanted.protocol is not None:
        return (_rule(wanted, way),)
    opening = f"{_rule(replace(wanted, protocol=TCP), way)} {_OPENING}"
    others = f"{_rule(wanted, way)} meta l4proto != {{ 6, 58 }}".lstrip()
    if wanted.has_ports:
        return opening, others
    # Neighbour discovery and its like (RFC 4861, 3810) are nobody's connections, and most of a quiet pod's packets.
    return opening, others, f"{_rule(replace(wanted, protocol=ICMP6), way)} icmpv6 type echo-request"


def _rule(wanted: Filter, way: Way) -> str:
    parts: list[str] = []
    if wanted.interface is not None:
        parts.append(f'{"iifname" if way is Way.INBOUND else "oifname"} "{wanted.interface}"')
    if wanted.protocol is not None:
        parts.append(f"meta l4proto {wanted.protocol}")
    elif wanted.has_ports:
        parts.append(f"meta l4proto {_WITH_PORTS}")
    for word, end in (("saddr", wanted.source), ("daddr", wanted.destination)):
        if end.network is not None:
            parts.append(f"{'ip' if end.network.version == 4 else 'ip6'} {word} {end.network}")
    for word, end in (("sport", wanted.source), ("dport", wanted.destination)):
        if end.ports is not None:
            first, last = end.ports
            parts.append(f"th {word} {first}" if first == last else f"th {word} {first}-{last}")
    if wanted.uid is not None:
        parts.append(f"meta skuid {wanted.uid}")
    if wanted.mark is not None:
        parts.append(f"meta mark & {wanted.mark[1]:#x} == {wanted.mark[0]:#x}")
    return " ".join(parts)
