"""A pod's way out of the mesh: drained, removed, withdrawn, in this order; and what may happen on the way."""

from dataclasses import replace

from agent.plan import PlanSettings, build_plan
from agent.pods import NetnsId
from agent.reconcile.life import (
    Acked,
    Announce,
    Begin,
    CountSteered,
    Drain,
    Drained,
    Due,
    Inspect,
    Install,
    Installed,
    Left,
    NetnsLost,
    Prove,
    ProxyAbsent,
    Refused,
    Remove,
    Removed,
    SteeredLeft,
    Stop,
    Timer,
    Wake,
    Withdraw,
    Withdrawn,
)
from tests.unit.agent.lives import ADOPTED, DISABLED, FOUND, POD, PROVED, SEEN, enrolled, told

PLAN = build_plan(POD, PlanSettings())
ELSEWHERE = replace(SEEN, netns_id=NetnsId(4, 200))


def test_label_off_drains_removes_withdraws() -> None:
    story = enrolled().hears(DISABLED)
    assert (story.state, story.last) == ("leaving", (Drain(PLAN),))
    assert story.hears(Drained()).last == (CountSteered(),)
    assert story.hears(SteeredLeft(0)).last == (Remove(PLAN),)
    assert story.hears(Removed()).last == (Withdraw(),)
    assert story.hears(Withdrawn()).state == "disabled"


def test_steered_connections_are_waited_for_until_the_last_one_ends() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(7))
    assert story.last == (Wake(Timer.DRAIN, 0.5),) and "7 steered connections" in story.life.reason
    assert story.hears(Due(Timer.DRAIN)).last == (CountSteered(),)
    assert story.hears(SteeredLeft(0)).last == (Remove(PLAN),)


def test_and_no_longer_than_drain_s() -> None:
    story = enrolled().hears(DISABLED, Drained())
    polls = 0
    while story.hears(SteeredLeft(1)).last == (Wake(Timer.DRAIN, 0.5),):
        story.hears(Due(Timer.DRAIN))
        polls += 1
    assert polls == 2  # drain_s 1.0, looked at every 0.5


def test_what_outlives_the_drain_is_closed_by_the_proxy_while_it_is_still_translated() -> None:
    """Without its translation a connection would go on sending in clear to where it was going (invariant 4)."""
    story = enrolled().hears(DISABLED, Drained())
    while story.hears(SteeredLeft(1)).last == (Wake(Timer.DRAIN, 0.5),):
        story.hears(Due(Timer.DRAIN))
    assert story.last == (Withdraw(),)
    assert story.hears(Withdrawn()).last == (Remove(PLAN),)
    assert story.hears(Removed()).state == "disabled"


def test_label_on_again_while_draining_installs_over_the_drain_form() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(3), SEEN)
    assert (story.state, story.last) == ("seen", (Inspect(),))
    assert story.hears(FOUND).last == (Announce(),)
    assert story.hears(Acked()).last == (Install(PLAN),)
    assert story.hears(Installed(), PROVED).state == "proved"


def test_the_drains_timer_means_nothing_after_label_on() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(3), SEEN, FOUND, Acked(), Installed(), PROVED)
    assert story.hears(Due(Timer.DRAIN)).last == ()


def test_label_off_and_on_again_after_the_end() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(0), Removed(), Withdrawn(), SEEN)
    assert story.last == (Inspect(),)
    assert not story.life.announced and not story.life.installed


def test_a_pod_that_only_waits_for_a_proxy_leaves_at_once() -> None:
    story = told().hears(FOUND, ProxyAbsent(), Left())
    assert story.last == (Withdraw(),)
    assert story.hears(Withdrawn()).state == "gone"


def test_a_pod_that_is_gone_with_its_namespace_is_withdrawn_within_two_steps() -> None:
    story = enrolled().hears(Left())
    assert story.last == (Drain(PLAN),)
    assert story.hears(NetnsLost("is not there")).last == (Withdraw(),)
    assert story.hears(Withdrawn()).state == "gone"


def test_a_pod_that_only_its_source_forgot_is_taken_out_properly() -> None:
    story = enrolled().hears(Left(), Drained(), SteeredLeft(0), Removed(), Withdrawn())
    assert story.state == "gone"


def test_gone_while_it_is_leaving_for_its_label_ends_in_gone() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(1), Left(), Due(Timer.DRAIN), SteeredLeft(0), Removed())
    assert story.hears(Withdrawn()).state == "gone"


def test_rules_that_cannot_be_removed_are_tried_again_and_the_proxy_keeps_serving() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(0), Refused("nft: busy"))
    assert (story.state, story.last) == ("leaving", (Wake(Timer.RETRY, 5.0),))
    assert "nft: busy" in story.life.reason and story.life.announced
    assert story.hears(Due(Timer.RETRY)).last == (CountSteered(),)
    assert story.hears(SteeredLeft(0)).last == (Remove(PLAN),)
    assert story.hears(Removed(), Withdrawn()).state == "disabled"


def test_a_drain_that_is_refused_is_tried_again_and_nothing_is_removed_before_it() -> None:
    story = enrolled().hears(DISABLED, Refused("nft: busy"))
    assert (story.state, story.last) == ("leaving", (Wake(Timer.RETRY, 5.0),))
    assert story.hears(Due(Timer.RETRY)).last == (Drain(PLAN),)


def test_connections_that_cannot_be_counted_are_waited_for_no_longer_than_drain_s() -> None:
    story = enrolled().hears(DISABLED, Drained(), Refused("conntrack: not permitted"), Due(Timer.RETRY))
    assert story.last == (CountSteered(),)
    assert story.hears(Refused("conntrack: not permitted")).last == (Withdraw(),)  # drain_s 1.0 is over
    assert story.hears(Withdrawn()).last == (Remove(PLAN),)
    assert story.hears(Refused("nft: busy"), Due(Timer.RETRY)).last == (Remove(PLAN),)
    assert story.hears(Removed()).state == "disabled"


def test_a_pod_nobody_could_look_at_is_looked_at_before_it_is_let_go() -> None:
    story = told().hears(Refused("netlink"), Left())
    assert story.last == (Inspect(),)
    assert story.hears(ADOPTED).last == (Drain(PLAN),)
    story.hears(Drained(), SteeredLeft(0), Removed(), Withdrawn())
    assert story.state == "gone" and Announce() not in story.did


def test_B48_same_uid_in_another_namespace_drains_the_old_one_and_begins_in_the_new() -> None:
    story = enrolled().hears(ELSEWHERE)
    assert (story.state, story.last) == ("leaving", (Drain(PLAN),))
    assert story.hears(Drained()).last == (Begin(ELSEWHERE), CountSteered())
    story.hears(SteeredLeft(0), Removed())
    assert story.state == "gone"
    assert Withdraw() not in story.did  # the uid belongs to the new namespace by now


def test_B48_when_the_old_namespace_is_dead_already_the_new_life_begins_all_the_same() -> None:
    story = enrolled().hears(ELSEWHERE, NetnsLost("is not there"))
    assert story.last == (Withdraw(),)
    assert story.hears(Withdrawn()).last == (Begin(ELSEWHERE),)
    assert story.state == "gone"


def test_B48_before_any_rule_is_in_force_there_is_nothing_to_drain() -> None:
    story = told().hears(FOUND, ProxyAbsent(), ELSEWHERE)
    assert (story.state, story.last) == ("gone", (Begin(ELSEWHERE),))


def test_B48_what_is_steered_in_the_old_namespace_is_the_proxys_to_end() -> None:
    """The uid cannot be withdrawn for the old namespace's sake, and untranslated it would go on in clear."""
    story = enrolled().hears(ELSEWHERE, Drained())
    for _ in range(20):
        assert story.hears(SteeredLeft(1)).last == (Wake(Timer.DRAIN, 0.5),)
        assert story.hears(Due(Timer.DRAIN)).last == (CountSteered(),)
    assert "until the proxy ends them" in story.life.reason
    story.hears(Stop(), Drained())
    assert story.hears(SteeredLeft(1)).last == (Wake(Timer.DRAIN, 0.5),)
    assert story.hears(Due(Timer.DRAIN), SteeredLeft(0)).last == (Remove(PLAN),)


def test_B48_a_successor_that_left_meanwhile_is_not_begun() -> None:
    story = enrolled().hears(ELSEWHERE, Refused("nft: busy"), Left(), Due(Timer.RETRY), Drained())
    assert story.last == (CountSteered(),)
    story.hears(SteeredLeft(0), Removed(), Withdrawn())
    assert story.state == "gone" and Begin(ELSEWHERE) not in story.did


def test_stop_leaves_without_patience() -> None:
    story = enrolled().hears(Stop())
    assert story.last == (Drain(PLAN),)
    assert story.hears(Drained(), SteeredLeft(0)).last == (Remove(PLAN),)
    assert story.hears(Removed()).last == (Withdraw(),)
    assert story.hears(Withdrawn()).state == "gone"
    assert told(DISABLED).hears(FOUND, Withdrawn(), Stop()).state == "gone"


def test_stop_has_the_proxy_close_what_is_steered_before_its_translation_goes() -> None:
    story = enrolled().hears(Stop(), Drained(), SteeredLeft(4))
    assert story.last == (Withdraw(),)
    assert story.hears(Withdrawn()).last == (Remove(PLAN),)
    assert story.hears(Removed()).state == "gone"


def test_stop_while_draining_does_not_wait_for_the_drain() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(9), Stop(), Drained(), SteeredLeft(9))
    assert story.last == (Withdraw(),)


def test_other_labels_change_nothing_that_is_in_force() -> None:
    labelled = replace(POD, labels=(("version", "v2"),))
    story = enrolled().hears(replace(SEEN, pod=labelled))
    assert (story.state, story.last) == ("proved", ())
    assert story.life.pod == labelled


def test_a_bad_annotation_on_the_way_out_brings_the_last_good_plan_back_not_the_drain_form() -> None:
    bad = replace(SEEN, pod=replace(POD, annotations=(("headgate.io/exclude-inbound-ports", "x"),)))
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(1), bad, FOUND, Acked())
    assert story.last == (Install(PLAN),)
    assert story.hears(Installed(), PROVED).state == "proved" and "exclude-inbound-ports" in story.life.reason


def test_an_annotation_that_became_bad_leaves_the_last_good_plan_in_force() -> None:
    bad = replace(SEEN, pod=replace(POD, annotations=(("headgate.io/exclude-inbound-ports", "x"),)))
    story = enrolled().hears(bad)
    assert story.life.installed and story.life.plan == PLAN and story.last == (Prove(),)
    assert story.hears(PROVED).state == "proved" and "headgate.io/exclude-inbound-ports" in story.life.reason
    assert story.hears(SEEN, PROVED).life.reason == ""  # put right


def test_B48_a_late_answer_for_the_old_namespace_does_not_withdraw_the_new_one() -> None:
    story = enrolled().hears(ELSEWHERE, Drained(), Acked(), SteeredLeft(0), Removed())
    assert story.state == "gone" and Withdraw() not in story.did
