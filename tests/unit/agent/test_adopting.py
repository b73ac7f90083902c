"""An agent that begins finds what the one before it left in force: taken over, or taken out (B41, B51)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.plan import PlanSettings, build_plan
from agent.reconcile import Seen
from agent.reconcile.life import (
    Acked,
    Announce,
    CountSteered,
    Drain,
    Drained,
    Due,
    Held,
    Inspect,
    Inspected,
    Inspection,
    Install,
    Installed,
    Left,
    Nacked,
    NetnsLost,
    NetnsUnfit,
    PortConflict,
    Prove,
    ProxyAbsent,
    Refused,
    Remove,
    Removed,
    SteeredLeft,
    Timer,
    Wake,
    Withdraw,
    Withdrawn,
)
from tests.unit.agent.lives import (
    ADOPTED,
    DISABLED,
    DRAINING,
    FOUND,
    POD,
    PROVED,
    SEEN,
    UNPROVED,
    told,
)

PLAN = build_plan(POD, PlanSettings())
SIDECARS = Inspected(replace(FOUND.inspection, held=Held.SIDECARS))
BAD = replace(SEEN, pod=replace(POD, annotations=(("headgate.io/exclude-uids", "root"),)))
CONFLICT = PortConflict(15001, 7, "x")
ELSEWHERE = (ip_address("10.9.9.9"),)


def test_B51_rules_that_are_held_count_as_installed_from_the_first_look_on() -> None:
    story = told().hears(ADOPTED)
    assert story.life.installed and story.life.capturing and story.last == (Announce(),)
    assert story.hears(Acked()).last == (Install(PLAN),)  # changes nothing where the plan is in force
    assert story.hears(Installed(), PROVED).state == "proved"


def test_B51_without_a_proxy_the_rules_are_put_in_order_and_wait_for_one() -> None:
    story = told().hears(ADOPTED, ProxyAbsent())
    assert (story.state, story.last) == ("installed", (Install(PLAN), Wake(Timer.RETRY, 5.0)))
    assert "headgate proxy" in story.life.reason
    assert story.hears(Installed()).life.reason.startswith("no proxy") and story.last == ()
    assert story.hears(Due(Timer.RETRY)).last == (Announce(),)
    assert story.hears(ProxyAbsent()).last == (Wake(Timer.RETRY, 5.0),)
    assert story.hears(Acked()).last == (Prove(),)
    assert story.hears(PROVED).state == "proved"


def test_a_proxy_that_refuses_an_adopted_pod_leaves_the_rules_in_force_and_in_order() -> None:
    story = told().hears(ADOPTED, Nacked("cannot listen"))
    assert (story.state, story.last) == ("pending", (Install(PLAN), Wake(Timer.RETRY, 5.0)))
    assert story.life.capturing and "cannot listen" in story.life.reason


def test_rules_that_cannot_be_put_in_order_stay_as_they_are_with_the_reason() -> None:
    story = told().hears(ADOPTED, ProxyAbsent(), Refused("nft: busy"))
    assert (story.state, story.life.reason) == ("failed", "nft: busy")
    assert story.life.capturing and Withdraw() not in story.did
    assert story.hears(Due(Timer.RECHECK)).last == (Inspect(),)


def test_a_pod_never_enrolled_is_not_captured_while_no_proxy_is_there() -> None:
    for found in (FOUND, DRAINING):
        assert told().hears(found, ProxyAbsent()).last == (Wake(Timer.RETRY, 5.0),)


def test_a_bad_annotation_leaves_the_rules_of_the_former_agent_and_has_them_served() -> None:
    story = told(BAD).hears(ADOPTED)
    assert story.last == (Announce(),)
    assert story.hears(Acked()).state == "failed" and "headgate.io/exclude-uids" in story.life.reason
    assert story.life.capturing and story.did == [Inspect(), Announce(), Wake(Timer.RECHECK, 1.0)]


def test_a_bad_annotation_and_no_proxy_are_both_told() -> None:
    story = told(BAD).hears(ADOPTED, ProxyAbsent())
    assert "no proxy" in story.life.reason and "headgate.io/exclude-uids" in story.life.reason
    assert story.last == (Wake(Timer.RETRY, 5.0),)


def test_the_annotation_put_right_installs_the_plan_over_the_former_agents_rules() -> None:
    story = told(BAD).hears(ADOPTED, Acked(), SEEN, ADOPTED, Acked())
    assert story.last == (Install(PLAN),)
    assert story.hears(Installed(), PROVED).state == "proved"


@pytest.mark.parametrize("found", [ADOPTED, DRAINING], ids=["rules", "drain form"])
def test_what_a_disabled_pod_still_holds_is_drained_and_removed(found: Inspected) -> None:
    story = told(DISABLED).hears(found)
    assert (story.state, story.last) == ("leaving", (Drain(PLAN),))
    assert story.hears(Drained()).last == (CountSteered(),)
    story.hears(SteeredLeft(0), Removed(), Withdrawn())
    assert story.state == "disabled" and story.did[-2:] == [Remove(PLAN), Withdraw()]
    assert Announce() not in story.did


def test_a_namespace_that_is_not_the_pods_is_cleared_of_our_rules_before_it_fails() -> None:
    foreign = Inspected(Inspection(ELSEWHERE, held=Held.RULES))
    story = told().hears(foreign)
    assert (story.state, story.last) == ("leaving", (Drain(PLAN),))
    story.hears(Drained(), SteeredLeft(1), Due(Timer.DRAIN), SteeredLeft(0), Removed(), Withdrawn())
    assert story.state == "failed" and "does not hold the pod's address" in story.life.reason
    assert story.life.timer is Timer.RECHECK and not story.life.installed


def test_label_off_while_it_is_cleared_ends_in_disabled() -> None:
    story = told().hears(Inspected(Inspection(ELSEWHERE, held=Held.RULES)), Drained(), SteeredLeft(1), DISABLED)
    assert story.hears(Due(Timer.DRAIN), SteeredLeft(0), Removed(), Withdrawn()).state == "disabled"


def test_a_namespace_lost_while_it_is_cleared_ends_in_failed() -> None:
    story = told().hears(Inspected(Inspection(ELSEWHERE, held=Held.RULES)), NetnsLost("is not there"))
    assert (story.state, story.last) == ("failed", (Withdraw(), Wake(Timer.RECHECK, 1.0)))


def test_a_taken_port_behind_rules_in_force_is_the_proxys_to_refuse() -> None:
    """Taking the rules away would let the pod past the mesh because somebody took a port."""
    taken = Inspected(replace(ADOPTED.inspection, conflicts=(CONFLICT,)))
    assert told().hears(taken).last == (Announce(),)


@pytest.mark.parametrize(
    ("seen", "found", "reason"),
    [
        (SEEN, Inspected(replace(DRAINING.inspection, conflicts=(CONFLICT,))), "15001"),
        (BAD, DRAINING, "headgate.io/exclude-uids"),
    ],
    ids=["taken port", "bad annotation"],
)
def test_a_drain_form_whose_pod_cannot_be_enrolled_goes_on_leaving(seen: Seen, found: Inspected, reason: str) -> None:
    story = told(seen).hears(found, Drained(), SteeredLeft(0), Removed(), Withdrawn())
    assert story.state == "failed" and reason in story.life.reason


def test_a_drain_form_of_a_pod_that_is_wanted_gives_way_to_the_plan() -> None:
    story = told().hears(DRAINING)
    assert not story.life.capturing and story.last == (Announce(),)
    assert story.hears(Acked()).last == (Install(PLAN),)
    assert story.hears(Installed()).life.capturing


def test_what_was_put_there_and_is_found_missing_is_still_to_be_there() -> None:
    """A refused heal, then a look: the rules that somebody took away are owed, with or without a proxy."""
    story = told().hears(ADOPTED, Acked(), Refused("nft: busy"), Due(Timer.RECHECK), FOUND, ProxyAbsent())
    assert story.life.capturing and story.last == (Install(PLAN), Wake(Timer.RETRY, 5.0))


# ── Gone before anybody could look ─────────────────────────────────────────────────────────────────────────────────
def test_a_pod_that_left_before_anybody_could_look_is_looked_at_and_ends_without_a_trace() -> None:
    story = told().hears(Refused("netlink"), Left(), Refused("netlink"), Due(Timer.RECHECK))
    assert story.last == (Inspect(),)
    assert story.hears(FOUND).last == (Withdraw(),)
    assert story.hears(Withdrawn()).state == "gone"


def test_a_pod_that_left_and_whose_namespace_is_none_is_let_go() -> None:
    story = told().hears(Refused("netlink"), Left(), NetnsUnfit("is the agent's own, the node's"))
    assert story.last == (Withdraw(),)
    assert story.hears(Withdrawn()).state == "gone"


def test_a_pod_that_its_source_names_again_before_anybody_could_look_is_a_pod_again() -> None:
    story = told().hears(Refused("netlink"), Left(), Refused("netlink"), SEEN, ADOPTED, Acked(), Installed(), UNPROVED)
    assert story.state == "installed"


def test_a_sidecars_rules_are_nobodys_to_remove() -> None:
    """A pod that is not in the mesh, or no longer, and steers itself."""
    story = told(DISABLED).hears(SIDECARS)
    assert story.last == (Withdraw(),), "what a proxy may hold of it is let go"
    assert story.hears(Withdrawn()).state == "disabled"
    assert not any(isinstance(action, Drain | Remove) for action in story.did)


def test_a_pod_that_steers_itself_is_not_enrolled_beside_its_own_proxy() -> None:
    story = told().hears(SIDECARS)
    assert story.state == "failed" and "holds the rules of `headgate init`" in story.life.reason
    assert story.last == (Withdraw(), Wake(Timer.RECHECK, 1.0))
    assert not story.life.installed, "and what is not installed is never removed"
    assert story.hears(Left()).state == "gone"
