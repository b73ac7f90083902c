"""Packet-path cases of what a pod's owner takes out of the mesh, or asks for alone."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

import pytest

from agent.plan import InvalidPlan
from agent.plan.build import plan_of
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import Included, Network, OwnerPorts, Steering
from proxy.api.constants import TUNNEL_PORT
from tests.netns.cases.conftest import Place, Steered
from tests.netns.cases.setups import Setup
from tests.netns.cases.wire import (
    APPLICATION_UID,
    V4,
    Family,
    accept,
    assert_direct,
    assert_talk,
    dial,
    dial_as,
    listen,
    own,
    peer,
)

SEVENTEEN_PORTS = Ranges.of(*range(4_001, 4_035, 2))
"""More than fit into one rule of iptables (multiport: 15), none beside another."""
NOWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def _to_peer_is_direct(steered: Steered, port: int, uid: int = APPLICATION_UID, gid: int = APPLICATION_UID) -> None:
    target = (steered.peer_address, port)
    with (
        listen(steered.peer.netns, *target) as server,
        dial_as(uid, steered.pod.netns, *target, gid=gid) as client,
        accept(server) as served,
    ):
        assert peer(served) == own(client)
        assert peer(served)[0] == steered.pod_address
        assert_talk(client, served)
    steered.assert_nothing_captured()


def _is_captured(
    steered: Steered, port: int, *, uid: int = APPLICATION_UID, gid: int = APPLICATION_UID, address: str = ""
) -> None:
    target = (address or steered.peer_address, port)
    with dial_as(uid, steered.pod.netns, *target, gid=gid) as client:
        steered.assert_captured(client, target)


@pytest.mark.parametrize(
    ("ports", "direct", "captured"),
    [
        pytest.param(Ranges.of(5432), (5432,), (5431, 5433), id="one"),
        pytest.param(Ranges.of((3000, 3005)), (3000, 3003, 3005), (2999, 3006), id="range"),
        pytest.param(
            SEVENTEEN_PORTS | Ranges.of((5000, 5009)), (4001, 4017, 4033, 5000, 5009), (4000, 4002, 4034, 5010), id="17"
        ),
    ],
)
def test_b10_excluded_outbound_ports_go_direct(
    place: Place, family: Family, ports: Ranges, direct: tuple[int, ...], captured: tuple[int, ...]
) -> None:
    with place.steered(Steering(exclude_outbound_ports=ports), family) as steered:
        for port in direct:
            _to_peer_is_direct(steered, port)
        for port in captured:
            _is_captured(steered, port)


def _network(family: Family, of: str) -> Network:
    return ip_network(f"{of}/{16 if family is V4 else 64}", strict=False)


def test_b12_excluded_networks_go_direct(place: Place, family: Family) -> None:
    steering = Steering(exclude_outbound_networks=(_network(family, family.of(place.peer)),))
    with place.steered(steering, family) as steered:
        _to_peer_is_direct(steered, 80)
        _is_captured(steered, 80, address=family.vip)


def test_b12_only_included_networks_are_captured_and_exclusion_wins(place: Place, family: Family) -> None:
    vips = _network(family, family.vip)
    with place.steered(Steering(include_outbound=Included(networks=(vips,))), family) as steered:
        _is_captured(steered, 80, address=family.vip)
        _to_peer_is_direct(steered, 80)
    wins = Steering(
        include_outbound=Included(networks=(ip_network(NOWHERE[family.version]),)),
        exclude_outbound_networks=(_network(family, family.of(place.peer)),),
    )
    with place.steered(wins, family) as steered:
        _is_captured(steered, 80, address=family.vip)
        _to_peer_is_direct(steered, 80)


def test_b12_excluding_every_address_captures_nothing(place: Place, family: Family) -> None:
    steering = Steering(exclude_outbound_networks=(ip_network(NOWHERE[family.version]),))
    with place.steered(steering, family) as steered:
        _to_peer_is_direct(steered, 80)


def test_b12_included_ports_are_captured_beside_the_included_networks(place: Place, family: Family) -> None:
    """As istio-iptables has it: -q adds to -i."""
    included = Included(ports=Ranges.of(81), networks=(_network(family, family.vip),))
    with place.steered(Steering(include_outbound=included), family) as steered:
        _is_captured(steered, 81)
        _is_captured(steered, 80, address=family.vip)
        _to_peer_is_direct(steered, 80)


def test_b13_ports_excluded_for_a_user_are_captured_for_others(place: Place, family: Family) -> None:
    excluded = OwnerPorts(frozenset({Protocol.TCP}), Ranges.of(53, (3000, 3005)), Ranges.of(2000))
    with place.steered(Steering(exclude_owner_ports=(excluded,)), family) as steered:
        _to_peer_is_direct(steered, 3001, uid=2000)
        _is_captured(steered, 3006, uid=2000)
        _is_captured(steered, 3001)


def test_b13_a_users_every_connection_goes_direct(place: Place, family: Family) -> None:
    steering = Steering(exclude_uids=Ranges.of(2000, (3000, 3009)))
    with place.steered(steering, family) as steered:
        for uid in (2000, 3000, 3009):
            _to_peer_is_direct(steered, 80, uid=uid)
        for uid in (1999, 2001, 3010):
            _is_captured(steered, 80, uid=uid)


def test_b14_only_the_included_groups_are_captured(place: Place, family: Family) -> None:
    with place.steered(Steering(include_gids=Ranges.of(2000, 2005)), family) as steered:
        for gid in (2000, 2005):
            _is_captured(steered, 80, gid=gid)
        for gid in (0, 2001):
            _to_peer_is_direct(steered, 80, gid=gid)


def test_b14_the_excluded_groups_go_direct(place: Place, family: Family) -> None:
    with place.steered(Steering(exclude_gids=Ranges.of(2000)), family) as steered:
        _to_peer_is_direct(steered, 80, gid=2000)
        _is_captured(steered, 80, gid=2001)


def test_b14_groups_both_included_and_excluded_are_refused(setup: Setup) -> None:
    with pytest.raises(InvalidPlan, match="gid"):
        plan_of(Steering(include_gids=Ranges.of(1), exclude_gids=Ranges.of(2)), setup.settings)


# ── Inbound ────────────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def _applications(steered: Steered, *ports: int) -> Iterator[None]:
    """An application on each port; what is direct is checked to reach it."""
    with ExitStack() as stack:
        for port in ports:
            target = (steered.pod_address, port)
            application = stack.enter_context(listen(steered.pod.netns, *target))
            assert_direct(steered.peer.netns, *target, application, source=steered.peer_address)
        yield
    steered.assert_nothing_captured()


def _is_captured_inbound(steered: Steered, *ports: int) -> None:
    for port in ports:
        target = (steered.pod_address, port)
        with listen(steered.pod.netns, *target), dial(steered.peer.netns, *target) as client:
            steered.assert_captured_inbound(client, target)


def test_b25_excluded_inbound_ports_reach_the_application(place: Place, family: Family) -> None:
    steering = Steering(exclude_inbound_ports=SEVENTEEN_PORTS | Ranges.of(9090, (9100, 9102)))
    with place.steered(steering, family) as steered:
        with _applications(steered, 9090, 9100, 9102, 4033):
            pass
        _is_captured_inbound(steered, 9089, 9091, 9099, 9103, 4034)


def test_b25_only_included_inbound_ports_are_captured(place: Place, family: Family) -> None:
    with place.steered(Steering(include_inbound_ports=Ranges.of(8080)), family) as steered:
        _is_captured_inbound(steered, 8080)
        with _applications(steered, 8079, 8081, TUNNEL_PORT):
            pass


def test_b25_b30_with_no_inbound_port_included_inbound_is_direct_and_outbound_captured(
    place: Place, family: Family
) -> None:
    with place.steered(Steering(include_inbound_ports=Ranges()), family) as steered:
        with _applications(steered, 8080):
            pass
        _is_captured(steered, 80)


def test_b26_excluded_sources_reach_the_application(place: Place, family: Family) -> None:
    source = family.of(place.peer)
    steering = Steering(exclude_inbound_networks=(ip_network(f"{source}/{ip_network(source).max_prefixlen}"),))
    other = "10.77.0.200" if family is V4 else "fd77::200"
    with place.steered(steering, family) as steered, _also_has(steered, other):
        with _applications(steered, 8080):
            pass
        target = (steered.pod_address, 8080)
        with dial(steered.peer.netns, *target, source=other) as client:
            steered.assert_captured_inbound(client, target)


@contextmanager
def _also_has(steered: Steered, address: str) -> Iterator[None]:
    given = [f"{address}/{24 if steered.family is V4 else 64}", "dev", "eth0"]
    flags = [] if steered.family is V4 else ["nodad"]
    steered.peer.run(["ip", "addr", "add", *given, *flags])
    yield
    steered.peer.run(["ip", "addr", "del", *given])
