"""Which connections a plan calls for, and what each is to show."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan import IPFamily, PlanSettings, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import DnsCapture, Included, OwnerPorts, Owners
from agent.verify.matrix import Cell, Identity, Place, Sender, application, cells, proxy

NODE = PlanSettings()
SIDECAR = PlanSettings(owners=Owners(Ranges.of(1337, 2000), Ranges.of(1337)))
PLACE = Place(
    IPFamily.IPV4,
    ip_address("10.0.0.5"),
    (ip_address("10.0.0.77"), ip_address("192.0.2.2")),
    "eth0",
    40000,
    ip_address("203.0.113.253"),
)
PLACE6 = Place(IPFamily.IPV6, ip_address("fd00::5"), (ip_address("fd00::77"), ip_address("2001:db8::2")), "eth0", 40000)
ROOT = Identity(0, 0)

Told = dict[tuple[str, str], str]


def made(wanted: Steering, settings: PlanSettings, place: Place = PLACE) -> tuple[Cell, ...]:
    return cells(plan_of(wanted, settings), wanted, settings, place, ROOT)


def told(wanted: Steering, settings: PlanSettings, place: Place = PLACE) -> Told:
    found: Told = {}
    for cell in made(wanted, settings, place):
        port = cell.expected.captured
        where = f"{cell.destination} {cell.port}{'/udp' if cell.protocol is Protocol.UDP else ''}"
        found[cell.sender.value, f"{cell.name}: {where}"] = "direct" if port is None else str(port)
    return found


def test_in_node_mode_the_proxy_is_known_by_its_mark_and_never_led() -> None:
    assert told(Steering(), NODE) == {
        ("application", "elsewhere: 10.0.0.77 15002"): "15001",
        ("application", "own address: 10.0.0.5 40000"): "direct",
        ("application", "loopback: 127.0.0.1 40000"): "direct",
        ("proxy", "elsewhere: 10.0.0.77 15002"): "direct",
        ("proxy", "own address: 10.0.0.5 40000"): "direct",
        ("proxy", "loopback: 127.0.0.1 40000"): "direct",
        ("application", "the outbound listener: 10.0.0.5 15001"): "direct",
        ("application", "the inbound listener: 10.0.0.5 15006"): "direct",
        ("application", "the tunnel listener: 10.0.0.5 15008"): "direct",
        ("outside", "the application: 10.0.0.5 15002"): "15006",
        ("outside", "the tunnel listener: 10.0.0.5 15008"): "direct",
    }
    marks = {(cell.sender, cell.mark, cell.uid) for cell in made(Steering(), NODE)}
    assert marks == {
        (Sender.APPLICATION, 0, 0),
        (Sender.PROXY, 0x539, 0),
        (Sender.OUTSIDE, 0, 0),
    }


def test_in_init_mode_the_proxy_meets_itself_on_its_own_address_and_reaches_the_application_from_its_own_source() -> (
    None
):
    found = told(Steering(), SIDECAR)
    assert found["proxy", "own address: 10.0.0.5 40000"] == "15006"
    assert found["proxy", "the application: 10.0.0.5 40000"] == "direct"
    assert found["proxy", "elsewhere: 10.0.0.77 15002"] == found["proxy", "loopback: 127.0.0.1 40000"] == "direct"
    (passthrough,) = [cell for cell in made(Steering(), SIDECAR, PLACE6) if cell.name == "the application"][:1]
    assert (passthrough.sender, str(passthrough.source), passthrough.uid) == (Sender.PROXY, "::6", 1337)


def test_a_proxy_without_a_source_of_its_own_is_not_tried_from_it() -> None:
    linkerds = PlanSettings(owners=Owners(Ranges.of(2102)), own_pod=False)
    found = told(Steering(), linkerds)
    assert ("proxy", "the application: 10.0.0.5 40000") not in found
    assert found["proxy", "own address: 10.0.0.5 40000"] == "direct"


def test_b7_every_user_and_group_of_the_proxy_is_tried() -> None:
    found = told(Steering(), SIDECAR)
    for how in ("as user 2000", "as group 1337"):
        assert found["proxy", f"elsewhere, {how}: 10.0.0.77 15002"] == "direct"
        assert found["proxy", f"own address, {how}: 10.0.0.5 40000"] == "15006"
    groups = PlanSettings(owners=Owners(gids=Ranges.of(7, 9)))
    tried = {(cell.uid, cell.gid) for cell in made(Steering(), groups) if cell.sender is Sender.PROXY}
    assert tried == {(0, 7), (0, 9)}


def test_identities_are_taken_from_whom_no_rule_names() -> None:
    wanted = Steering(
        exclude_uids=Ranges.of(0, (1000, 1001)),
        exclude_owner_ports=(OwnerPorts(frozenset(Protocol), Ranges.of(53), Ranges.of(65534)),),
        include_gids=Ranges.of((50, 60)),
    )
    who = application(wanted, SIDECAR, ROOT)
    assert (who.uid, who.gid) == (33, 50)  # 2000 is the proxy's second user
    assert proxy(SIDECAR, who) == Identity(1337, 50)
    assert proxy(PlanSettings(owners=Owners(gids=Ranges.of(7))), who) == Identity(33, 7)
    assert application(Steering(exclude_uids=Ranges.of((0, 4294967294))), NODE, ROOT).uid == 65534


def test_what_is_excluded_is_tried_and_expected_direct() -> None:
    wanted = Steering(
        exclude_outbound_ports=Ranges.of(5432, (3000, 3005)),
        exclude_outbound_networks=(ip_network("10.1.0.0/16"), ip_network("fd01::/64")),
        exclude_uids=Ranges.of(2500),
        exclude_gids=Ranges.of(77),
        exclude_owner_ports=(OwnerPorts(frozenset({Protocol.TCP}), Ranges.of((4000, 4010)), Ranges.of(2600)),),
        exclude_inbound_ports=Ranges.of(9090),
    )
    found = told(wanted, SIDECAR)
    for what in (
        "an excluded port: 10.0.0.77 3000",
        "an excluded port: 10.0.0.77 5432",
        "an excluded network: 10.1.255.254 15002",
        "elsewhere, as an excluded user: 10.0.0.77 15002",
        "elsewhere, as an excluded group: 10.0.0.77 15002",
        "a port excluded for a user: 10.0.0.77 4000",
    ):
        assert found["application", what] == "direct"
    assert found["outside", "an excluded port: 10.0.0.5 9090"] == "direct"
    assert found["application", "elsewhere: 10.0.0.77 15002"] == "15001"
    six = told(wanted, SIDECAR, PLACE6)
    assert six["application", "an excluded network: fd01::ffff:ffff:ffff:fffe 15002"] == "direct"


def test_with_inclusions_a_place_is_dialled_that_is_included_and_one_that_is_not() -> None:
    wanted = Steering(
        include_outbound=Included(networks=(ip_network("10.96.0.0/12"),)),
        include_inbound_ports=Ranges.of(8080),
        include_gids=Ranges.of(20),
    )
    found = told(wanted, NODE)
    assert found["application", "elsewhere: 10.111.255.254 15002"] == "15001"
    assert found["application", "what is not included: 10.0.0.77 15002"] == "direct"
    assert found["outside", "the application: 10.0.0.5 8080"] == "15006"
    assert found["outside", "a port not included: 10.0.0.5 15002"] == "direct"
    assert found["application", "elsewhere, as a group not included: 10.111.255.254 15002"] == "direct"
    ports = Steering(include_outbound=Included(Ranges.of((8000, 8100))))
    assert told(ports, NODE)["application", "elsewhere: 10.0.0.77 8000"] == "15001"


def test_an_excluded_pod_network_moves_elsewhere_away_from_it() -> None:
    wanted = Steering(exclude_outbound_networks=(ip_network("10.0.0.0/8"),))
    assert told(wanted, NODE)["application", "elsewhere: 192.0.2.2 15002"] == "15001"


def test_inbound_that_is_not_steered_is_expected_direct() -> None:
    wanted = Steering(include_inbound_ports=Ranges())
    found = told(wanted, SIDECAR)
    assert found["outside", "the application: 10.0.0.5 15002"] == "direct"
    assert found["proxy", "own address: 10.0.0.5 40000"] == "direct"


def test_dns_is_asked_over_udp_and_tcp_by_both() -> None:
    everywhere = told(Steering(dns=DnsCapture()), SIDECAR)
    assert everywhere["application", "a DNS server: 10.0.0.77 53/udp"] == "15053"
    assert everywhere["application", "a DNS server: 10.0.0.77 53"] == "15053"
    assert everywhere["proxy", "a DNS server: 10.0.0.77 53/udp"] == "direct"
    named = DnsCapture((ip_address("10.96.0.10"), ip_address("127.0.0.53"), ip_address("fd00::a")), tcp=False)
    found = told(Steering(dns=named), SIDECAR)
    assert found["application", "a DNS server: 10.96.0.10 53/udp"] == "15053"
    assert found["application", "a DNS server: 127.0.0.53 53/udp"] == "direct"
    assert not any("10.96.0.10 53" in what and "udp" not in what for _, what in found)


def test_one_family_steered_leaves_the_other_direct() -> None:
    wanted = Steering(families=(IPFamily.IPV4,))
    assert told(wanted, NODE)["application", "elsewhere: 10.0.0.77 15002"] == "15001"
    assert set(told(wanted, NODE, PLACE6).values()) == {"direct"}


def test_each_cell_names_the_rule_that_decides() -> None:
    rules = {cell.title: cell.expected.rule_id for cell in made(Steering(), NODE)}
    assert rules["application to elsewhere (ipv4)"] == "out-capture"
    assert rules["proxy to elsewhere (ipv4)"] == "out-capture-skip-proxy"
    assert rules["outside to the tunnel listener (ipv4)"] == "in-capture-skip-tunnel"


def test_the_same_connection_is_made_once() -> None:
    unique = {replace(cell, name="") for cell in made(Steering(exclude_outbound_ports=Ranges.of(15002)), NODE)}
    assert len(unique) == len(made(Steering(exclude_outbound_ports=Ranges.of(15002)), NODE))


RANGES = st.lists(st.integers(1, 65535), max_size=3).map(lambda ports: Ranges.of(*ports))


@given(
    st.builds(
        Steering,
        exclude_outbound_ports=RANGES,
        exclude_inbound_ports=RANGES,
        exclude_uids=RANGES,
        exclude_gids=RANGES,
    )
)
@pytest.mark.parametrize("settings", [NODE, SIDECAR])
def test_whatever_is_wished_there_is_a_matrix(settings: PlanSettings, wanted: Steering) -> None:
    from agent.plan import InvalidPlan

    try:
        found = made(wanted, settings)
    except InvalidPlan:
        return  # a port of the proxy, or its user
    assert len({cell.title for cell in found}) >= 8
