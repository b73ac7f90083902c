"""The packet from where it enters to where it ends: hooks in order, and routing between them. Pure.

sent here:  route → output (routed again when mark or destination changed) → postrouting → it leaves, or over lo:
            prerouting → input, with the same conntrack entry and the route it has
arriving:   ingress → prerouting → route → input, or forward → postrouting → it leaves
"""

from typing import Final

from agent.explain import effects
from agent.explain.flow import CONFIRMED, DNAT_DONE, LOOPBACK, SNAT_DONE, Known, Tracked, Unknown, address
from agent.explain.outcome import Fate, Outcome
from agent.explain.packet import ICMP, ICMP6, ConntrackState
from agent.explain.packet import Way as Direction
from agent.explain.statements import NatKind
from agent.explain.stations import Group, Kind, Station
from agent.explain.surroundings import Route, RouteKind
from agent.explain.tables import ChainType, Hook
from agent.explain.walk import Ending, Walk
from agent.explain.way import Way

_FATES: Final = {Ending.DROP: Fate.DROP, Ending.REJECT: Fate.REJECT, Ending.UNKNOWN: Fate.UNKNOWN}
_ONWARD: Final = (RouteKind.UNICAST, RouteKind.BROADCAST, RouteKind.MULTICAST)
_CONNECTION: Final = {
    ConntrackState.NEW: "conntrack: a new connection",
    ConntrackState.ESTABLISHED: "conntrack: established; NAT rules are not asked, the connection's translation holds",
    ConntrackState.RELATED: "conntrack: related to another connection",
    ConntrackState.INVALID: "conntrack: invalid",
    ConntrackState.UNTRACKED: "conntrack: not tracked",
}


def travel(way: Way) -> Outcome:
    """Where it ends. Raises Walked, TooLong, and what reading a chain raises."""
    return _sent(way) if way.flow.packet.way is Direction.OUTBOUND else _arrived(way)


# ── The two ways ───────────────────────────────────────────────────────────────────────────────────────────────────
def _sent(way: Way) -> Outcome:
    flow = way.flow
    route = _routed(way)
    if route.kind in (RouteKind.NONE, RouteKind.REFUSED):
        return _end(way, Fate.DROP, "no route: the sender is told, no rule is asked")
    if flow.packet.source is None and route.source is not None:
        flow.source = int(route.source)
    way.onward = _interface(way, route)
    flow.enter(Hook.OUTPUT, "", way.onward)
    _tell_route(way, route)
    ended = _hook(way, Hook.OUTPUT)
    if ended is not None:
        return ended
    ended = _leave(way)
    if ended is not None:
        return ended
    if flow.oif != LOOPBACK:
        return _end(way, None, f"leaves by {_named(flow.oif)}")
    way.tell("over lo: it comes in again, with its connection and its mark, without its sender's socket")
    flow.own = False
    flow.enter(Hook.PREROUTING, LOOPBACK, "")
    sent_to = flow.destination, way.translated
    ended = _ingress(way) or _hook(way, Hook.PREROUTING)
    if ended is not None:
        return ended
    if flow.destination != sent_to[0] and way.translated != sent_to[1]:
        return _routed_on(way)  # it brought its route along, which is dropped here (nf_nat_proto.c: skb_dst_drop)
    return _delivered(way)


def _arrived(way: Way) -> Outcome:
    flow = way.flow
    iif: Known = flow.packet.interface or flow.not_told("the interface it arrives on")
    flow.enter(Hook.PREROUTING, iif, "")
    if flow.version == 6 and iif != LOOPBACK and _is_loopbacks(way):
        return _end(way, Fate.DROP, "the kernel takes ::1 from lo alone")
    ended = _ingress(way) or _hook(way, Hook.PREROUTING)
    return ended if ended is not None else _routed_on(way)


def _routed_on(way: Way) -> Outcome:
    """From prerouting to where it belongs."""
    flow = way.flow
    route = _routed(way, arrives=True)
    _tell_route(way, route)
    if route.kind is RouteKind.LOCAL:
        return _delivered(way)
    if route.kind not in _ONWARD:
        refused = "its source must not come from there (rp_filter, martian)"
        return _end(way, Fate.DROP, refused if route.kind is RouteKind.REFUSED else _no_route(way))
    if flow.assigned:  # net/ipv4/ip_forward.c and net/ipv6/ip6_output.c: what has a socket is not forwarded
        return _end(way, Fate.DROP, f"tproxy gave it a socket, and it is routed elsewhere: {_no_local_route(way)}")
    way.onward = _interface(way, route)
    flow.enter(Hook.FORWARD, flow.iif, way.onward)
    ended = _hook(way, Hook.FORWARD) or _leave(way)
    return ended if ended is not None else _end(way, None, f"leaves by {_named(flow.oif)}")


def _leave(way: Way) -> Outcome | None:
    flow = way.flow
    flow.enter(Hook.POSTROUTING, flow.iif, way.onward)
    ended = _hook(way, Hook.POSTROUTING)
    if ended is not None:
        return ended
    flow.mark_status(CONFIRMED)
    return _on_device(way, Hook.EGRESS, flow.oif)


def _delivered(way: Way) -> Outcome:
    way.flow.enter(Hook.INPUT, way.flow.iif, "")
    ended = _hook(way, Hook.INPUT)
    way.flow.mark_status(CONFIRMED)
    return ended if ended is not None else _end(way, None, "delivered here")


def _ingress(way: Way) -> Outcome | None:
    return _on_device(way, Hook.INGRESS, way.flow.iif)


def _on_device(way: Way, hook: Hook, device: Known) -> Outcome | None:
    """Chains of one interface (netdev, inet ingress); they know nothing of connections."""
    groups = way.common.stations.devices.get((hook, device)) if isinstance(device, str) else None
    if not groups:
        return None
    flow = way.flow
    back = flow.hook
    flow.enter(hook, flow.iif, flow.oif)
    ended = _asked(way, groups)
    flow.enter(back, flow.iif, flow.oif)
    return ended


# ── Hooks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _hook(way: Way, hook: Hook) -> Outcome | None:
    """None: it goes on."""
    return _asked(way, way.common.stations.hooks[hook])


def _asked(way: Way, groups: tuple[Group, ...]) -> Outcome | None:
    way.passed += 1
    for group in groups:
        ending = _in_order(way, group)
        if ending is not Ending.ACCEPT:
            return _end(way, _FATES[ending])
    return None


def _in_order(way: Way, group: Group) -> Ending:
    """Of several orders all are followed, if one of those who are asked does anything."""
    if len(group.orders) == 1:
        return _each(way, group.orders[0])
    number, at = way.common.choices.reserve((id(group), way.signature()))
    before = way.flow.signature(), way.translated
    ending = None
    try:
        ending = _each(way, group.orders[at])
        return ending
    finally:  # also where this way ends in the middle, because another has been there
        if ending is not Ending.ACCEPT or before != (way.flow.signature(), way.translated):
            way.common.choices.widen(number, len(group.orders))
            way.common.left_out |= not group.complete
            _doubt_order(way, group)


def _each(way: Way, order: tuple[Station, ...]) -> Ending:
    translated = way.translated, way.source
    for station in order:
        if station.kind is Kind.CONNTRACK:
            if way.flow.track():
                way.tell(_CONNECTION[way.flow.packet.state])
            continue
        ending = _nat(way, station) if station.kind is Kind.NAT else _chain(way, station)
        if ending is not Ending.ACCEPT:
            return ending
        if station.kind is Kind.CHAIN and translated != (way.translated, way.source):
            break  # a chain of NAT's: the first that translates is the last that is asked
    return Ending.ACCEPT


def _chain(way: Way, station: Station) -> Ending:
    assert station.table is not None and station.chain is not None and station.chain.base is not None
    flow = way.flow
    before = flow.mark, flow.source, flow.destination
    ending = Walk(way, station.table, station.chain).run()
    changed = before != (flow.mark, flow.source, flow.destination)
    if ending is Ending.ACCEPT and station.chain.base.kind is ChainType.ROUTE and changed:
        return _rerouted(way)
    return ending


def _doubt_order(way: Way, group: Group) -> None:
    stations = [station for station in group.orders[0] if station.table is not None]
    if not stations or stations[0].table is None:
        return
    names = ", ".join(f"{one.table.name} {one.chain.name}" for one in stations if one.table and one.chain)
    chain = stations[0].chain.name if stations[0].chain else ""
    way.doubt(stations[0].table, chain, None, names, "they have one priority, and which is asked first cannot be read")


# ── NAT ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _nat(way: Way, station: Station) -> Ending:
    """nf_nat_core.c: nf_nat_inet_fn. Asked once a connection and side; what no chain decides is decided by that, too:
    over lo nobody is asked again in prerouting."""
    flow = way.flow
    if flow.tracked is not Tracked.ENTRY:
        return Ending.ACCEPT
    if flow.packet.state is ConntrackState.ESTABLISHED:
        return _as_before(way)
    if flow.packet.state is ConntrackState.RELATED and flow.packet.protocol in (ICMP, ICMP6):
        return Ending.ACCEPT
    of_source = flow.hook in (Hook.POSTROUTING, Hook.INPUT)
    if way.source_done if of_source else way.destination_done:
        return Ending.ACCEPT
    before, translated = flow.destination, (way.translated, way.source)
    ending = Ending.ACCEPT
    for group in station.groups:
        ending = _in_order(way, group)
        if ending is not Ending.ACCEPT or translated != (way.translated, way.source):
            break
    if of_source:
        way.source_done = True
    else:
        way.destination_done = True
    flow.mark_status(SNAT_DONE if of_source else DNAT_DONE)
    if ending is Ending.ACCEPT and flow.hook is Hook.OUTPUT and flow.destination != before:
        return _rerouted(way)
    return ending


def _as_before(way: Way) -> Ending:
    """Of an established connection: what its first packet's rules have made of it, and of answers the reverse
    (nf_nat_core.c: nf_nat_packet)."""
    flow, connection = way.flow, way.connection
    if connection is None:
        return Ending.ACCEPT
    before = flow.destination
    if flow.hook in (Hook.POSTROUTING, Hook.INPUT):
        effects.source_again(way, connection)
    else:
        effects.destination_again(way, connection)
    if flow.hook is Hook.OUTPUT and flow.destination != before:
        return _rerouted(way)
    return Ending.ACCEPT


# ── Routes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _routed(way: Way, *, arrives: bool = False) -> Route:
    """The kernel's decision; of what it depends on and nobody knows, both."""
    flow = way.flow
    iif = flow.iif if arrives and isinstance(flow.iif, str) else None
    asked = way.asked(arrives_on=iif)
    found = None
    if asked is not None and not (arrives and iif is None) and not isinstance(flow.mark, Unknown):
        if asked.destination.is_loopback and not arrives:
            return Route(RouteKind.LOCAL, LOOPBACK, asked.destination, 255)
        found = way.around.route(asked)
    if found is not None:
        return found
    at = way.choose(2, ("route", way.passed))
    way.tell("the route is not known: both ways are followed")
    return (Route(RouteKind.UNICAST), Route(RouteKind.LOCAL, LOOPBACK))[at]


def _rerouted(way: Way) -> Ending:
    """After the output hook changed what the route depended on (net/ipv4/netfilter.c: ip_route_me_harder). What is left
    of the hook still sees the interface that it began with (struct nf_hook_state is made once)."""
    route = _routed(way)
    if route.kind in (RouteKind.NONE, RouteKind.REFUSED):
        way.tell("routed again: no route")
        way.notes.append(_no_route(way))
        return Ending.DROP
    way.onward = _interface(way, route)
    way.tell(f"routed again: {_where(way, route)}")
    return Ending.ACCEPT


def _interface(way: Way, route: Route) -> Known:
    if route.kind is RouteKind.LOCAL:
        return LOOPBACK
    return route.interface or way.flow.not_told("the interface it leaves by")


def _tell_route(way: Way, route: Route) -> None:
    way.tell(f"routed: {_where(way, route)}")


def _where(way: Way, route: Route) -> str:
    if route.kind is RouteKind.LOCAL:
        return "to this host"
    if route.kind in _ONWARD:
        return f"by {_named(_interface(way, route))}"
    return "nowhere" if route.kind is RouteKind.NONE else "refused"


def _no_route(way: Way) -> str:
    flow = way.flow
    to = "?" if isinstance(flow.destination, Unknown) else str(address(flow.destination, flow.version))
    return f"no route to {to}"


def _no_local_route(way: Way) -> str:
    mark = way.flow.mark
    return f"there is no local route for mark {mark:#x}" if isinstance(mark, int) else "no local route for its mark"


def _is_loopbacks(way: Way) -> bool:
    ends = (way.flow.source, way.flow.destination)
    return any(isinstance(end, int) and address(end, 6).is_loopback for end in ends)


def _named(interface: Known) -> str:
    return interface if isinstance(interface, str) else "an interface that is not known"


# ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _end(way: Way, fate: Fate | None, note: str = "") -> Outcome:
    """`fate` None: whatever was made of it on the way."""
    notes = [*way.notes, *([note] if note else [])]
    if fate is not None:
        return Outcome(fate, note=tuple(notes))
    if way.source:
        notes.append(f"source becomes {way.source}")
    if way.tproxied is not None:
        to, port = way.tproxied
        return Outcome(Fate.TPROXY, to, port, tuple(notes))
    if (translated := way.translated) is not None:
        if not translated.known:
            notes.append("where to cannot be told")
        kind = Fate.REDIRECT if translated.kind is NatKind.REDIRECT else Fate.DNAT
        return Outcome(kind, translated.address, translated.port, tuple(notes))
    return Outcome(Fate.ACCEPT, note=tuple(notes))
