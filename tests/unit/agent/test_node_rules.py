"""agent.plan.node_rules and agent.pods.probe_path: whose probes get an address, and what a try of their way means."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan import Direction, InvalidPlan, PlanSettings, ProbeSettings, Steering, plan_of
from agent.plan.judging import Opened, judge
from agent.plan.node_rules import TAG_CHARACTERS, change_script, fit, install_script, tag_of, wanted_pods
from agent.plan.ranges import Ranges
from agent.plan.rules import Exempt, IPFamily, Stage
from agent.plan.steering import Owners
from agent.pods import IPAddress
from agent.pods.probe_path import Back, PathStatus, Tried, judged

PROBES = ProbeSettings()
NODE = PlanSettings(probes=PROBES)
A, B, C6 = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("fd00::1")


def rule_ids(wanted: Steering, settings: PlanSettings = NODE) -> list[str]:
    return [rule.rule_id for rule in plan_of(wanted, settings).all_rules if "probes" in rule.rule_id]


# ── The pod's rules ────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_pod_s_rules_differ_by_nothing_else() -> None:
    plan, without = plan_of(Steering(), NODE), plan_of(Steering(), PlanSettings())
    others = tuple(rule for rule in plan.rules if "probes" not in rule.rule_id)
    assert (others, plan.anchor, plan.drain) == (without.rules, without.anchor, without.drain)
    assert len(plan.rules) - len(others) == 6


@pytest.mark.parametrize("port", [8080, 15008, 15099])
def test_a_probe_goes_to_the_application_whatever_the_pod_wishes(port: int) -> None:
    wanted = Steering(include_inbound_ports=Ranges.of(8080))
    arriving = Opened(Direction.INBOUND, PROBES.source4, 0, A, port)
    assert judge(plan_of(wanted, NODE), arriving).steered is False
    neighbour = replace(arriving, source=B, destination_port=8080)
    assert judge(plan_of(wanted, NODE), neighbour).steered is True


def test_what_the_pod_opens_to_the_address_of_probes_is_captured_like_anything() -> None:
    """An answer opens nothing, so it needs no exemption; who opens something there is no probe's application."""
    sent = Opened(Direction.OUTBOUND, A, 0, PROBES.source4, 80)
    assert judge(plan_of(Steering(), NODE), sent).steered is True
    outbound = [
        rule for rule in plan_of(Steering(), NODE).rules if rule.rule_id.startswith("out-") and "probes" in rule.rule_id
    ]
    assert all(isinstance(rule, Exempt) and rule.stage is Stage.FORGOTTEN for rule in outbound)


def test_a_family_that_is_not_steered_needs_no_rule_and_what_is_not_captured_needs_none_either() -> None:
    assert {rule_id[-1] for rule_id in rule_ids(Steering(families=(IPFamily.IPV6,)))} == {"6"}
    direct = rule_ids(Steering(include_inbound_ports=Ranges()))
    assert [rule_id for rule_id in direct if rule_id.startswith("in-capture")] == []


def test_a_sidecar_and_an_address_that_is_nobody_s_are_refused() -> None:
    with pytest.raises(InvalidPlan, match="node mode"):
        PlanSettings(probes=PROBES, owners=Owners(Ranges.of(1337)))
    for address in ("127.0.0.1", "0.0.0.0", "224.0.0.1"):
        with pytest.raises(InvalidPlan, match="nobody's source"):
            ProbeSettings(source4=ip_address(address))


# ── The node's sets ────────────────────────────────────────────────────────────────────────────────────────────────
def test_b52_a_late_word_of_a_pod_that_is_gone_takes_nothing_from_who_has_its_address_now() -> None:
    held = {A: "old"}
    now = wanted_pods(held, {A: "new"}, ())
    assert now == {A: "new"}
    assert wanted_pods(now, {A: "new"}, ()) == now, "`old` leaves, and is not named any more"


def test_what_is_there_of_a_pod_that_is_not_decided_upon_yet_stays_and_all_else_goes() -> None:
    held = {A: "settling", B: "nobody's", C6: "settling"}
    assert wanted_pods(held, {}, {"settling"}) == {A: "settling", C6: "settling"}
    assert wanted_pods(held, {A: "another"}, {"settling"}) == {A: "another", C6: "settling"}


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "0.0.0.0", "224.0.0.5", "ff02::1", "169.254.1.1", "fe80::1"])
def test_an_address_that_no_pod_is_reached_at_gets_no_entry(text: str) -> None:
    assert not fit(ip_address(text))
    assert wanted_pods({}, {ip_address(text): "u-1"}, ()) == {}


def test_equal_sets_are_no_transaction_and_a_new_owner_is_one() -> None:
    assert change_script({A: "u-1", C6: "u-1"}, {C6: "u-1", A: "u-1"}) == ""
    assert change_script({A: "u-1"}, {A: "u-2", C6: "u-2"}) == (
        "delete element inet headgate-node pods4 { 10.0.0.1 }\n"
        'add element inet headgate-node pods4 { 10.0.0.1 comment "u-2" }\n'
        'add element inet headgate-node pods6 { fd00::1 comment "u-2" }\n'
    )


addresses = st.one_of(
    st.ip_addresses(v=4, network=str(ip_network("10.0.0.0/28"))), st.ip_addresses(v=6, network="fd00::/124")
)
pods = st.dictionaries(addresses, st.sampled_from(["u-1", "u-2", "u-3"]))


@given(pods, pods)
def test_a_change_leads_from_any_content_to_any_other(held: dict[IPAddress, str], wanted: dict[IPAddress, str]) -> None:
    now = {str(address): tag for address, tag in held.items()}
    for line in change_script(held, wanted).splitlines():
        verb, elements = line.split()[0], line.partition("{ ")[2].removesuffix(" }").split(", ")
        for element in elements:
            address, _, comment = element.partition(" comment ")
            if verb == "delete":
                del now[address]
            else:
                assert address not in now
                now[address] = comment.strip('"')
    assert now == {str(address): tag for address, tag in wanted.items()}


def test_a_long_uid_is_told_by_its_beginning() -> None:
    assert len(tag_of("u" * 128)) == TAG_CHARACTERS
    assert f'"{"u" * TAG_CHARACTERS}"' in install_script(PROBES, {A: tag_of("u" * 128)})


# ── What a try means ───────────────────────────────────────────────────────────────────────────────────────────────
TRIED = Tried(A, PROBES.source4, answered=True, arrived=True)


@pytest.mark.parametrize(
    ("tried", "status", "words"),
    [
        (TRIED, PathStatus.OPEN, ""),
        (replace(TRIED, arrived=None), PathStatus.OPEN, ""),
        (replace(TRIED, arrived=False), PathStatus.SHUT, "refused on the way to 10.0.0.1"),
        (replace(TRIED, answered=False, arrived=False, others_answered=True), PathStatus.SHUT, "dropped on the way"),
        (replace(TRIED, answered=False, arrived=None, others_answered=True), PathStatus.SHUT, "dropped on the way"),
        (replace(TRIED, answered=False, arrived=False), PathStatus.UNKNOWN, "nothing that the node sends"),
        (replace(TRIED, answered=False), PathStatus.ONE_WAY, "get lost on the way back"),
        (replace(TRIED, answered=False, back=Back.NO_ROUTE), PathStatus.ONE_WAY, "no route back to 169.254.7.127"),
        (replace(TRIED, answered=False, back=Back.FILTERED), PathStatus.ONE_WAY, "rp_filter"),
    ],
)
def test_who_answers_and_who_has_seen_it_tell_where_a_probe_ends(tried: Tried, status: PathStatus, words: str) -> None:
    path = judged(tried)
    assert (path.address, path.status) == (A, status)
    assert words in path.reason
    assert bool(path.remedy) is path.fails
