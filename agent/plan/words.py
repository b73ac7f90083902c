"""The words in which people write ports, ids, networks and interfaces, read into values. Strict, and used everywhere:
annotations, agent's options, `headgate init` and the peers' command lines.

All raise ValueError with a reason that shows the value, made printable; the same text fails again: do not retry.
What is returned holds numbers, addresses, and interface names of a small alphabet: nothing that a rule, a shell or a
terminal could take for anything else.
"""

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Final

from agent.plan.ranges import Ranges
from agent.plan.rules import IPFamily, Protocol
from agent.plan.steering import Network, OwnerPorts, UdpPolicy, VirtualInterface
from agent.printable import printable

ALL: Final = "*"
PORT_MAX: Final = 65535
ID_MAX: Final = 0xFFFFFFFE
"""The id -1 is no id: it means "leave it" to setresuid(2), chown(2) and the kernel's uid_valid()."""
EVERY_PORT: Final = Ranges.of((1, PORT_MAX))
_SHOWN: Final = 80

_NUMBER_OR_RANGE: Final = re.compile(r"([0-9]{1,10})(?:[-:]([0-9]{1,10}))?")  # iptables writes 10:20, all others 10-20
_PREFIX: Final = re.compile(r"/[0-9]{1,3}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.@][A-Za-z0-9_.@-]*\+?")
_INTERFACE_MAX: Final = 15  # IFNAMSIZ - 1, linux/if.h; iptables counts the `+` too
_NO_NAMES: Final = frozenset({".", ".."})  # dev_valid_name(), net/core/dev.c
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_YES: Final = frozenset({"1", "t", "true", "yes", "on", "enabled"})
_NO: Final = frozenset({"0", "f", "false", "no", "off", "disabled"})


def shown(text: str) -> str:
    """The text as an error shows it: quoted, printable, at most 80 characters."""
    return f"'{printable(text, _SHOWN)}'"


def items(text: str) -> tuple[str, ...]:
    """What stands between the commas, stripped; nothing for empty text. An empty item is a slip of the pen."""
    if not text.strip():
        return ()
    found = tuple(item.strip() for item in text.split(","))
    if not all(found):
        raise ValueError(f"{shown(text)} has an empty item: take the spare comma out")
    return found


# ── Numbers ────────────────────────────────────────────────────────────────────────────────────────────────────────
def parse_ports(text: str) -> Ranges:
    """`80,443,3000-3005`; empty text is no port."""
    return _numbers(text, "port", 1, PORT_MAX)


def parse_port(text: str) -> int:
    ports = parse_ports(text)
    if len(ports.spans) != 1 or ports.spans[0][0] != ports.spans[0][1]:
        raise ValueError(f"{shown(text)} is not one port: use a number of 1 to {PORT_MAX}")
    return ports.spans[0][0]


def parse_ids(text: str) -> Ranges:
    """User or group ids: `0,1000-2000`; empty text is none. Names mean nothing outside the container that has them."""
    return _numbers(text, "id", 0, ID_MAX)


def _numbers(text: str, what: str, least: int, most: int) -> Ranges:
    return Ranges.of(*(_span(item, what, least, most) for item in items(text)))


def _span(item: str, what: str, least: int, most: int) -> tuple[int, int]:
    match = _NUMBER_OR_RANGE.fullmatch(item)
    if match is None:
        raise ValueError(f"{shown(item)} is no {what} and no range of {what}s: write 80 or 3000-3005")
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if not (least <= first <= most and least <= last <= most):
        raise ValueError(f"{shown(item)} is no {what}: use {least} to {most}")
    if first > last:
        raise ValueError(f"{shown(item)} ends before it begins: write {last}-{first}")
    return first, last


# ── Addresses ──────────────────────────────────────────────────────────────────────────────────────────────────────
def parse_networks(text: str, family: IPFamily | None = None) -> tuple[Network, ...]:
    """`10.0.0.0/8,10.9.8.7,fd00::/8`; an address alone is a network of one. With `family`, of that family only.

    IPv4 first, each family ascending, none within another: nft refuses intervals that overlap.
    """
    return collapsed(_network(item, family) for item in items(text))


def collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The same addresses in the one order in which equal sets compare equal."""
    four: list[IPv4Network] = []
    six: list[IPv6Network] = []
    for network in networks:
        if isinstance(network, IPv4Network):
            four.append(network)
        else:
            six.append(network)
    return (*collapse_addresses(four), *collapse_addresses(six))


def _network(item: str, family: IPFamily | None) -> Network:
    address, slash, _ = item.partition("/")
    try:
        if slash and not _PREFIX.fullmatch(item[len(address) :]):  # ip_network() also takes 10.0.0.0/255.0.0.0
            raise ValueError
        if "%" in address:  # a zone is an interface: it says nothing of addresses elsewhere
            raise ValueError
        # Bits beyond the prefix are dropped, as iptables(8) and both peers' parsers do.
        network = ip_network(item, strict=False)
    except ValueError:
        raise ValueError(f"{shown(item)} is no address and no CIDR: write 10.0.0.0/8 or fd00::/8") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        raise ValueError(f"{shown(item)} never is on the wire: such packets are IPv4: write the IPv4 network")
    if family is not None and network.version != (4 if family is IPFamily.IPV4 else 6):
        raise ValueError(f"{shown(item)} is no {_FAMILY[family]} network, and only that fits here")
    return network


_FAMILY: Final = {IPFamily.IPV4: "IPv4", IPFamily.IPV6: "IPv6"}


def parse_addresses(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(dict.fromkeys(_address(item) for item in items(text)))


def _address(item: str) -> IPv4Address | IPv6Address:
    try:
        if "%" in item:
            raise ValueError
        return ip_address(item)
    except ValueError:
        raise ValueError(f"{shown(item)} is no address: write 10.96.0.10 or fd00::10") from None


# ── Interfaces ─────────────────────────────────────────────────────────────────────────────────────────────────────
def parse_interface(text: str) -> str:
    """A name that the kernel would give (dev_valid_name, IFNAMSIZ), of an alphabet that neither a shell nor nft nor
    iptables reads anything into; `+` at the end stands for all that begin so."""
    name = text.strip()
    if len(name) > _INTERFACE_MAX or not _INTERFACE.fullmatch(name) or name in _NO_NAMES:
        raise ValueError(
            f"{shown(text)} is no interface name: letters, digits and _ . @ -, at most {_INTERFACE_MAX}, `+` last"
        )
    return name


def parse_interfaces(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parse_interface(item) for item in items(text)))


def parse_virtual_interface(text: str) -> VirtualInterface:
    """`br+` or `docker0:172.17.0.0/16`: what arrives on it goes direct to that network (kumactl --vnet)."""
    name, colon, network = text.strip().partition(":")
    return VirtualInterface(parse_interface(name), parse_networks(_given(network, text)) if colon else ())


def parse_virtual_interfaces(text: str) -> tuple[VirtualInterface, ...]:
    """As above, between commas; an interface that is named again has one more network."""
    direct: dict[str, list[Network]] = {}
    for item in items(text):
        interface = parse_virtual_interface(item)
        direct.setdefault(interface.name, []).extend(interface.direct)
    return tuple(VirtualInterface(name, collapsed(networks)) for name, networks in direct.items())


def _given(part: str, text: str) -> str:
    if not part.strip():
        raise ValueError(f"{shown(text)} lacks what its colon promises")
    return part


# ── Owners and ports ───────────────────────────────────────────────────────────────────────────────────────────────
def parse_owner_ports(text: str) -> OwnerPorts:
    """`[protocols:][ports:]uids`, as kumactl's --exclude-outbound-ports-for-uids: `tcp:53,3000-3005:2000-2010`.

    Protocols are tcp and udp, ports a list; either may be absent, empty or `*`: all.
    """
    parts = text.strip().split(":")
    if len(parts) > 3:
        raise ValueError(f"{shown(text)} has too many parts: write [protocol:][ports:]uids")
    protocols, ports, uids = ("", "", *parts)[-3:]
    owners = parse_ids(_owners(uids, text))
    return OwnerPorts(_protocols(protocols), EVERY_PORT if ports.strip() in ("", ALL) else parse_ports(ports), owners)


def parse_owner_ports_list(text: str) -> tuple[OwnerPorts, ...]:
    """As above, between semicolons."""
    return tuple(parse_owner_ports(item) for item in text.split(";")) if text.strip() else ()


def _owners(uids: str, text: str) -> str:
    if uids.strip() in ("", ALL):
        raise ValueError(f"{shown(text)} names no user: to exclude ports for all of them, exclude the ports")
    return uids


def _protocols(text: str) -> frozenset[Protocol]:
    if text.strip() in ("", ALL):
        return frozenset(Protocol)
    try:
        return frozenset(Protocol(item.lower()) for item in items(text))
    except ValueError:
        raise ValueError(f"{shown(text)} is no protocol: use tcp, udp or both") from None


# ── Choices ────────────────────────────────────────────────────────────────────────────────────────────────────────
def parse_flag(text: str) -> bool:
    """What Go's strconv.ParseBool takes, and enabled/disabled, yes/no, on/off; in any case."""
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise ValueError(f"{shown(text)} is neither true nor false")
    return word in _YES


def parse_udp(text: str) -> UdpPolicy:
    try:
        return UdpPolicy(text.strip())
    except ValueError:
        raise ValueError(
            f"{shown(text)} is no UDP policy: use {', '.join(policy.value for policy in UdpPolicy)}"
        ) from None
