"""A pod's way into the mesh, and every way in which it can fail (issue 2: bad input)."""

from dataclasses import replace
from ipaddress import ip_address

from agent.plan import PlanSettings, build_plan
from agent.reconcile import State
from agent.reconcile.entering import AWAITS_POLICY
from agent.reconcile.life import (
    Acked,
    Announce,
    Due,
    Inspect,
    Inspected,
    Inspection,
    Install,
    Installed,
    Nacked,
    NetnsLost,
    NetnsUnfit,
    PortConflict,
    ProofsWait,
    Prove,
    ProveNow,
    ProxyAbsent,
    Refused,
    Timer,
    Wake,
    Withdraw,
    Withdrawn,
)
from tests.unit.agent.lives import DISABLED, FOUND, POD, PROVED, SEEN, UNPROVED, enrolled, told

PLAN = build_plan(POD, PlanSettings())


def test_seen_located_planned_announced_installed_proved() -> None:
    story = told()
    assert (story.state, story.last) == ("seen", (Inspect(),))
    assert (story.hears(FOUND).state, story.last) == ("planned", (Announce(),))
    assert (story.hears(Acked()).state, story.last) == ("announced", (Install(PLAN),))
    assert (story.hears(Installed()).state, story.last) == ("installed", (Prove(),))
    assert (story.hears(PROVED).state, story.last) == ("proved", (Wake(Timer.PROVE, 60.0),))
    assert story.life.reason == "" and story.life.installed and story.life.announced


def test_a_pod_labelled_disabled_is_looked_at_and_left_alone() -> None:
    story = told(DISABLED).hears(FOUND, Withdrawn())
    assert (story.state, story.did) == ("disabled", [Inspect(), Withdraw()])
    assert "headgate.io/mesh" in story.life.reason


def test_B31_a_port_of_ours_that_is_taken_fails_before_any_rule_and_names_port_and_pid() -> None:
    taken = Inspected(Inspection(POD.addresses, (PortConflict(15006, 4711, "envoy"),)))
    story = told().hears(taken)
    assert story.state == "failed"
    assert "port 15006 is taken by process 4711 (envoy)" in story.life.reason
    assert story.did == [Inspect(), Withdraw(), Wake(Timer.RECHECK, 1.0)]


def test_a_taken_port_whose_process_cannot_be_seen_is_said_so() -> None:
    story = told().hears(Inspected(Inspection(POD.addresses, (PortConflict(15001, 0, ""),))))
    assert "port 15001 is taken by a process the agent cannot see" in story.life.reason


def test_a_failed_pod_is_looked_at_again_and_enrolled_once_the_port_is_free() -> None:
    story = told().hears(Inspected(Inspection(POD.addresses, (PortConflict(15006, 1, "x"),))))
    assert story.hears(Due(Timer.RECHECK)).last == (Inspect(),)
    assert story.hears(FOUND, Acked(), Installed(), PROVED).state == "proved"


def test_a_failed_pod_is_looked_at_less_and_less_often_until_it_is_told_anew() -> None:
    homeless = Inspected(Inspection(()))
    story = told().hears(homeless)
    waited = [story.last[1:]]  # behind the first look's withdrawal
    for _ in range(7):
        waited.append(story.hears(Due(Timer.RECHECK), homeless).last)
    assert waited == [(Wake(Timer.RECHECK, after_s),) for after_s in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)]
    assert story.hears(SEEN, homeless).last == (Wake(Timer.RECHECK, 1.0),)


def test_failures_before_an_install_do_not_count_for_those_after_it() -> None:
    story = told().hears(Inspected(Inspection(())), Due(Timer.RECHECK), FOUND, Acked(), Installed(), PROVED)
    assert story.hears(NetnsLost("gone")).last == (Withdraw(), Wake(Timer.RECHECK, 1.0))


def test_B47_a_namespace_without_the_pods_address_is_refused() -> None:
    story = told().hears(Inspected(Inspection((ip_address("10.0.0.6"),))))
    assert story.state == "failed"
    for part in ("/run/netns/web", "10.0.0.5", "it holds: 10.0.0.6"):
        assert part in story.life.reason


def test_one_of_the_pods_addresses_suffices() -> None:
    both = replace(SEEN, pod=replace(POD, addresses=(*POD.addresses, ip_address("fd00::5"))))
    assert told(both).hears(FOUND).state == "planned"


def test_a_pod_of_unknown_addresses_is_taken_at_its_sources_word() -> None:
    assert told(replace(SEEN, pod=replace(POD, addresses=()))).hears(Inspected(Inspection(()))).state == "planned"


def test_B47_the_nodes_own_namespace_is_refused() -> None:
    story = told().hears(NetnsUnfit("is the agent's own, the node's"))
    assert (story.state, story.life.reason) == ("failed", "is the agent's own, the node's")
    assert story.did == [Inspect(), Withdraw(), Wake(Timer.RECHECK, 1.0)]


def test_what_a_former_agents_proxy_may_hold_of_an_unfit_pod_is_withdrawn_once() -> None:
    homeless = Inspected(Inspection(()))
    story = told().hears(homeless, Withdrawn(), Due(Timer.RECHECK), homeless, Due(Timer.RECHECK), homeless)
    assert story.did.count(Withdraw()) == 1


def test_a_look_that_the_kernel_refuses_leaves_proxy_and_rules_as_they_are_and_is_tried_again() -> None:
    story = told().hears(Refused("netlink: no buffer space"))
    assert (story.state, story.last) == ("failed", (Wake(Timer.RECHECK, 1.0),))
    assert story.hears(Due(Timer.RECHECK), FOUND, Acked(), Installed(), PROVED).state == "proved"


def test_an_announcement_that_cannot_be_made_is_no_dead_end() -> None:
    story = told().hears(FOUND, Refused("announce: too many open files"))
    assert (story.state, story.last) == ("failed", (Withdraw(), Wake(Timer.RECHECK, 1.0)))
    assert "too many open files" in story.life.reason


def test_an_annotation_that_cannot_be_honoured_fails_with_key_and_value() -> None:
    asks = replace(SEEN, pod=replace(POD, annotations=(("headgate.io/exclude-outbound-ports", "70000"),)))
    story = told(asks).hears(FOUND)
    assert story.state == "failed"
    assert "headgate.io/exclude-outbound-ports" in story.life.reason and "70000" in story.life.reason


def test_without_a_proxy_the_pod_waits_and_no_rule_goes_in() -> None:
    story = told().hears(FOUND, ProxyAbsent())
    assert (story.state, story.last) == ("pending", (Wake(Timer.RETRY, 5.0),))
    assert "headgate proxy" in story.life.reason
    assert not any(isinstance(action, Install) for action in story.did)


def test_a_nack_leaves_the_pod_pending_and_it_is_tried_every_five_seconds() -> None:
    story = told().hears(FOUND, Nacked("no descriptors left"))
    assert (story.state, story.last) == ("pending", (Wake(Timer.RETRY, 5.0),))
    assert "no descriptors left" in story.life.reason
    assert story.hears(Due(Timer.RETRY)).last == (Announce(),)
    assert story.hears(Nacked("again")).last == (Wake(Timer.RETRY, 5.0),)
    assert story.hears(Due(Timer.RETRY), Acked()).last == (Install(PLAN),)


def test_a_proxy_that_comes_and_takes_the_pod_from_its_snapshot_is_asked_before_rules_lead_to_it() -> None:
    """Its answer may have waited for its turn while the pod was withdrawn from it."""
    story = told().hears(FOUND, ProxyAbsent(), Acked())
    assert story.last == (Announce(),)
    assert story.hears(Acked()).last == (Install(PLAN),)


def test_a_timer_of_an_earlier_state_is_no_reason_to_act() -> None:
    story = told().hears(FOUND, ProxyAbsent(), Acked(), Acked(), Installed())
    before = story.life
    assert story.hears(Due(Timer.RETRY)).life == before and story.last == ()


def test_rules_that_the_kernel_refuses_take_the_announcement_back() -> None:
    story = told().hears(FOUND, Acked(), Refused("nft transaction: no such expression"))
    assert story.state == "failed" and "no such expression" in story.life.reason
    assert story.last == (Withdraw(), Wake(Timer.RECHECK, 1.0))
    assert not story.life.announced and not story.life.installed


def test_a_failed_proof_shows_which_and_why_and_is_tried_again_soon() -> None:
    story = told().hears(FOUND, Acked(), Installed(), UNPROVED)
    assert (story.state, story.last) == ("installed", (Wake(Timer.PROVE, 5.0),))
    assert "in4: no report" in story.life.reason
    assert story.hears(Due(Timer.PROVE)).last == (Announce(),)  # it may never have heard of the pod
    assert story.hears(Acked()).last == (Prove(),)
    assert story.hears(PROVED).state == "proved"


def test_proof_is_repeated_every_minute_and_a_proved_pod_can_lose_it() -> None:
    story = enrolled()
    assert story.hears(Due(Timer.PROVE)).last == (Prove(),)
    assert story.hears(UNPROVED).state == "installed"
    assert story.life.installed  # the rules stay: fail closed


def test_somebody_may_ask_for_the_proofs_at_once() -> None:
    assert enrolled().hears(ProveNow()).last == (Prove(),)
    assert told().hears(FOUND, ProxyAbsent(), ProveNow()).last == ()


def test_a_proxy_that_comes_back_is_proved_again_and_one_that_refuses_leaves_the_rules() -> None:
    assert enrolled().hears(Acked()).last == (Prove(),)
    story = enrolled().hears(Nacked("cannot listen"))
    assert story.state == "pending" and story.life.installed
    assert story.hears(Due(Timer.RETRY), Acked()).last == (Install(PLAN),)


def test_a_namespace_that_vanishes_takes_the_announcement_with_it() -> None:
    story = enrolled().hears(NetnsLost("/run/netns/web is not there"))
    assert (story.state, story.last) == ("failed", (Withdraw(), Wake(Timer.RECHECK, 1.0)))
    assert not story.life.installed and "not there" in story.life.reason


def test_an_outcome_that_nobody_waits_for_changes_nothing() -> None:
    story = enrolled()
    before = story.life
    story.hears(FOUND, Installed(), Refused("late"))
    assert story.life == before and story.last == ()


def test_gone_is_for_ever() -> None:
    story = told()
    story.life = replace(story.life, state=State.GONE)
    assert story.hears(SEEN, Acked(), FOUND).state == "gone" and story.did == [Inspect()]


def test_a_pod_whose_proxy_waits_for_its_policy_says_so_and_is_proved_no_more() -> None:
    for story in (told().hears(FOUND, Acked(), Installed()), enrolled()):
        assert story.hears(ProofsWait()).state == "installed"
        assert (story.life.reason, story.life.proofs, story.last) == (AWAITS_POLICY, None, ())
        assert story.hears(PROVED).state == "proved" and story.life.reason == ""


def test_no_timer_begins_a_wait_anew() -> None:
    story = enrolled().hears(ProofsWait(), Due(Timer.PROVE))
    assert (story.life.reason, story.last) == (AWAITS_POLICY, ())


def test_proofs_that_waited_and_failed_say_what_was_found_and_are_tried_again() -> None:
    story = enrolled().hears(ProofsWait(), UNPROVED)
    assert "no report" in story.life.reason
    assert (story.state, story.last) == ("installed", (Wake(Timer.PROVE, 5.0),))
