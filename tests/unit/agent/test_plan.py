"""agent.plan: the decision itself. What the kernel makes of it is proved in tests/netns."""

from collections import Counter
from dataclasses import replace
from ipaddress import ip_network

import pytest

from agent.plan import (
    Capture,
    Direction,
    DropForgotten,
    Exempt,
    InvalidPlan,
    PassGrandfathered,
    PlanSettings,
    Steering,
    build_plan,
    diff_plan,
    plan_of,
)
from agent.plan.ranges import Ranges
from agent.plan.rules import AllOf, AtPorts, InNetworks, Marked, OverLoopback, Side, Stage
from agent.pods import PodRef

POD = PodRef("u-1", "default", "web")
PLAN = build_plan(POD, PlanSettings())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"outbound_port": 0}, "outbound_port"),
        ({"inbound_port": 65536}, "inbound_port"),
        ({"tunnel_port": -1}, "tunnel_port"),
        ({"outbound_port": 15006}, "outbound_port, inbound_port"),
        ({"mark_mask": 0}, "mark_mask"),
        ({"mark_mask": 1 << 32}, "mark_mask"),
        ({"proxy_mark": 0x1539}, "proxy_mark"),
        ({"return_mark": 0}, "return_mark"),
        ({"return_mark": 0x539}, "return_mark"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(changes: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        PlanSettings(**changes)
    assert refused.value.field == field


def test_what_the_pods_owner_excludes_is_excluded() -> None:
    excluding = replace(POD, annotations=(("headgate.io/exclude-outbound-ports", "5432"),))
    assert build_plan(excluding, PlanSettings()) == plan_of(
        Steering(exclude_outbound_ports=Ranges.of(5432)), PlanSettings()
    )


def test_a_pod_without_wishes_gets_what_the_settings_say() -> None:
    wanted = Steering(exclude_uids=Ranges.of(7))
    assert build_plan(POD, PlanSettings(defaults=wanted)) == plan_of(wanted, PlanSettings(defaults=wanted))


@pytest.mark.parametrize("key", ["headgate.io/exclude-outbound-ports", "headgate.io/exclude-inbound-ports"])
def test_an_exclusion_that_cannot_be_read_refuses_the_pod_instead_of_steering_what_it_excludes(key: str) -> None:
    with pytest.raises(InvalidPlan, match=f"annotation {key}: .*70000"):
        build_plan(replace(POD, annotations=((key, "70000"),)), PlanSettings())


def test_other_annotations_change_nothing() -> None:
    assert build_plan(replace(POD, annotations=(("headgate.io/opaque-ports", "5432"),)), PlanSettings()) == PLAN


def test_nothing_in_a_plan_names_the_pod_so_that_equal_plans_are_shared() -> None:
    assert build_plan(PodRef("u-2", "shop", "cart"), PlanSettings()) == PLAN


def test_every_rule_has_an_id_of_its_own_and_a_meaning() -> None:
    ids = Counter(rule.rule_id for rule in PLAN.all_rules)
    assert [rule_id for rule_id, times in ids.items() if times > 1] == []
    assert all(PLAN.meaning_of(rule_id) for rule_id in ids)
    assert PLAN.meaning_of("no-such-rule") is None


def test_the_drain_form_captures_nothing_and_is_part_of_the_plan() -> None:
    assert not any(isinstance(rule, Capture | PassGrandfathered) for rule in PLAN.drain)
    assert set(PLAN.drain) <= set(PLAN.rules)


@pytest.mark.parametrize("direction", list(Direction))
def test_exemptions_come_before_capture_and_before_the_drop(direction: Direction) -> None:
    rules = [rule for rule in PLAN.rules if rule.direction is direction]
    for last, stage in ((Capture, Stage.CAPTURE), (DropForgotten, Stage.FORGOTTEN)):
        end = max(i for i, rule in enumerate(rules) if isinstance(rule, last))
        exempt = [i for i, rule in enumerate(rules) if isinstance(rule, Exempt) and rule.stage is stage]
        assert exempt and max(exempt) < end


@pytest.mark.parametrize("direction", list(Direction))
def test_never_steered_are_loopback_link_local_the_pod_itself_and_the_proxy(direction: Direction) -> None:
    matches = {
        rule.match
        for rule in PLAN.rules
        if isinstance(rule, Exempt) and rule.direction is direction and rule.stage is Stage.CAPTURE
    }
    networks = {str(match.networks[0]) for match in matches if isinstance(match, InNetworks)}
    assert networks == {"127.0.0.0/8", "::1/128", "fe80::/10"}
    assert {
        match.side.value for match in matches if isinstance(match, InNetworks) and match.networks == (LINK_LOCAL,)
    } == {
        "source",
        "destination",
    }
    assert OverLoopback() in matches
    assert Marked(0x539, 0xFFF) in matches
    assert (AtPorts(Ranges.of(15008), Side.DESTINATION) in matches) is (direction is Direction.INBOUND)


LINK_LOCAL = ip_network("fe80::/10")


def test_what_the_proxy_sends_on_a_forgotten_steered_connection_is_dropped_before_its_own_are_exempted() -> None:
    ids = [rule.rule_id for rule in PLAN.rules]
    assert ids.index("out-forgotten-proxy") < ids.index("out-forgotten-skip-proxy") < ids.index("out-forgotten")
    rule = next(rule for rule in PLAN.rules if rule.rule_id == "out-forgotten-proxy")
    assert isinstance(rule, DropForgotten) and rule.match == AllOf(
        (Marked(0x539, 0xFFF), AtPorts(Ranges.of(15001, 15006), Side.SOURCE))
    )


def test_ports_of_the_settings_reach_the_rules() -> None:
    plan = build_plan(POD, PlanSettings(outbound_port=4140, inbound_port=4143))
    assert {rule.port for rule in plan.rules if isinstance(rule, Capture)} == {4140, 4143}
    assert diff_plan(PLAN, plan).changed == ("out-forgotten-proxy", "in-capture", "out-capture")


def test_equal_plans_differ_in_nothing() -> None:
    assert diff_plan(PLAN, build_plan(POD, PlanSettings())).is_empty


def test_a_rule_more_or_less_is_told_by_id() -> None:
    shorter = replace(PLAN, rules=PLAN.rules[:-1])
    assert diff_plan(PLAN, shorter).removed == ("out-capture",)
    assert diff_plan(shorter, PLAN).added == ("out-capture",)


def test_two_rules_that_swapped_places_are_a_difference() -> None:
    swapped = replace(PLAN, rules=(*PLAN.rules[:-2], PLAN.rules[-1], PLAN.rules[-2]))
    change = diff_plan(PLAN, swapped)
    assert change.reordered and not (change.added or change.removed or change.changed) and not change.is_empty


def test_another_return_path_is_a_difference() -> None:
    assert diff_plan(PLAN, replace(PLAN, return_path=replace(PLAN.return_path, table=101))).return_path
