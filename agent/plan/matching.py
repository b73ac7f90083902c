"""What the stages of a plan have in common: how rules are called, and what a wish matches."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network
from typing import Final

from agent.plan.ranges import Ranges
from agent.plan.rules import (
    AllOf,
    AtPorts,
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
    OverLoopback,
    OwnedBy,
    Owner,
    Protocol,
    Side,
    Stage,
)
from agent.plan.settings import PlanSettings
from agent.plan.steering import Network, Owners, Steering

LOOPBACK6: Final = IPv6Network("::1/128")
LINK_LOCAL6: Final = IPv6Network("fe80::/10")  # RFC 4291 2.5.6; redirecting it to ::1 is a black hole

WAY: Final = {Direction.INBOUND: "in", Direction.OUTBOUND: "out"}
TCP: Final = frozenset({Protocol.TCP})
UDP: Final = frozenset({Protocol.UDP})
BOTH: Final = TCP | UDP

Named = tuple[str, Match]
"""What is added to a rule's id, and what the rule matches."""


def exempt(direction: Direction, stage: Stage, name: str, match: Match, meaning: str) -> Exempt:
    return Exempt(f"{WAY[direction]}-{stage.value}-skip-{name}", meaning, direction, stage, match)


def all_of(*matches: Match | None) -> Match:
    """One match of several; what is None restricts nothing."""
    flat = [
        part
        for match in matches
        if match is not None
        for part in (match.matches if isinstance(match, AllOf) else (match,))
    ]
    return flat[0] if len(flat) == 1 else AllOf(tuple(flat))


# ── Whose packet it is ─────────────────────────────────────────────────────────────────────────────────────────────
def proxys(settings: PlanSettings) -> tuple[Named, ...]:
    """The proxy's own packets, as they are sent: any of these."""
    if settings.owners is None:
        return (("proxy", marked(settings)),)
    return owned("proxy-", settings.owners)


def owned(prefix: str, owners: Owners) -> tuple[Named, ...]:
    kinds = ((Owner.USER, "users", owners.uids), (Owner.GROUP, "groups", owners.gids))
    return tuple((f"{prefix}{name}", OwnedBy(owner, ids)) for owner, name, ids in kinds if ids)


def marked(settings: PlanSettings) -> Marked:
    return Marked(settings.proxy_mark, settings.mark_mask)


# ── Where it goes ──────────────────────────────────────────────────────────────────────────────────────────────────
def in_networks(name: str, networks: Iterable[Network], side: Side) -> Iterator[Named]:
    """One match a family. Networks that lie in one another or side by side become one: equal wishes, equal rules."""
    every = tuple(networks)
    of4 = tuple(collapse_addresses(network for network in every if isinstance(network, IPv4Network)))
    of6 = tuple(collapse_addresses(network for network in every if isinstance(network, IPv6Network)))
    if of4:
        yield f"{name}4", InNetworks(of4, side)
    if of6:
        yield f"{name}6", InNetworks(of6, side)


def at_ports(name: str, ports: Ranges, side: Side, protocols: frozenset[Protocol] = TCP) -> Iterator[Named]:
    if ports:
        yield name, AtPorts(ports, side, protocols)


def other_families(direction: Direction, stage: Stage, wanted: Steering) -> Iterator[Exempt]:
    for family in IPFamily:
        if family not in wanted.families:
            meaning = f"{family.value.replace('ip', 'IP')} is not to be steered"
            yield exempt(direction, stage, family.value, OfFamily(family), meaning)


def excluded_interfaces(direction: Direction, stage: Stage, wanted: Steering) -> Iterator[Exempt]:
    """First in every stage: nothing is done to what comes or goes there, not even a mark or a zone."""
    if wanted.exclude_interfaces:
        meaning = "excluded interfaces: what arrives there or leaves there is no business of the mesh"
        yield exempt(direction, stage, "interfaces", OnInterfaces(_sorted(wanted.exclude_interfaces)), meaning)


def never_steered(direction: Direction, stage: Stage, settings: PlanSettings) -> Iterator[Exempt]:
    """lo, loopback, link-local."""
    over_lo = "what comes over lo was judged when it was sent"
    if direction is Direction.OUTBOUND:
        over_lo = "the pod's own address, over lo, is never steered"
    yield exempt(direction, stage, "lo", OverLoopback(), over_lo)
    # Loopback addresses only travel over lo, which the rule before exempts. Where it is decided what to capture they
    # are named all the same: no route or interface trick may ever lead them to the proxy.
    if stage is Stage.CAPTURE:
        loopback4, loopback6 = (
            InNetworks((settings.loopback4,), Side.DESTINATION),
            InNetworks((LOOPBACK6,), Side.DESTINATION),
        )
        yield exempt(direction, stage, "loopback4", loopback4, "loopback addresses are never steered")
        yield exempt(direction, stage, "loopback6", loopback6, "the loopback address is never steered")
    for name, side in (("linklocal6-to", Side.DESTINATION), ("linklocal6-from", Side.SOURCE)):
        meaning = "link-local IPv6 is never steered: it cannot reach ::1"
        yield exempt(direction, stage, name, InNetworks((LINK_LOCAL6,), side), meaning)


def from_probes(stage: Stage, wanted: Steering, settings: PlanSettings) -> Iterator[Exempt]:
    """What the node itself opens. In the order of the stages, before what the pod's owner wishes: a probe that fails
    ends the container. TCP alone: nobody probes by UDP."""
    for name, match in _probes(Side.SOURCE, wanted, settings):
        only_tcp = all_of(OfProtocol(Protocol.TCP), match)  # the stage FORGOTTEN sees no other
        met = only_tcp if stage is Stage.CAPTURE else match
        yield exempt(Direction.INBOUND, stage, name, met, "the node's own connections, its probes: to the application")


def to_probes(wanted: Steering, settings: PlanSettings) -> Iterator[Exempt]:
    """The answers, once conntrack has forgotten the connection. Nothing is exempt that the pod opens itself: an answer
    opens nothing, and so is not captured."""
    for name, match in _probes(Side.DESTINATION, wanted, settings):
        yield exempt(Direction.OUTBOUND, Stage.FORGOTTEN, name, match, "answers to the node's own connections")


def _probes(side: Side, wanted: Steering, settings: PlanSettings) -> Iterator[Named]:
    if settings.probes is None:
        return
    sources = (settings.probes.source4, settings.probes.source6)
    yield from in_networks("probes", _whole(sources, wanted), side)


def _whole(addresses: Iterable[IPv4Address | IPv6Address], wanted: Steering) -> Iterator[Network]:
    versions = {4 if family is IPFamily.IPV4 else 6 for family in wanted.families}
    return (ip_network(address) for address in addresses if address.version in versions)


# ── What the pod's owner excludes ──────────────────────────────────────────────────────────────────────────────────
def excluded_senders(stage: Stage, wanted: Steering) -> Iterator[Exempt]:
    """Outbound only: what arrives has no owner."""
    way = Direction.OUTBOUND
    for name, match in owned("excluded-", Owners(wanted.exclude_uids, wanted.exclude_gids)):
        yield exempt(way, stage, name, match, "excluded users and groups send direct")
    if wanted.include_gids:
        others = NotOwnedBy(Owner.GROUP, wanted.include_gids)
        yield exempt(way, stage, "other-groups", others, "only what the included groups send is steered")


def excluded_owner_ports(stage: Stage, wanted: Steering, protocols: frozenset[Protocol]) -> Iterator[Exempt]:
    for number, pair in enumerate(wanted.exclude_owner_ports, start=1):
        of_protocols = pair.protocols & protocols
        if of_protocols:
            match = all_of(OwnedBy(Owner.USER, pair.uids), AtPorts(pair.ports, Side.DESTINATION, of_protocols))
            meaning = "what these users send to these ports goes direct"
            yield exempt(Direction.OUTBOUND, stage, f"user-ports{number}", match, meaning)


def excluded_ports(
    direction: Direction, stage: Stage, wanted: Steering, protocols: frozenset[Protocol]
) -> Iterator[Exempt]:
    ports = wanted.exclude_inbound_ports if direction is Direction.INBOUND else wanted.exclude_outbound_ports
    for name, match in at_ports("ports", ports, Side.DESTINATION, protocols):
        yield exempt(direction, stage, name, match, "excluded ports are reached direct")


def excluded_networks(direction: Direction, stage: Stage, wanted: Steering) -> Iterator[Exempt]:
    inbound = direction is Direction.INBOUND
    networks = wanted.exclude_inbound_networks if inbound else wanted.exclude_outbound_networks
    meaning = "excluded sources reach the application direct" if inbound else "excluded networks are reached direct"
    for name, match in in_networks("networks", networks, Side.SOURCE if inbound else Side.DESTINATION):
        yield exempt(direction, stage, name, match, meaning)


def included_outbound(wanted: Steering) -> tuple[tuple[str, Match | None], ...]:
    """What of the pod's connections is steered: any of these; a match of None takes all, and no entry takes nothing."""
    if wanted.include_outbound is None:
        return (("", None),)
    ports = at_ports("-ports", wanted.include_outbound.ports, Side.DESTINATION)
    return (*ports, *in_networks("-networks", wanted.include_outbound.networks, Side.DESTINATION))


def included_inbound(wanted: Steering) -> tuple[tuple[str, Match | None], ...]:
    """As `included_outbound`, of the connections to the pod."""
    if wanted.include_inbound_ports is None:
        return (("", None),)
    return tuple(at_ports("", wanted.include_inbound_ports, Side.DESTINATION))


def virtual_interfaces(wanted: Steering) -> OnInterfaces:
    return OnInterfaces(_sorted(interface.name for interface in wanted.virtual_interfaces))


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
