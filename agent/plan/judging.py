"""Whether a plan steers a TCP connection, judged from what sockets and conntrack tell of it while it lives.

For connections found outside the mesh: which of them the pod wishes to go direct, and which have gone past it.
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
    Match,
    NotOwnedBy,
    OfFamily,
    OfProtocol,
    OnInterfaces,
    Opening,
    OwnedBy,
    Owner,
    Protocol,
    RedirectPlan,
    Side,
    Stage,
)
from agent.pods import IPAddress


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection as its first packet met the rules; of the application, not of the proxy, and with one end here.

    None: not known. sock_diag tells a socket's user and not its group.
    """

    direction: Direction
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    uid: int | None = None
    gid: int | None = None
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`steered` None: what is known does not decide it. `why`: the meaning of the rule that decided; empty when no rule
    leads such a connection anywhere."""

    steered: bool | None
    why: str = ""


def judge(plan: RedirectPlan, opened: Opened) -> Verdict:
    """Whether the plan leads it to the proxy: the first rule that matches decides, as in the kernel."""
    possible: list[Verdict] = []
    for rule in plan.rules:
        match rule:
            case Exempt(direction=direction, stage=Stage.CAPTURE, match=matches) if direction is opened.direction:
                outcome = False
            case Capture(direction=direction, match=matches, protocol=Protocol.TCP) if direction is opened.direction:
                outcome = True
            case _:
                continue
        holds = True if matches is None else _holds(matches, opened)
        if holds is not False:
            possible.append(Verdict(outcome, rule.meaning))
        if holds:
            break
    else:
        possible.append(Verdict(False))
    decided = len({verdict.steered for verdict in possible}) == 1
    return possible[0] if decided else Verdict(None, possible[0].why)


def _holds(match: Match, opened: Opened) -> bool | None:
    match match:
        case AllOf(matches=matches):
            found = [_holds(part, opened) for part in matches]
            return False if False in found else None if None in found else True
        case InNetworks(networks=networks, side=side):
            address = opened.source if side is Side.SOURCE else opened.destination
            return any(address in network for network in networks)
        case AtPorts(ports=ports, side=side, protocols=protocols):
            port = opened.source_port if side is Side.SOURCE else opened.destination_port
            return Protocol.TCP in protocols and port in ports
        case OwnedBy() | NotOwnedBy():
            return _is_owned(match, opened)
        case OnInterfaces(names=names):
            return None if opened.interface is None else any(_is_named(opened.interface, name) for name in names)
        case OfFamily(family=family):
            return opened.source.version == (4 if family is IPFamily.IPV4 else 6)
        case OfProtocol(protocol=protocol):
            return protocol is Protocol.TCP
        case Opening():
            return True
        case _:  # over lo, or the proxy's: none of those is asked about
            return False


def _is_owned(match: OwnedBy | NotOwnedBy, opened: Opened) -> bool | None:
    if opened.direction is Direction.INBOUND:
        return False  # what arrives has no owner
    owner = opened.gid if match.owner is Owner.GROUP else opened.uid
    return None if owner is None else (owner in match.ids) is isinstance(match, OwnedBy)


def _is_named(interface: str, name: str) -> bool:
    return interface.startswith(name[:-1]) if name.endswith("+") else interface == name
