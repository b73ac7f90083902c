"""What a plan says of one new connection or query: led to a port, or left as it is. Pure.

The same plan that was installed is asked, rule by rule in its order; whether the kernel does so is what probes tell.
"""

from dataclasses import dataclass

from agent.plan.rules import (
    AllOf,
    AtPorts,
    Capture,
    Direction,
    Exempt,
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
    RedirectPlan,
    Side,
    Stage,
    ToMarkedSocket,
)
from agent.pods import IPAddress

NO_RULE = "none"


@dataclass(frozen=True, slots=True)
class FirstPacket:
    """The first packet of a connection. `interface`: it arrives there, or leaves there; `uid` and `gid`: of the socket
    that sends it, None for what arrives."""

    direction: Direction
    protocol: Protocol
    source: IPAddress
    source_port: int
    destination: IPAddress
    port: int
    interface: str
    uid: int | None = None
    gid: int | None = None
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Expected:
    """`captured`: the port that it is led to; None: it goes on as it is. `rule_id`: what decides."""

    captured: int | None
    rule_id: str


def expected(plan: RedirectPlan, first: FirstPacket) -> Expected:
    for rule in plan.rules:
        match rule:
            case Exempt(direction=direction, stage=Stage.CAPTURE, match=match):
                if direction is first.direction and holds(match, first):
                    return Expected(None, rule.rule_id)
            case Capture(direction=direction, port=port, match=match, protocol=protocol):
                wanted = direction is first.direction and protocol is first.protocol
                if wanted and (match is None or holds(match, first)):
                    return Expected(port, rule.rule_id)
            case _:
                continue
    return Expected(None, NO_RULE)


def holds(match: Match, first: FirstPacket) -> bool:
    match match:
        case AllOf(matches=matches):
            return all(holds(part, first) for part in matches)
        case OverLoopback():
            return first.interface == "lo"
        case InNetworks(networks=networks, side=side):
            address = first.source if side is Side.SOURCE else first.destination
            return any(address in network for network in networks)
        case AtPorts(ports=ports, side=side, protocols=protocols):
            port = first.source_port if side is Side.SOURCE else first.port
            return first.protocol in protocols and port in ports
        case OwnedBy(owner=owner, ids=ids):
            number = first.uid if owner is Owner.USER else first.gid
            return number is not None and number in ids
        case NotOwnedBy(owner=owner, ids=ids):
            number = first.uid if owner is Owner.USER else first.gid
            return number is not None and number not in ids
        case OnInterfaces(names=names):
            return any(_is_named(first.interface, name) for name in names)
        case Marked(mark=mark, mask=mask):
            return first.mark & mask == mark
        case OfFamily(family=family):
            return first.destination.version == (4 if family is IPFamily.IPV4 else 6)
        case OfProtocol(protocol=protocol):
            return first.protocol is protocol
        case Opening():
            return True
        case ToMarkedSocket():
            return False


def _is_named(interface: str, name: str) -> bool:
    return interface.startswith(name[:-1]) if name.endswith("+") else interface == name
