"""The kernel no longer holds the plan (B42-44): what is decided, in every state in which it can be heard."""

from agent.plan import PlanSettings, build_plan
from agent.reconcile.life import (
    Acked,
    Announce,
    CountSteered,
    Drain,
    Drained,
    Drifted,
    Due,
    Heal,
    Healed,
    Inspect,
    Install,
    Installed,
    Nacked,
    NetnsLost,
    Prove,
    ProxyAbsent,
    ProxyParked,
    Refused,
    SteeredLeft,
    Timer,
    Wake,
    Withdrawn,
)
from tests.unit.agent.lives import ADOPTED, DISABLED, DRAINING, FOUND, POD, PROVED, SEEN, enrolled, told

PLAN = build_plan(POD, PlanSettings())
GONE = Drifted(("table inet headgate is gone",), "nft (pid 1234)")
HEALED = Healed(0, 0)


def test_B43_what_drifted_is_healed_at_once_and_proved_again() -> None:
    story = enrolled().hears(GONE)
    assert (story.state, story.last) == ("drifted", (Heal(PLAN),))
    assert story.life.reason == "drifted: table inet headgate is gone, changed by nft (pid 1234)"
    assert story.life.capturing
    assert (story.hears(HEALED).state, story.last) == ("installed", (Prove(),))
    assert story.hears(PROVED).state == "proved" and story.life.reason == ""


def test_many_changes_are_told_in_a_line() -> None:
    many = tuple(f"rule r{number} is missing" for number in range(40))
    reason = enrolled().hears(Drifted(many)).life.reason
    assert reason.endswith("rule r4 is missing; and 35 more") and "changed by" not in reason


def test_a_pod_that_waits_for_its_proxy_is_healed_and_waits_on() -> None:
    absent = told().hears(ADOPTED, ProxyAbsent(), Installed())
    assert absent.hears(GONE).last == (Heal(PLAN),)
    refused = enrolled().hears(Nacked("cannot listen"))
    assert refused.hears(GONE).last == (Heal(PLAN),)
    assert refused.hears(HEALED).last == (Prove(),)


def test_a_heal_that_is_refused_is_told_and_tried_again_less_and_less_often() -> None:
    story = enrolled().hears(GONE, Refused("nft: busy"))
    assert (story.state, story.last) == ("failed", (Wake(Timer.RECHECK, 1.0),))
    assert "table inet headgate is gone" in story.life.reason and "nft: busy" in story.life.reason
    assert story.life.capturing and story.life.announced
    assert story.hears(Due(Timer.RECHECK)).last == (Inspect(),)
    assert story.hears(FOUND, Acked()).last == (Install(PLAN),)  # nothing held: it is put back all the same
    assert story.hears(Installed(), PROVED).state == "proved"


def test_drift_is_heard_while_a_refused_heal_waits() -> None:
    story = enrolled().hears(GONE, Refused("nft: busy"), GONE)
    assert (story.state, story.last) == ("drifted", (Heal(PLAN),))
    assert story.hears(Refused("nft: busy")).last == (Wake(Timer.RECHECK, 2.0),)
    assert story.hears(Due(Timer.RECHECK), ADOPTED, Acked(), Installed()).state == "installed"


def test_drift_does_not_outrun_what_had_failed_before() -> None:
    """A look was refused after the pod had changed: healed is the old plan, and the pod is still to be looked at."""
    story = enrolled().hears(DISABLED, Refused("busy"), SEEN, Refused("busy"), GONE)
    assert story.last == (Heal(PLAN),)
    assert story.hears(HEALED).last == (Inspect(),)
    assert story.hears(ADOPTED, Acked(), Installed(), PROVED).state == "proved"


def test_B49_while_leaving_the_drain_form_is_put_back() -> None:
    story = enrolled().hears(DISABLED, Drained(), SteeredLeft(2), GONE)
    assert (story.state, story.last) == ("leaving", (Drain(PLAN),))
    assert story.hears(Drained()).last == (CountSteered(),)
    assert not any(isinstance(action, Heal) for action in story.did)


def test_the_drain_form_of_a_pod_that_waits_for_its_proxy_is_put_back_as_such() -> None:
    story = told().hears(DRAINING, ProxyAbsent(), GONE)
    assert (story.state, story.last) == ("pending", (Drain(PLAN),))


def test_where_nothing_of_ours_is_to_be_nothing_drifts() -> None:
    for story in (
        told(DISABLED).hears(FOUND, Withdrawn()),
        told().hears(FOUND, ProxyAbsent()),
        enrolled().hears(NetnsLost("gone")),
    ):
        before = story.life
        assert story.hears(GONE).life == before and story.last == ()


def test_parked_listeners_are_told_and_change_nothing() -> None:
    story = enrolled().hears(ProxyParked())
    assert (story.state, story.last) == ("installed", ())
    assert "--park-timeout" in story.life.reason and story.life.capturing
    assert story.hears(Due(Timer.PROVE)).last == (Announce(),)
    assert story.hears(Acked(), PROVED).state == "proved"
