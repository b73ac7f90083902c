"""What a packet is matched by, as nft(8) takes it. Several values of one kind are one set, whatever their number: a
set is looked up in logarithmic time, a list of rules in linear.

No text of a user's stands in a rule except interface names, which agent.plan.contradictions has checked, in quotes.
"""

from collections.abc import Sequence
from typing import Final

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

SYN_ONLY: Final = "tcp flags & (fin | syn | rst | ack) == syn"
_OWNERS: Final = {Owner.USER: "meta skuid", Owner.GROUP: "meta skgid"}


def matched(match: Match, direction: Direction) -> str:
    """The expressions that are true of what `match` means, met in that direction."""
    match match:
        case AllOf(matches=matches):
            return " ".join(matched(part, direction) for part in matches)
        case OverLoopback():
            return f'{_interface(direction)} "lo"'
        case OnInterfaces(names=names):
            return f"{_interface(direction)} {_one_of([_quoted(name) for name in names])}"
        case InNetworks():
            return _networks(match)
        case AtPorts():
            return _ports(match)
        case OwnedBy(owner=owner, ids=ids):
            return f"{_OWNERS[owner]} {_one_of(_spans(ids))}"
        case NotOwnedBy(owner=owner, ids=ids):
            return f"{_OWNERS[owner]} != {_one_of(_spans(ids))}"
        case _:
            return _simple(match)


def _simple(match: Match) -> str:
    match match:
        case Marked(mark=mark, mask=mask):
            return f"meta mark & {mask:#x} == {mark:#x}"
        case ToMarkedSocket(mark=mark, mask=mask):
            return f"socket mark & {mask:#x} == {mark:#x}"
        case Opening():
            return f"ct state new {SYN_ONLY}"
        case OfFamily(family=family):
            return f"meta nfproto {family.value}"
        case OfProtocol(protocol=protocol):
            return f"meta l4proto {protocol.value}"
        case _:
            raise AssertionError(f"no nft form for {match}")


def _interface(direction: Direction) -> str:
    return "iifname" if direction is Direction.INBOUND else "oifname"


def _quoted(name: str) -> str:
    return f'"{name[:-1]}*"' if name.endswith("+") else f'"{name}"'


def _networks(match: InNetworks) -> str:
    version = match.networks[0].version
    if any(network.prefixlen == 0 for network in match.networks):
        return f"meta nfproto {(IPFamily.IPV4 if version == 4 else IPFamily.IPV6).value}"
    texts = [
        str(network.network_address if network.prefixlen == network.max_prefixlen else network)
        for network in match.networks
    ]
    return f"{'ip' if version == 4 else 'ip6'} {_side(match.side, 'addr')} {_one_of(texts)}"


def _ports(match: AtPorts) -> str:
    port = f"{_side(match.side, 'port')} {_one_of(_spans(match.ports))}"
    if len(match.protocols) == 1:
        (protocol,) = match.protocols
        return f"{protocol.value} {port}"
    either = ", ".join(protocol.value for protocol in Protocol if protocol in match.protocols)
    return f"meta l4proto {{ {either} }} th {port}"


def _side(side: Side, what: str) -> str:
    return f"{'s' if side is Side.SOURCE else 'd'}{what}"


def _spans(numbers: Ranges) -> list[str]:
    return [str(first) if first == last else f"{first}-{last}" for first, last in numbers.spans]


def _one_of(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"
