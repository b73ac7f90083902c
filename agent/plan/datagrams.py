"""UDP, which the proxy does not serve: counted, or refused. The stage DATAGRAM.

Only datagrams come here that conntrack calls new: those of a flow that nobody has answered yet. An answered flow costs
one comparison, and what never is answered (statsd, syslog) is counted and refused datagram by datagram.
"""

from collections.abc import Iterator
from typing import Final

from agent.plan.capture import DNS_QUERIES
from agent.plan.matching import (
    UDP,
    WAY,
    excluded_interfaces,
    excluded_networks,
    excluded_owner_ports,
    excluded_ports,
    excluded_senders,
    exempt,
    proxys,
)
from agent.plan.ranges import Ranges
from agent.plan.rules import (
    AtPorts,
    Direction,
    Exempt,
    Inspect,
    Match,
    OfProtocol,
    OverLoopback,
    Protocol,
    Refuse,
    Rule,
    Side,
    Stage,
)
from agent.plan.settings import PlanSettings
from agent.plan.steering import Steering, UdpPolicy

_QUIC: Final = Ranges.of(443)  # RFC 9114 3.1: HTTP/3 is offered on the port of HTTPS as a rule
_REFUSED: Final[dict[UdpPolicy, tuple[str, Match, str]]] = {
    UdpPolicy.DENY_443: (
        "refuse-443",
        AtPorts(_QUIC, Side.DESTINATION, UDP),
        "QUIC is refused: HTTP falls back to TCP",
    ),
    UdpPolicy.DENY: ("refuse", OfProtocol(Protocol.UDP), "UDP would bypass the mesh: refused"),
}


def datagrams(direction: Direction, wanted: Steering, settings: PlanSettings) -> Iterator[Rule]:
    way, stage = WAY[direction], Stage.DATAGRAM
    meaning = "UDP that nobody has answered yet is looked at more closely"
    yield Inspect(f"{way}-datagram-inspect", meaning, direction, protocol=Protocol.UDP)
    yield from excluded_interfaces(direction, stage, wanted)
    yield exempt(direction, stage, "lo", OverLoopback(), "what stays in the pod is no business of the mesh")
    if direction is Direction.OUTBOUND:
        for name, match in proxys(settings):
            yield exempt(direction, stage, name, match, "the proxy's own datagrams")
    if wanted.udp is not UdpPolicy.ALLOW:
        yield from _spared(direction, wanted, settings)
        name, match, meaning = _REFUSED[wanted.udp]
        yield Refuse(f"{way}-datagram-{name}", meaning, direction, match)
    if wanted.udp is not UdpPolicy.DENY:
        meaning = "UDP bypasses the mesh: passed, and counted until it is answered"
        yield Exempt(f"{way}-datagram-passed", meaning, direction, stage, OfProtocol(Protocol.UDP))


def _spared(direction: Direction, wanted: Steering, settings: PlanSettings) -> Iterator[Exempt]:
    """A captured query has another port once it is translated, which some backends see."""
    ports = DNS_QUERIES if wanted.dns is None else DNS_QUERIES | Ranges.of(settings.dns_port)
    queries = AtPorts(ports, Side.DESTINATION, UDP)
    yield exempt(direction, Stage.DATAGRAM, "dns", queries, "names are always resolved")
    if direction is Direction.OUTBOUND:
        yield from excluded_senders(Stage.DATAGRAM, wanted)
        yield from excluded_owner_ports(Stage.DATAGRAM, wanted, UDP)
    yield from excluded_ports(direction, Stage.DATAGRAM, wanted, UDP)
    yield from excluded_networks(direction, Stage.DATAGRAM, wanted)
