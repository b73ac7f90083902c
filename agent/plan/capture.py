"""Which new connections and queries are led to the proxy: the stage CAPTURE."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from agent.plan.matching import (
    BOTH,
    LINK_LOCAL6,
    LOOPBACK6,
    TCP,
    Named,
    all_of,
    at_ports,
    excluded_interfaces,
    excluded_networks,
    excluded_owner_ports,
    excluded_ports,
    excluded_senders,
    exempt,
    from_probes,
    in_networks,
    included_inbound,
    included_outbound,
    marked,
    never_steered,
    other_families,
    proxys,
    virtual_interfaces,
)
from agent.plan.ranges import Ranges
from agent.plan.rules import (
    AtPorts,
    Capture,
    Direction,
    Exempt,
    Match,
    OverLoopback,
    Protocol,
    Rule,
    Side,
    Stage,
)
from agent.plan.settings import PlanSettings
from agent.plan.steering import DnsCapture, Steering
from proxy.api import constants

DNS_QUERIES: Final = Ranges.of(53)  # RFC 1035 4.2
_PASSTHROUGH: Final = (IPv4Network(constants.PASSTHROUGH4), IPv6Network(constants.PASSTHROUGH6))
_OUT: Final = Direction.OUTBOUND
_IN: Final = Direction.INBOUND


# ── What the pod sends ─────────────────────────────────────────────────────────────────────────────────────────────
def outbound(wanted: Steering, settings: PlanSettings) -> Iterator[Rule]:
    yield from excluded_interfaces(_OUT, Stage.CAPTURE, wanted)
    yield from other_families(_OUT, Stage.CAPTURE, wanted)
    if settings.owners is not None and settings.own_pod:
        yield from _to_own_application(settings)
        yield from _to_own_pod(wanted, settings)
    never = tuple(never_steered(_OUT, Stage.CAPTURE, settings))
    own = tuple(_own(settings))
    # A resolver on lo is asked over lo: its queries must be taken before lo is exempt, and the proxy's not at all.
    ask_over_lo = wanted.dns is not None and wanted.dns.over_loopback
    yield from own if ask_over_lo else (*never, *own)
    yield from excluded_senders(Stage.CAPTURE, wanted)
    protocols = TCP if wanted.dns is None else BOTH  # of UDP only queries are captured
    yield from excluded_owner_ports(Stage.CAPTURE, wanted, protocols)
    yield from excluded_ports(_OUT, Stage.CAPTURE, wanted, protocols)
    if wanted.dns is not None:
        yield from _queries("out-dns", _OUT, wanted.dns, settings, None)
    if ask_over_lo:
        yield from never
    yield from excluded_networks(_OUT, Stage.CAPTURE, wanted)
    meaning = "every other new TCP connection of the pod meets the proxy"
    for name, match in included_outbound(wanted):
        yield Capture(f"out-capture{name}", _only(meaning, name), _OUT, settings.outbound_port, match)


def _own(settings: PlanSettings) -> Iterator[Exempt]:
    for name, match in proxys(settings):
        yield exempt(_OUT, Stage.CAPTURE, name, match, "the proxy's own packets: no loop")


def _to_own_application(settings: PlanSettings) -> Iterator[Exempt]:
    """The sidecar's connections to the application that it serves: not to be led to it once more."""
    if settings.transparent:
        match = all_of(OverLoopback(), marked(settings))
        yield exempt(_OUT, Stage.CAPTURE, "own-application", match, "the proxy calls its application: no loop")
        return
    for name, source in in_networks("passthrough", _PASSTHROUGH, Side.SOURCE):
        match = all_of(OverLoopback(), source)
        yield exempt(_OUT, Stage.CAPTURE, name, match, "the proxy calls its application from this address: no loop")


def _to_own_pod(wanted: Steering, settings: PlanSettings) -> Iterator[Rule]:
    """The sidecar was led by a Service to its own pod: that connection is inbound, and judged as such.

    All users as one set and all groups as another. istio-iptables writes a pair of rules for each user, and the first
    user's second rule takes the second user's packets out (reference/redirection.md A3).
    """
    included = included_inbound(wanted)
    if not included:
        return
    own_addresses = tuple(in_networks("loopback", (settings.loopback4, LOOPBACK6, LINK_LOCAL6), Side.DESTINATION))
    kept = wanted.exclude_inbound_ports | Ranges.of(settings.tunnel_port)
    if wanted.dns is not None:
        kept |= DNS_QUERIES  # whoever answers queries asks a server that may be this pod
    ports = at_ports("ports", kept, Side.DESTINATION)
    sources = in_networks("networks", wanted.exclude_inbound_networks, Side.SOURCE)
    direct = (*own_addresses, *ports, *sources)
    meaning = "the proxy calls its own pod through a Service: inbound, if inbound is steered there"
    for name, owner in proxys(settings):
        sent = all_of(OverLoopback(), owner)
        who = name.removeprefix("proxy-")
        for what, match in direct:
            yield exempt(_OUT, Stage.CAPTURE, f"own-pod-{who}-{what}", all_of(sent, match), meaning)
        for _, steered in included:
            yield Capture(f"out-own-pod-{who}", meaning, _OUT, settings.inbound_port, all_of(sent, steered))


# ── What reaches the pod ───────────────────────────────────────────────────────────────────────────────────────────
def inbound(wanted: Steering, settings: PlanSettings) -> Iterator[Rule]:
    included = included_inbound(wanted)
    if not included and not wanted.virtual_interfaces:
        return
    yield from excluded_interfaces(_IN, Stage.CAPTURE, wanted)
    yield from other_families(_IN, Stage.CAPTURE, wanted)
    yield from never_steered(_IN, Stage.CAPTURE, settings)
    yield from from_probes(Stage.CAPTURE, wanted, settings)
    yield from _from_guests(wanted, settings)
    if not included:
        return
    yield tunnel(Stage.CAPTURE, settings)
    yield from excluded_ports(_IN, Stage.CAPTURE, wanted, TCP)
    yield from excluded_networks(_IN, Stage.CAPTURE, wanted)
    if settings.owners is None:
        yield exempt(_IN, Stage.CAPTURE, "proxy", marked(settings), "the proxy's own packets")
    meaning = "every other new TCP connection to the pod meets the proxy"
    for _, match in included:
        yield Capture("in-capture", _only(meaning, match), _IN, settings.inbound_port, match)


def tunnel(stage: Stage, settings: PlanSettings) -> Exempt:
    port = AtPorts(Ranges.of(settings.tunnel_port), Side.DESTINATION)
    return exempt(_IN, stage, "tunnel", port, "the tunnel port reaches the proxy as it is")


def _from_guests(wanted: Steering, settings: PlanSettings) -> Iterator[Rule]:
    """What a guest sends (KubeVirt's machine, a container in the pod) arrives here and is outbound by its meaning."""
    if not wanted.virtual_interfaces:
        return
    guests = virtual_interfaces(wanted)
    if wanted.dns is not None:
        yield from _queries("in-virtual-dns", _IN, wanted.dns, settings, guests)
    yield from direct_of_guests(Stage.CAPTURE, wanted)
    meaning = "what a guest opens behind a virtual interface meets the proxy as if the pod had opened it"
    for name, match in included_outbound(wanted):
        yield Capture(f"in-virtual{name}", _only(meaning, name), _IN, settings.outbound_port, all_of(guests, match))
    yield exempt(_IN, Stage.CAPTURE, "virtual", guests, "all else that guests send is not inbound to the pod")


def direct_of_guests(stage: Stage, wanted: Steering) -> Iterator[Exempt]:
    """What guests send direct: to the networks named with their interface, and to what the pod too reaches direct."""
    for number, interface in enumerate(wanted.virtual_interfaces, start=1):
        own = virtual_interfaces(Steering(virtual_interfaces=(interface,)))
        for name, match in in_networks(f"virtual{number}-direct", interface.direct, Side.DESTINATION):
            yield exempt(_IN, stage, name, all_of(own, match), "networks that guests of this interface reach direct")
    guests = virtual_interfaces(wanted)
    ports = at_ports("virtual-ports", wanted.exclude_outbound_ports, Side.DESTINATION)
    networks = in_networks("virtual-networks", wanted.exclude_outbound_networks, Side.DESTINATION)
    for name, match in (*ports, *networks):
        yield exempt(_IN, stage, name, all_of(guests, match), "what the pod reaches direct its guests do too")


# ── DNS ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _queries(
    prefix: str, direction: Direction, dns: DnsCapture, settings: PlanSettings, where: Match | None
) -> Iterator[Capture]:
    protocols = (Protocol.UDP, Protocol.TCP) if dns.tcp else (Protocol.UDP,)
    for protocol in protocols:
        queries = AtPorts(DNS_QUERIES, Side.DESTINATION, frozenset({protocol}))
        for name, servers in _servers(dns):
            rule_id = f"{prefix}-{protocol.value}{name}"
            meaning = f"queries over {protocol.value.upper()} are answered by the DNS listener"
            match = all_of(where, servers, queries)
            yield Capture(rule_id, meaning, direction, settings.dns_port, match, protocol)


def _servers(dns: DnsCapture) -> Iterable[Named | tuple[str, None]]:
    if dns.servers is None:
        return (("", None),)
    return in_networks("", (ip_network(server) for server in dns.servers), Side.DESTINATION)


def _only(meaning: str, restricted: object) -> str:
    return f"of what is included, {meaning}" if restricted else meaning
