"""agent.plan: what each wish adds to the rules, and where. Which packets that takes is proved in tests/netns/cases."""

from dataclasses import fields
from ipaddress import ip_address, ip_network

import pytest

from agent.plan import Capture, Direction, DropForgotten, Exempt, InvalidPlan, PlanSettings, RedirectPlan, Steering
from agent.plan.build import drain_rule_ids, plan_of
from agent.plan.forgotten import DROP_RULE_IDS
from agent.plan.ranges import Ranges
from agent.plan.rules import (
    AllOf,
    AtPorts,
    InNetworks,
    Inspect,
    IPFamily,
    NotOwnedBy,
    OfProtocol,
    OnInterfaces,
    OverLoopback,
    OwnedBy,
    Owner,
    Protocol,
    Refuse,
    Rule,
    Side,
    SplitZone,
    Stage,
)
from agent.plan.steering import DnsCapture, Included, OwnerPorts, Owners, UdpPolicy, VirtualInterface
from tests.golden.agent.steerings import (
    DEFAULT,
    EVERYTHING,
    NODE,
    SIDECAR,
    SIDECAR_OF_MANY,
    TRANSPARENT_SIDECAR,
)

MODES = {
    "node": NODE,
    "sidecar": SIDECAR,
    "sidecar-of-many": SIDECAR_OF_MANY,
    "transparent": TRANSPARENT_SIDECAR,
}
in_each_mode = pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
PROXYS = {"proxy", "proxy-users", "proxy-groups"}


def ids(plan: RedirectPlan, stage: str = "") -> list[str]:
    """Of the rules of one stage and direction, such as `out-capture`, in order; of all rules without one."""
    return [rule.rule_id for rule in plan.all_rules if _stage_of(rule).startswith(stage)]


def _stage_of(rule: Rule) -> str:
    way = "in" if rule.direction is Direction.INBOUND else "out"
    match rule:
        case Exempt(stage=stage):
            return f"{way}-{stage.value}"
        case Capture():
            return f"{way}-capture"
        case DropForgotten():
            return f"{way}-forgotten"
        case Refuse():
            return f"{way}-datagram"
        case _:
            return ""


def rule_of(plan: RedirectPlan, rule_id: str) -> Rule:
    return next(rule for rule in plan.all_rules if rule.rule_id == rule_id)


def place(plan: RedirectPlan, rule_id: str) -> int:
    return [rule.rule_id for rule in plan.all_rules].index(rule_id)


# ── Every plan ─────────────────────────────────────────────────────────────────────────────────────────────────────
@in_each_mode
@pytest.mark.parametrize("wanted", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_every_rule_of_every_plan_has_an_id_of_its_own_and_a_meaning(settings: PlanSettings, wanted: Steering) -> None:
    rules = plan_of(wanted, settings).all_rules
    assert len({rule.rule_id for rule in rules}) == len(rules)
    assert all(rule.meaning for rule in rules)


@in_each_mode
def test_equal_wishes_are_one_plan(settings: PlanSettings) -> None:
    assert plan_of(Steering(), settings) is plan_of(Steering(), settings)


@in_each_mode
@pytest.mark.parametrize("wanted", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_the_drain_form_has_the_same_rules_whatever_is_wanted(settings: PlanSettings, wanted: Steering) -> None:
    plan = plan_of(wanted, settings)
    assert {rule.rule_id for rule in plan.drain} == drain_rule_ids(settings)
    assert not any(isinstance(rule, Capture) for rule in plan.drain)
    assert set(plan.drain) <= set(plan.rules)


@in_each_mode
@pytest.mark.parametrize("wanted", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_every_rule_that_drops_is_known_to_those_who_read_its_counter(settings: PlanSettings, wanted: Steering) -> None:
    drops = {rule.rule_id for rule in plan_of(wanted, settings).rules if isinstance(rule, DropForgotten)}
    assert drops <= {rule_id for known in DROP_RULE_IDS.values() for rule_id in known}


def test_a_wish_for_all_that_there_is_names_every_field() -> None:
    left = {field.name for field in fields(Steering) if getattr(EVERYTHING, field.name) == getattr(DEFAULT, field.name)}
    assert left == {"exclude_gids", "families"}, "the golden files are to show every wish"


@in_each_mode
def test_the_order_and_the_overlap_of_networks_and_interfaces_does_not_matter(settings: PlanSettings) -> None:
    networks = tuple(ip_network(text) for text in ("10.1.0.0/16", "10.0.0.0/16", "10.0.7.0/24", "fd00::/9", "fd80::/9"))
    once = plan_of(Steering(exclude_outbound_networks=networks, exclude_interfaces=("net2", "net1")), settings)
    again = plan_of(
        Steering(exclude_outbound_networks=networks[::-1], exclude_interfaces=("net1", "net2", "net1")), settings
    )
    assert once == again
    joined = rule_of(once, "out-capture-skip-networks4")
    assert isinstance(joined, Exempt) and joined.match == InNetworks((ip_network("10.0.0.0/15"),), Side.DESTINATION)


# ── Whose packets ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_b7_all_users_of_the_proxy_are_one_set_and_all_groups_another() -> None:
    plan = plan_of(DEFAULT, SIDECAR_OF_MANY)
    users, groups = OwnedBy(Owner.USER, Ranges.of(1337, (2000, 2002))), OwnedBy(Owner.GROUP, Ranges.of(1337))
    for kind, owner in (("users", users), ("groups", groups)):
        own = rule_of(plan, f"out-own-pod-{kind}")
        assert isinstance(own, Capture) and own.match == AllOf((OverLoopback(), owner)) and own.port == 15006
        assert place(plan, f"out-own-pod-{kind}") < place(plan, "out-capture-skip-lo")
        exempted = rule_of(plan, f"out-capture-skip-proxy-{kind}")
        assert isinstance(exempted, Exempt) and exempted.match == owner


def test_b24_a_sidecar_calls_its_application_from_an_address_that_ipv6_must_be_given() -> None:
    plan = plan_of(DEFAULT, SIDECAR)
    assert ids(plan, "out-capture")[:2] == ["out-capture-skip-passthrough4", "out-capture-skip-passthrough6"]
    assert plan.loopback_addresses == (ip_address("::6"),)
    assert plan.return_path.families == ()
    assert not any(rule.rule_id.startswith("return-mark") for rule in plan.anchor)


def test_a_transparent_sidecar_has_the_node_proxys_way_back_and_its_marked_calls_are_not_led_to_it_again() -> None:
    plan = plan_of(DEFAULT, TRANSPARENT_SIDECAR)
    assert plan.return_path == plan_of(DEFAULT, NODE).return_path and plan.loopback_addresses == ()
    assert [rule.rule_id for rule in plan.anchor] == [
        "zone-in",
        "zone-out",
        "zone-out-users",
        "return-mark-keep",
        "return-mark-restore",
    ]
    assert ids(plan, "out-capture")[0] == "out-capture-skip-own-application"


@in_each_mode
def test_b33_the_proxys_packets_are_tracked_in_a_zone_of_their_own(settings: PlanSettings) -> None:
    zones = [rule for rule in plan_of(DEFAULT, settings).anchor if isinstance(rule, SplitZone)]
    assert {rule.zone for rule in zones} == {1}
    ways = {rule.direction for rule in zones}
    assert ways == (set(Direction) if settings.transparent else {Direction.OUTBOUND})
    of_owners = [rule.match for rule in zones if isinstance(rule.match, AllOf)]
    assert all(OfProtocol(Protocol.UDP) in match.matches for match in of_owners), "a closed TCP socket has no owner"
    assert bool(of_owners) is (settings.owners is not None)


def test_in_init_mode_nothing_arriving_is_judged_by_its_owner_unless_invalid_packets_are_to_go() -> None:
    assert ids(plan_of(DEFAULT, SIDECAR), "in-forgotten") == []
    plan = plan_of(Steering(drop_invalid=True), SIDECAR)
    inspect = rule_of(plan, "in-inspect")
    assert isinstance(inspect, Inspect) and inspect.invalid_only
    order = [rule.rule_id for rule in plan.rules]
    assert order.index("in-grandfathered4") < order.index("in-forgotten")


def test_b39_in_node_mode_what_is_invalid_is_dropped_anyway() -> None:
    assert plan_of(Steering(drop_invalid=True), NODE) == plan_of(DEFAULT, NODE)


# ── Exclusions ─────────────────────────────────────────────────────────────────────────────────────────────────────
@in_each_mode
def test_b15_an_excluded_interface_comes_first_in_every_stage(settings: PlanSettings) -> None:
    plan = plan_of(EVERYTHING, settings)
    match = OnInterfaces(("multus+", "net1"))
    for stage in ("in-capture", "out-capture", "in-datagram", "out-datagram"):
        first = rule_of(plan, ids(plan, stage)[0])
        assert first == Exempt(f"{stage}-skip-interfaces", first.meaning, first.direction, first.stage, match)  # type: ignore[union-attr]
    assert ids(plan, "out-forgotten")[1] == "out-forgotten-skip-interfaces", "an opening is known to pass"
    skipped = [rule.rule_id for rule in plan.anchor if isinstance(rule, Exempt)]
    inbound = marks = settings.transparent
    assert skipped == (
        ["in-track-skip-interfaces"] * inbound + ["out-track-skip-interfaces"] + ["out-mark-skip-interfaces"] * marks
    )
    assert ids(plan)[0] == skipped[0]


@in_each_mode
def test_b10_any_number_of_ports_is_one_rule(settings: PlanSettings) -> None:
    ports = Ranges.of(*range(1000, 2000, 2), (3000, 3005))
    plan = plan_of(Steering(exclude_outbound_ports=ports), settings)
    rule = rule_of(plan, "out-capture-skip-ports")
    assert isinstance(rule, Exempt) and rule.match == AtPorts(ports, Side.DESTINATION)
    assert len(plan.all_rules) == len(plan_of(DEFAULT, settings).all_rules) + 2 + (settings.owners is None)


@in_each_mode
def test_what_is_excluded_is_spared_where_conntrack_has_forgotten_it_in_both_directions(settings: PlanSettings) -> None:
    wanted = Steering(
        exclude_outbound_ports=Ranges.of(5432),
        exclude_inbound_ports=Ranges.of(9090),
        exclude_outbound_networks=(ip_network("10.1.0.0/16"),),
        exclude_inbound_networks=(ip_network("10.2.0.0/16"),),
    )
    plan = plan_of(wanted, settings)
    out = {rule.match for rule in plan.rules if isinstance(rule, Exempt) and _stage_of(rule) == "out-forgotten"}
    assert {AtPorts(Ranges.of(5432), Side.DESTINATION), AtPorts(Ranges.of(9090), Side.SOURCE)} <= out
    assert {InNetworks((ip_network(n),), Side.DESTINATION) for n in ("10.1.0.0/16", "10.2.0.0/16")} <= out
    if settings.owners is None:
        into = {rule.match for rule in plan.rules if isinstance(rule, Exempt) and _stage_of(rule) == "in-forgotten"}
        assert {AtPorts(Ranges.of(9090), Side.DESTINATION), AtPorts(Ranges.of(5432), Side.SOURCE)} <= into
        assert {InNetworks((ip_network(n),), Side.SOURCE) for n in ("10.1.0.0/16", "10.2.0.0/16")} <= into


def test_b13_what_these_users_send_to_these_ports() -> None:
    pair = OwnerPorts(frozenset({Protocol.TCP}), Ranges.of(53, (3000, 3005)), Ranges.of(2000))
    rule = rule_of(plan_of(Steering(exclude_owner_ports=(pair,)), NODE), "out-capture-skip-user-ports1")
    assert isinstance(rule, Exempt)
    assert rule.match == AllOf((OwnedBy(Owner.USER, pair.uids), AtPorts(pair.ports, Side.DESTINATION)))


def test_b14_groups_are_included_or_excluded() -> None:
    only = rule_of(plan_of(Steering(include_gids=Ranges.of(10)), NODE), "out-capture-skip-other-groups")
    assert isinstance(only, Exempt) and only.match == NotOwnedBy(Owner.GROUP, Ranges.of(10))
    but = rule_of(plan_of(Steering(exclude_gids=Ranges.of(10)), NODE), "out-capture-skip-excluded-groups")
    assert isinstance(but, Exempt) and but.match == OwnedBy(Owner.GROUP, Ranges.of(10))


# ── Inclusions ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_b12_only_included_ports_and_networks_are_steered_and_only_those_are_dropped_when_forgotten() -> None:
    included = Included(Ranges.of(80), (ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
    plan = plan_of(Steering(include_outbound=included), NODE)
    names = ["ports", "networks4", "networks6"]
    assert ids(plan, "out-capture")[-3:] == [f"out-capture-{name}" for name in names]
    assert ids(plan, "out-forgotten")[-3:] == [f"out-forgotten-{name}" for name in names]
    for name in names:
        capture, drop = rule_of(plan, f"out-capture-{name}"), rule_of(plan, f"out-forgotten-{name}")
        assert isinstance(capture, Capture) and isinstance(drop, DropForgotten) and capture.match == drop.match


@in_each_mode
def test_b30_inbound_that_is_not_steered_has_no_rule_and_the_anchor_stays(settings: PlanSettings) -> None:
    plan = plan_of(Steering(include_inbound_ports=Ranges()), settings)
    assert ids(plan, "in-capture") == ids(plan, "in-forgotten") == []
    assert not any(rule_id.startswith("out-own-pod") for rule_id in ids(plan))
    assert plan.anchor == plan_of(DEFAULT, settings).anchor
    assert "out-capture" in ids(plan)


@in_each_mode
def test_nothing_outbound(settings: PlanSettings) -> None:
    plan = plan_of(Steering(include_outbound=Included()), settings)
    assert not any(isinstance(rule, Capture) and rule.port == 15001 for rule in plan.rules)
    drops = [rule.rule_id for rule in plan.rules if isinstance(rule, DropForgotten)]
    assert [rule_id for rule_id in drops if rule_id.startswith("out") and "proxy" not in rule_id] == []


@in_each_mode
@pytest.mark.parametrize("family", list(IPFamily), ids=lambda family: family.value)
def test_one_family_alone(settings: PlanSettings, family: IPFamily) -> None:
    plan = plan_of(Steering(families=(family,)), settings)
    other = next(one for one in IPFamily if one is not family)
    for stage in ("in-capture", "out-capture", "out-forgotten"):
        assert f"{stage}-skip-{other.value}" in ids(plan, stage)
    assert plan.return_path.families == ((family,) if settings.transparent else ())
    assert plan.loopback_addresses == (() if settings.transparent or family is IPFamily.IPV4 else (ip_address("::6"),))


# ── DNS ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@in_each_mode
def test_b11_b35_queries_are_taken_behind_lo_the_proxy_and_excluded_ports_and_before_excluded_networks(
    settings: PlanSettings,
) -> None:
    wanted = Steering(
        dns=DnsCapture(), exclude_outbound_ports=Ranges.of(53), exclude_outbound_networks=(ip_network("10.0.0.0/8"),)
    )
    plan = plan_of(wanted, settings)
    excluded = rule_of(plan, "out-capture-skip-ports")
    assert isinstance(excluded, Exempt)
    assert excluded.match == AtPorts(Ranges.of(53), Side.DESTINATION, frozenset(Protocol)), "TCP and UDP"
    order = ids(plan, "out-capture")
    own = [name for name in order if name.removeprefix("out-capture-skip-") in PROXYS]
    assert own
    for before in ("out-capture-skip-lo", *own, "out-capture-skip-ports"):
        assert order.index(before) < order.index("out-dns-udp") < order.index("out-dns-tcp")
    assert order.index("out-dns-tcp") < order.index("out-capture-skip-networks4")


@in_each_mode
def test_b35_queries_to_a_resolver_on_lo_are_taken_before_lo_is_exempt_and_never_the_proxys(
    settings: PlanSettings,
) -> None:
    order = ids(plan_of(Steering(dns=DnsCapture(over_loopback=True)), settings), "out-capture")
    own = [name for name in order if name.removeprefix("out-capture-skip-") in PROXYS]
    assert all(order.index(name) < order.index("out-dns-udp") for name in own)
    assert order.index("out-dns-tcp") < order.index("out-capture-skip-lo")


def test_b34_only_named_servers_and_only_udp() -> None:
    servers = tuple(ip_address(text) for text in ("10.96.0.10", "10.96.0.12", "fd00::a"))
    plan = plan_of(Steering(dns=DnsCapture(servers, tcp=False)), NODE)
    assert [name for name in ids(plan) if "dns" in name] == ["out-dns-udp4", "out-dns-udp6"]
    rule = rule_of(plan, "out-dns-udp4")
    assert isinstance(rule, Capture) and rule.port == 15053 and rule.protocol is Protocol.UDP
    asked = InNetworks((ip_network("10.96.0.10/32"), ip_network("10.96.0.12/32")), Side.DESTINATION)
    assert rule.match == AllOf((asked, AtPorts(Ranges.of(53), Side.DESTINATION, frozenset({Protocol.UDP}))))


def test_the_dns_listeners_answers_over_tcp_are_watched_like_the_proxys_others() -> None:
    rule = rule_of(plan_of(Steering(dns=DnsCapture()), SIDECAR), "out-forgotten-proxy")
    assert isinstance(rule, DropForgotten)
    assert rule.match == AtPorts(Ranges.of(15001, 15006, 15053), Side.SOURCE), "a closed socket has no owner"


# ── Guests ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@in_each_mode
def test_b16_what_a_guest_sends_is_outbound_except_to_its_own_networks(settings: PlanSettings) -> None:
    guest = VirtualInterface("br+", (ip_network("172.17.0.0/16"),))
    plan = plan_of(Steering(virtual_interfaces=(guest,), dns=DnsCapture()), settings)
    order = ids(plan, "in-capture")
    wanted = ["in-virtual-dns-udp", "in-capture-skip-virtual1-direct4", "in-virtual", "in-capture-skip-virtual"]
    assert sorted(wanted, key=order.index) == wanted
    assert order.index("in-capture-skip-virtual") < order.index("in-capture")
    captured = rule_of(plan, "in-virtual")
    assert isinstance(captured, Capture) and captured.port == 15001 and captured.match == OnInterfaces(("br+",))


# ── UDP ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@in_each_mode
@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize(
    ("policy", "ends"),
    [
        (UdpPolicy.ALLOW, ["passed"]),
        (UdpPolicy.DENY_443, ["refuse-443", "passed"]),
        (UdpPolicy.DENY, ["refuse"]),
    ],
)
def test_udp_is_counted_or_refused(settings: PlanSettings, way: str, policy: UdpPolicy, ends: list[str]) -> None:
    rules = ids(plan_of(Steering(udp=policy), settings), f"{way}-datagram")
    assert rules[-len(ends) :] == [f"{way}-datagram-{end}" for end in ends]
    assert (f"{way}-datagram-skip-dns" in rules) is (policy is not UdpPolicy.ALLOW)


# ── Settings ───────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"owners": Owners()}, "owners"),
        ({"dns_port": 15001}, "outbound_port, dns_port"),
        ({"dns_port": 0}, "dns_port"),
        ({"loopback4": ip_network("10.0.0.0/8")}, "loopback4"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        PlanSettings(**settings)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_what_of_loopback_is_exempt_by_name_can_be_chosen() -> None:
    plan = plan_of(DEFAULT, PlanSettings(loopback4=ip_network("127.0.0.1/32")))
    rule = rule_of(plan, "out-capture-skip-loopback4")
    assert isinstance(rule, Exempt) and rule.match == InNetworks((ip_network("127.0.0.1/32"),), Side.DESTINATION)
    assert rule.stage is Stage.CAPTURE
