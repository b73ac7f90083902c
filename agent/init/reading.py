"""The value of a peer's flag -> ports, networks, owners: `agent.plan.words` with the peers' leniency, and Refused."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Final, TypeVar

from agent.init.argv import Word
from agent.init.request import Refused
from agent.plan.ranges import Ranges
from agent.plan.rules import IPFamily
from agent.plan.steering import Network
from agent.plan.words import parse_ids, parse_interfaces, parse_networks, parse_port, parse_ports, shown

T = TypeVar("T")

_MAX_SECONDS: Final = 3600.0
_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION: Final = re.compile(r"(?:(\d{1,9}(?:\.\d{1,9})?)(h|ms|m|s|us|µs|ns))")


def read(word: Word, parser: Callable[[str], T]) -> T:
    """Raises Refused with the flag, its value and the parser's reason."""
    try:
        return parser(word.value)
    except ValueError as error:
        raise Refused(word.where, word.value, str(error)) from None


def port(word: Word) -> int:
    return read(word, parse_port)


def ports(word: Word) -> Ranges:
    """`80,443,3000-3005` and iptables' `3000:3005`; empty items are passed over, as all three peers do."""
    return read(word, lambda text: parse_ports(lenient(text)))


def networks(word: Word) -> tuple[Network, ...]:
    return read(word, lambda text: parse_networks(lenient(text)))


def network4(word: Word) -> IPv4Network:
    found = read(word, lambda text: parse_networks(text, IPFamily.IPV4))
    if len(found) != 1 or not isinstance(found[0], IPv4Network):
        raise Refused(word.where, word.value, "is not one IPv4 network: write 127.0.0.1/32")
    return found[0]


def interfaces(word: Word) -> tuple[str, ...]:
    return read(word, lambda text: parse_interfaces(lenient(text)))


def ids(word: Word, numbered: Callable[[str], str]) -> Ranges:
    """`numbered`: Accounts.user_ids or group_ids."""
    return read(word, lambda text: parse_ids(numbered(lenient(text))))


def seconds(word: Word) -> float:
    """A duration as Go writes it: `5s`, `1m30s`, `500ms` (time.ParseDuration)."""
    return read(word, _duration_s)


def lenient(text: str) -> str:
    return ",".join(item.strip() for item in text.split(",") if item.strip())


def resolvers(resolv_conf: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """The servers of resolv.conf(5). One with a zone is link-local, and never steered."""
    found: dict[IPv4Address | IPv6Address, None] = {}
    for line in resolv_conf.splitlines():
        keyword, *values = line.split()[:2] or [""]
        if keyword == "nameserver" and values and "%" not in values[0]:
            try:
                found[ip_address(values[0])] = None
            except ValueError:  # as the C library: what is no address is no server
                continue
    return tuple(found)


def _duration_s(text: str) -> float:
    matches = list(_DURATION.finditer(text))
    if not text or "".join(match[0] for match in matches) != text:
        raise ValueError(f"{shown(text)} is no duration: write 5s or 1m30s")
    total = sum(float(match[1]) * _UNITS_S[match[2]] for match in matches)
    if total > _MAX_SECONDS:
        raise ValueError(f"{shown(text)} is more than an hour")
    return total
