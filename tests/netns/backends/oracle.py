"""What a Steering says of a packet, told once more and apart from the rules: DESIGN 4 and the cases of reference B."""

from collections.abc import Iterable

from agent.plan.rules import Protocol
from agent.plan.settings import PlanSettings
from agent.plan.steering import Network, Steering, UdpPolicy
from tests.netns.backends.packets import FAR, PASSTHROUGH, PEER, PEER_NET1, Address, Arrival, Packet, Way

_PEERS = {address for of_both in (PEER, PEER_NET1, *FAR) for address in of_both.values()}


def arrival(packet: Packet, wanted: Steering, settings: PlanSettings) -> Arrival:
    """Who gets it."""
    direct = _direct(packet, settings)
    if _named(packet.interface, wanted.exclude_interfaces):
        return direct
    if packet.family in wanted.families:
        captured = {Way.SENT: _sent, Way.RECEIVED: _received, Way.PASSING: _passing}[packet.way](
            packet, wanted, settings
        )
        if captured is not None:
            return captured
    if packet.protocol is Protocol.UDP and _refused(packet, wanted, settings):
        return Arrival.REFUSED
    return direct


def _direct(packet: Packet, settings: PlanSettings) -> Arrival:
    if packet.destination in _PEERS:
        return Arrival.PEER
    if packet.port == settings.tunnel_port:
        return Arrival.TUNNEL
    return Arrival.APPLICATION


def _sent(packet: Packet, wanted: Steering, settings: PlanSettings) -> Arrival | None:
    own = is_proxys(packet, settings)
    over_lo = packet.interface == "lo"
    if over_lo and settings.owners is not None and settings.own_pod:
        if _calls_its_own_application(packet, settings):
            return None
        if own and _calls_its_own_pod(packet, wanted, settings):
            return Arrival.INBOUND
    asked_over_lo = wanted.dns is not None and wanted.dns.over_loopback
    if own or (over_lo and not asked_over_lo):
        return None
    if packet.uid in wanted.exclude_uids or packet.gid in wanted.exclude_gids:
        return None
    if wanted.include_gids is not None and packet.gid not in wanted.include_gids:
        return None
    if _by_owner_ports(packet, wanted) or packet.port in wanted.exclude_outbound_ports:
        return None
    if _is_query(packet, wanted):
        return Arrival.DNS
    if over_lo or packet.protocol is Protocol.UDP or _within(packet.destination, wanted.exclude_outbound_networks):
        return None
    return Arrival.OUTBOUND if _included(packet, wanted) else None


def _calls_its_own_application(packet: Packet, settings: PlanSettings) -> bool:
    if settings.transparent:
        return packet.mark & settings.mark_mask == settings.proxy_mark
    return packet.source in PASSTHROUGH.values()


def _calls_its_own_pod(packet: Packet, wanted: Steering, settings: PlanSettings) -> bool:
    return (
        packet.protocol is Protocol.TCP
        and not packet.destination.is_loopback
        and packet.port != settings.tunnel_port
        and not (packet.port == 53 and wanted.dns is not None)
        and packet.port not in wanted.exclude_inbound_ports
        and (wanted.include_inbound_ports is None or packet.port in wanted.include_inbound_ports)
        and not _within(packet.source or packet.destination, wanted.exclude_inbound_networks)
    )


def _received(packet: Packet, wanted: Steering, settings: PlanSettings) -> Arrival | None:
    if is_guests(packet, wanted):
        return _passing(packet, wanted, settings)
    if packet.protocol is Protocol.UDP or packet.port == settings.tunnel_port:
        return None
    if packet.port in wanted.exclude_inbound_ports or _within(packet.source, wanted.exclude_inbound_networks):
        return None
    if wanted.include_inbound_ports is not None and packet.port not in wanted.include_inbound_ports:
        return None
    return Arrival.INBOUND


def _passing(packet: Packet, wanted: Steering, settings: PlanSettings) -> Arrival | None:
    if _is_query(packet, wanted):
        return Arrival.DNS
    if packet.protocol is Protocol.UDP:
        return None
    here = [one for one in wanted.virtual_interfaces if _named(packet.interface, (one.name,))]
    if any(_within(packet.destination, one.direct) for one in here):
        return None
    if packet.port in wanted.exclude_outbound_ports or _within(packet.destination, wanted.exclude_outbound_networks):
        return None
    return Arrival.OUTBOUND if _included(packet, wanted) else None


def _refused(packet: Packet, wanted: Steering, settings: PlanSettings) -> bool:
    if wanted.udp is UdpPolicy.ALLOW or packet.interface == "lo" or packet.port == 53:
        return False
    if packet.way is Way.SENT:
        spared = (
            is_proxys(packet, settings)
            or packet.uid in wanted.exclude_uids
            or packet.gid in wanted.exclude_gids
            or (wanted.include_gids is not None and packet.gid not in wanted.include_gids)
            or _by_owner_ports(packet, wanted)
            or packet.port in wanted.exclude_outbound_ports
            or _within(packet.destination, wanted.exclude_outbound_networks)
        )
    else:
        spared = packet.port in wanted.exclude_inbound_ports or _within(packet.source, wanted.exclude_inbound_networks)
    return not spared and (wanted.udp is UdpPolicy.DENY or packet.port == 443)


# ── Words of the wishes ────────────────────────────────────────────────────────────────────────────────────────────
def is_proxys(packet: Packet, settings: PlanSettings) -> bool:
    if settings.owners is None:
        return packet.mark & settings.mark_mask == settings.proxy_mark
    return packet.uid in settings.owners.uids or packet.gid in settings.owners.gids


def is_guests(packet: Packet, wanted: Steering) -> bool:
    return _named(packet.interface, [interface.name for interface in wanted.virtual_interfaces])


def _by_owner_ports(packet: Packet, wanted: Steering) -> bool:
    return any(
        packet.protocol in one.protocols and packet.port in one.ports and packet.uid in one.uids
        for one in wanted.exclude_owner_ports
    )


def _is_query(packet: Packet, wanted: Steering) -> bool:
    dns = wanted.dns
    return (
        dns is not None
        and packet.port == 53
        and (packet.protocol is Protocol.UDP or dns.tcp)
        and (dns.servers is None or packet.destination in dns.servers)
    )


def _included(packet: Packet, wanted: Steering) -> bool:
    included = wanted.include_outbound
    return included is None or packet.port in included.ports or _within(packet.destination, included.networks)


def _within(address: Address | None, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _named(interface: str, names: Iterable[str]) -> bool:
    return any(interface.startswith(name[:-1]) if name.endswith("+") else interface == name for name in names)
