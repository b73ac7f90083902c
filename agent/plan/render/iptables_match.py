"""What a packet is matched by, in the words of iptables(8) and iptables-extensions(8).

One rule of iptables tests one network a side, one interface, fifteen ports and one range of owners: a match of the plan
becomes as many ways to match as that takes, of which any is enough.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.plan.errors import InvalidPlan
from agent.plan.ranges import Ranges
from agent.plan.rules import (
    AllOf,
    AtPorts,
    Direction,
    InNetworks,
    IPFamily,
    Marked,
    Match,
    NotOwnedBy,
    OfFamily,
    OfProtocol,
    OnInterfaces,
    Opening,
    OverLoopback,
    OwnedBy,
    Owner,
    Protocol,
    Side,
    ToMarkedSocket,
)
from agent.plan.steering import Network
from agent.printable import printable

SYN_ONLY: Final = "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN"
_SLOTS: Final = 15
"""Ports that one `multiport` takes, a range counting two (linux/netfilter/xt_multiport.h: XT_MULTI_PORTS)."""
_INTERFACE: Final = re.compile(r"(?=.{1,15}\Z)[A-Za-z0-9_.@][A-Za-z0-9_.@:-]*\+?")
"""agent.plan.words lets no other in; asked once more, because what is written here is split into words again."""
_OWNER: Final = {Owner.USER: "--uid-owner", Owner.GROUP: "--gid-owner"}


@dataclass(frozen=True, slots=True)
class Way:
    """The tests of one rule: all of them hold. `tests` need the protocol to be named before them."""

    family: IPFamily | None = None
    source: Network | None = None
    destination: Network | None = None
    interface: str | None = None
    protocol: Protocol | None = None
    tests: tuple[str, ...] = ()

    def text(self, direction: Direction) -> str:
        words = []
        if self.source is not None:
            words.append(f"-s {self.source}")
        if self.destination is not None:
            words.append(f"-d {self.destination}")
        if self.interface is not None:
            words.append(f"{'-i' if direction is Direction.INBOUND else '-o'} {self.interface}")
        if self.protocol is not None:
            words.append(f"-p {self.protocol.value}")
        return " ".join((*words, *self.tests))


def ways(match: Match | None, *also: Way) -> tuple[Way, ...]:
    """The rules that it takes to match what `match` does, `also` holding in each; none when that can never be."""
    found: Sequence[Way] = (Way(),)
    for part in _parts(match):
        found = _each_with_each(found, _ways(part))
    for way in also:
        found = _each_with_each(found, (way,))
    return tuple(found)


def chunks(ports: Ranges) -> list[str]:
    """Ports as `multiport` takes them, as many at a time."""
    found: list[list[str]] = [[]]
    free = _SLOTS
    for first, last in ports.spans:
        slots = 1 if first == last else 2
        if slots > free:
            found.append([])
            free = _SLOTS
        found[-1].append(_span(first, last))
        free -= slots
    return [",".join(chunk) for chunk in found if chunk]


def _parts(match: Match | None) -> tuple[Match, ...]:
    if match is None:
        return ()
    return match.matches if isinstance(match, AllOf) else (match,)


def _ways(match: Match) -> tuple[Way, ...]:
    match match:
        case OverLoopback():
            return (Way(interface="lo"),)
        case InNetworks(networks=networks, side=side):
            return tuple(_in_network(network, side) for network in networks)
        case AtPorts():
            return tuple(_at_ports(match))
        case Marked(mark=mark, mask=mask):
            return (Way(tests=(marked(mark, mask),)),)
        case ToMarkedSocket(mark=mark, mask=mask):
            # Of what meets this test the packet's mark becomes the socket's (net/netfilter/xt_socket.c), which is how
            # iptables tells. Only what is addressed to a socket of this namespace is touched: its route is local.
            return (Way(tests=("-m socket --nowildcard --restore-skmark", marked(mark, mask))),)
        case Opening():
            return (Way(protocol=Protocol.TCP, tests=(SYN_ONLY, "-m conntrack --ctstate NEW")),)
        case OwnedBy(owner=owner, ids=ids):
            return tuple(Way(tests=(f"-m owner {_OWNER[owner]} {_ids(span)}",)) for span in ids.spans)
        case NotOwnedBy(owner=owner, ids=ids):
            # xt_owner takes "not this user" for true of what no socket sent; nft's skuid does not.
            others = (f"-m owner ! {_OWNER[owner]} {_ids(span)}" for span in ids.spans)
            return (Way(tests=("-m owner --socket-exists", *others)),)
        case OnInterfaces(names=names):
            return tuple(Way(interface=_interface(name)) for name in names)
        case OfFamily(family=family):
            return (Way(family=family),)
        case OfProtocol(protocol=protocol):
            return (Way(protocol=protocol),)
        case _:
            raise AssertionError(f"no iptables form for {match}")


def marked(mark: int, mask: int) -> str:
    return f"-m mark --mark {mark:#x}/{mask:#x}"


def _in_network(network: Network, side: Side) -> Way:
    family = IPFamily.IPV4 if network.version == 4 else IPFamily.IPV6
    if network.prefixlen == 0:
        return Way(family=family)  # all of the family: nothing to test, and nothing is what iptables-save shows of it
    if side is Side.SOURCE:
        return Way(family=family, source=network)
    return Way(family=family, destination=network)


def _at_ports(match: AtPorts) -> Iterable[Way]:
    option = "port" if len(match.ports.spans) == 1 else "ports"
    option = f"--{'s' if match.side is Side.SOURCE else 'd'}{option}"
    for protocol in sorted(match.protocols, key=lambda protocol: protocol.value):
        module = protocol.value if len(match.ports.spans) == 1 else "multiport"
        for ports in chunks(match.ports):
            yield Way(protocol=protocol, tests=(f"-m {module} {option} {ports}",))


def _ids(span: tuple[int, int]) -> str:
    """Always as a range: a number alone is first looked up as a user's name (extensions/libxt_owner.c)."""
    return f"{span[0]}-{span[1]}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}:{last}"


def _interface(name: str) -> str:
    if not _INTERFACE.fullmatch(name):
        raise InvalidPlan("interface", f"{printable(name)[:80]!r} is no interface name")
    return name


def _each_with_each(some: Iterable[Way], others: Sequence[Way]) -> tuple[Way, ...]:
    return tuple(both for one in some for other in others if (both := _both(one, other)) is not None)


def _both(one: Way, other: Way) -> Way | None:
    """What meets the tests of both; None when nothing can."""
    if _differ(one.family, other.family) or _differ(one.protocol, other.protocol):
        return None
    if _apart(one.source, other.source) or _apart(one.destination, other.destination):
        return None
    if _elsewhere(one.interface, other.interface):
        return None
    return Way(
        one.family or other.family,
        _narrower(one.source, other.source),
        _narrower(one.destination, other.destination),
        max(filter(None, (one.interface, other.interface)), key=_certainty, default=None),
        one.protocol or other.protocol,
        (*one.tests, *other.tests),
    )


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _apart(one: Network | None, other: Network | None) -> bool:
    return one is not None and other is not None and (one.version != other.version or not one.overlaps(other))


def _narrower(one: Network | None, other: Network | None) -> Network | None:
    if one is None or other is None:
        return one or other
    return one if one.prefixlen >= other.prefixlen else other


def _elsewhere(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return False
    loose, exact = sorted((one, other), key=_certainty)
    return not exact.startswith(loose[:-1]) if loose.endswith("+") else loose != exact


def _certainty(name: str) -> tuple[bool, int]:
    """A name without `+` says more than one with it, and a longer one more than a shorter one."""
    return (not name.endswith("+"), len(name))
