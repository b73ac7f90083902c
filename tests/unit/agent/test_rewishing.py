"""A pod whose annotations change while it is enrolled: new rules take the old ones' place, bad ones take nobody's."""

from dataclasses import replace

from agent.plan import PlanSettings, build_plan
from agent.reconcile import Seen
from agent.reconcile.life import (
    Acked,
    Announce,
    Drain,
    Drifted,
    Due,
    Heal,
    Healed,
    Inspect,
    Install,
    Installed,
    Nacked,
    Prove,
    ProxyAbsent,
    Refused,
    Timer,
    Wake,
)
from tests.unit.agent.lives import ADOPTED, DISABLED, FOUND, POD, PROVED, SEEN, enrolled, told

KEY = "headgate.io/exclude-outbound-ports"


def asking(value: str) -> Seen:
    return replace(SEEN, pod=replace(POD, annotations=((KEY, value),)))


ALL, DIRECT, OTHER = (build_plan(seen.pod, PlanSettings()) for seen in (SEEN, asking("5432"), asking("5432,6379")))
BAD = asking("10-5")
COMPLAINT = f"annotation {KEY}: '10-5' ends before it begins: write 5-10"


def test_a_changed_annotation_is_put_in_force_and_what_it_replaces_is_told() -> None:
    story = enrolled().hears(asking("5432"))
    assert (story.state, story.last) == ("planned", (Announce(),))
    assert story.hears(Acked()).last == (Install(DIRECT, ALL),)
    assert story.hears(Installed()).last == (Prove(),)
    assert story.life.replaces is None and story.life.plan == DIRECT
    assert story.hears(PROVED).state == "proved" and not story.life.reason


def test_an_annotation_that_changes_nothing_changes_nothing() -> None:
    noted = replace(SEEN, pod=replace(POD, annotations=(("config.linkerd.io/proxy-uid", "2102"),)))
    story = enrolled().hears(noted)
    assert (story.state, story.last) == ("proved", ())


def test_without_a_proxy_the_new_rules_take_the_old_ones_place_all_the_same() -> None:
    story = enrolled().hears(asking("5432"), ProxyAbsent())
    assert story.last[0] == Install(DIRECT, ALL)
    assert story.hears(Installed()).life.replaces is None


def test_a_proxy_that_refuses_the_pod_does_not_keep_the_old_rules() -> None:
    story = enrolled().hears(asking("5432"), Nacked("no"))
    assert story.last[0] == Install(DIRECT, ALL)
    story.hears(Installed())
    assert (story.state, story.life.replaces) == ("pending", None)


def test_told_twice_before_the_first_is_in_force_it_replaces_what_is_in_force() -> None:
    story = enrolled().hears(asking("5432"), asking("5432,6379"), Acked())
    assert story.last == (Install(OTHER, ALL),)


def test_told_back_before_it_is_in_force_nothing_is_replaced() -> None:
    story = enrolled().hears(asking("5432"), SEEN, Acked())
    assert story.last == (Install(ALL),)


# ── Bad ones ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_bad_annotation_after_a_good_one_keeps_the_last_good_rules_and_says_key_and_value() -> None:
    story = enrolled(asking("5432")).hears(BAD)
    assert story.last == (Prove(),) and story.life.plan == DIRECT
    assert story.hears(PROVED).state == "proved" and story.life.reason == COMPLAINT


def test_the_bad_one_put_right_is_put_in_force() -> None:
    story = enrolled(asking("5432")).hears(BAD, asking("5432,6379"), Acked())
    assert story.last == (Install(OTHER, DIRECT),)
    assert story.hears(Installed(), PROVED).life.reason == ""


def test_the_bad_one_taken_back_needs_no_new_rules() -> None:
    story = enrolled(asking("5432")).hears(BAD, PROVED, asking("5432"))
    assert story.last == (Prove(),) and story.hears(PROVED).life.reason == ""


def test_a_bad_annotation_on_a_pod_that_is_not_enrolled_leaves_it_untouched() -> None:
    story = told(BAD).hears(FOUND)
    assert (story.state, story.life.reason) == ("failed", COMPLAINT)
    assert not any(isinstance(action, Install | Announce) for action in story.did)


def test_an_annotation_that_became_bad_while_no_agent_ran_leaves_the_rules_that_are_there() -> None:
    story = told(BAD).hears(ADOPTED, Acked())
    assert (story.state, story.life.reason) == ("failed", COMPLAINT)
    assert not any(isinstance(action, Install | Drain) for action in story.did)


# ── What goes wrong on the way ─────────────────────────────────────────────────────────────────────────────────────
def test_rules_that_the_kernel_refuses_leave_the_old_ones_which_drift_puts_back() -> None:
    story = enrolled().hears(asking("5432"), Acked(), Refused("no such match"))
    assert (story.state, story.last) == ("failed", (Wake(Timer.RECHECK, 1.0),))
    story.hears(Drifted(("table inet headgate is gone",)))
    assert story.last == (Heal(ALL),)
    assert story.hears(Healed(0, 0)).last == (Inspect(),)  # and then the new ones are asked for again
    assert story.hears(ADOPTED, Acked()).last == (Install(DIRECT, ALL),)


def test_asked_for_again_they_still_replace_what_is_in_force() -> None:
    story = enrolled().hears(asking("5432"), Acked(), Refused("no"), Due(Timer.RECHECK), ADOPTED, Acked())
    assert story.last == (Install(DIRECT, ALL),)


def test_on_the_way_out_what_is_in_force_is_drained_not_what_was_to_come() -> None:
    story = enrolled().hears(asking("5432"), DISABLED)
    assert story.last == (Drain(ALL),) and story.life.replaces is None


def test_what_a_former_agent_left_is_drained_by_what_the_pod_asks_for_now() -> None:
    """Only interfaces that are left alone altogether show in the drain form."""
    apart = (("headgate.io/exclude-interfaces", "net1"),)
    off = replace(DISABLED, pod=replace(DISABLED.pod, annotations=apart))
    assert told(off).hears(ADOPTED).last == (Drain(build_plan(replace(POD, annotations=apart), PlanSettings())),)
    bad = replace(DISABLED, pod=replace(DISABLED.pod, annotations=BAD.pod.annotations))
    assert told(bad).hears(ADOPTED).last == (Drain(ALL),)
