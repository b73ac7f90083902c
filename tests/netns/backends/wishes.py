"""Random wishes and random packets, drawn so that they often meet: the wishes' edges lie at the packets' ports."""

from ipaddress import ip_address, ip_network
from typing import Final

from hypothesis import strategies as st

from agent.plan.ranges import Ranges
from agent.plan.rules import IPFamily, Protocol
from agent.plan.steering import DnsCapture, Included, Network, OwnerPorts, Steering, UdpPolicy, VirtualInterface
from proxy.api.constants import PROXY_MARK, TUNNEL_PORT
from tests.netns.backends.packets import (
    FAR,
    GIDS,
    LOOPBACK,
    PASSTHROUGH,
    PEER,
    PEER_NET1,
    POD,
    POD_NET1,
    PORTS,
    UIDS,
    Packet,
    Way,
)

_FILL: Final = Ranges.of(*range(7, 47, 2))
"""Twenty that stand alone, before all others: more than one `multiport` takes, and what counts comes last."""
_EDGES: Final = sorted({edge for port in PORTS for edge in (port - 1, port, port + 1)})
_NETWORKS: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/24",
        "10.0.0.9/32",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.2.0.0/15",
        "10.9.0.0/24",
        "0.0.0.0/0",
        "fd00::9/128",
        "fd01::/32",
        "fd02::/15",
        "fd09::/64",
        "::/0",
    )
)
_INTERFACES: Final = ("net+", "net1", "eth0", "other0")


def _ranges(edges: list[int]) -> st.SearchStrategy[Ranges]:
    pairs = st.tuples(st.sampled_from(edges), st.sampled_from(edges)).map(lambda pair: (min(pair), max(pair)))
    return st.lists(st.sampled_from(edges) | pairs, max_size=3).map(lambda spans: Ranges.of(*spans))


_ports = st.tuples(_ranges(_EDGES), st.sampled_from([Ranges(), Ranges(), _FILL])).map(lambda both: both[0] | both[1])
_some_ports = _ports.filter(bool)
_uids = _ranges(sorted(UIDS))
_gids = _ranges(sorted(GIDS))
_networks = st.lists(st.sampled_from(_NETWORKS), max_size=3, unique=True).map(tuple)
_nothing = st.just(())


def _rarely(strategy: st.SearchStrategy[object], otherwise: object) -> st.SearchStrategy[object]:
    return st.one_of(st.just(otherwise), st.just(otherwise), strategy)


_owner_ports = st.builds(
    OwnerPorts,
    st.sampled_from([frozenset({one}) for one in Protocol] + [frozenset(Protocol)]),
    _some_ports,
    _uids.filter(bool),
)
_dns = st.builds(
    DnsCapture,
    servers=st.none() | st.sampled_from([(ip_address("10.0.0.9"), ip_address("fd01::2:3")), (ip_address("10.1.2.3"),)]),
    tcp=st.booleans(),
    over_loopback=st.booleans(),
)
_virtual = st.builds(VirtualInterface, st.sampled_from(["net1", "net+"]), _networks)

wishes: Final = st.builds(
    Steering,
    include_inbound_ports=_rarely(_ports, None),
    exclude_inbound_ports=_ports,
    exclude_inbound_networks=_rarely(_networks, ()),
    include_outbound=_rarely(st.builds(Included, _ports, _networks), None),
    exclude_outbound_ports=_ports,
    exclude_outbound_networks=_rarely(_networks, ()),
    exclude_uids=_rarely(_uids, Ranges()),
    exclude_gids=_rarely(_gids, Ranges()),
    include_gids=_rarely(_gids.filter(bool), None),
    exclude_owner_ports=_rarely(st.lists(_owner_ports, max_size=2).map(tuple), ()),
    exclude_interfaces=st.just(()) | st.sampled_from(_INTERFACES).map(lambda name: (name,)),
    virtual_interfaces=_rarely(st.lists(_virtual, min_size=1, max_size=1).map(tuple), ()),
    dns=_rarely(_dns, None),
    udp=st.sampled_from(UdpPolicy),
    drop_invalid=st.booleans(),
    families=st.sampled_from([tuple(IPFamily), tuple(IPFamily), (IPFamily.IPV4,), (IPFamily.IPV6,)]),
)


@st.composite
def _sent(draw: st.DrawFn) -> Packet:
    family = draw(st.sampled_from(IPFamily))
    interface, places = draw(
        st.sampled_from(
            [("eth0", (PEER, *FAR)), ("eth0", FAR), ("net1", (PEER_NET1,)), ("lo", (POD, POD_NET1, LOOPBACK))]
        )
    )
    destination = draw(st.sampled_from(places))[family]
    passing = interface == "lo" and not destination.is_loopback and draw(st.booleans())
    protocol = draw(st.sampled_from(Protocol))
    # What goes to the tunnel port over lo meets no listener of the application's.
    ports = (*PORTS, TUNNEL_PORT) if interface == "lo" and protocol is Protocol.TCP else PORTS
    return Packet(
        Way.SENT,
        protocol,
        family,
        destination,
        draw(st.sampled_from(ports)),
        interface,
        PASSTHROUGH[family] if passing else None,
        draw(st.sampled_from(UIDS)),
        draw(st.sampled_from(GIDS)),
        draw(st.sampled_from([0, 0, PROXY_MARK, 0x1000 | PROXY_MARK, 0x222])),
    )


@st.composite
def _arriving(draw: st.DrawFn) -> Packet:
    family = draw(st.sampled_from(IPFamily))
    behind_eth0 = [("eth0", address, POD) for address in (PEER, *FAR)]
    interface, source, own = draw(st.just(("net1", PEER_NET1, POD_NET1)) | st.sampled_from(behind_eth0))
    passes = interface == "net1" and draw(st.booleans())
    destination = (draw(st.sampled_from((PEER, *FAR))) if passes else own)[family]
    protocol = draw(st.sampled_from(Protocol))
    ports = (*PORTS, TUNNEL_PORT) if protocol is Protocol.TCP and not passes else PORTS
    way = Way.PASSING if passes else Way.RECEIVED
    return Packet(way, protocol, family, destination, draw(st.sampled_from(ports)), interface, source[family])


packets: Final = st.lists(_sent() | _sent() | _arriving(), min_size=12, max_size=24, unique=True)
