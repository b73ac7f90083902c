"""What the transitions of every theme are made of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from agent.plan import InvalidPlan, RedirectPlan, build_plan
from agent.reconcile.life import Held, Inspect, Life, LifeSettings, State, Step, Timer, Wake, Withdraw

Handler = Callable[[Life, Any, LifeSettings], Step]  # Any: the tables' keys say which event a handler takes

_MOST_DOUBLINGS: Final = 12
"""From a second to more than an hour: longer than any recheck_s of use."""


def enter(life: Life, ending: State | None = None) -> Step:
    """From the beginning: the pod is looked at. Rules that are in force stay until the new ones take their place."""
    fresh = replace(life, state=State.SEEN, reason="", complaint="", ending=ending, successor=None, timer=None)
    return fresh, (Inspect(),)


def looked(life: Life, held: Held) -> Life:
    """The life that knows what its namespace holds. The kernel is the state: what a former agent put there counts as
    put there by this one. What this one put there and somebody took away still counts: it is to be put back."""
    nothing = held in (Held.NOTHING, Held.SIDECARS)
    return replace(
        known(life),
        installed=life.installed or not nothing,
        drained=held is Held.DRAIN_FORM or (nothing and life.drained),
    )


def known(life: Life) -> Life:
    """From the first look on: what the proxy took on a former agent's word is this agent's to withdraw."""
    return replace(life, looked_at=True, announced=life.announced or not life.looked_at)


def fail(life: Life, reason: str, settings: LifeSettings) -> Step:
    """What is in force stays. What was wrong may be put right without anybody telling: look again later."""
    after_s = min(settings.recheck_s, settings.first_recheck_s * 2 ** min(life.failures, _MOST_DOUBLINGS))
    failed = replace(life, state=State.FAILED, reason=reason, failures=life.failures + 1)
    return wake(failed, Timer.RECHECK, after_s)


def fail_unenrolled(life: Life, reason: str, settings: LifeSettings) -> Step:
    """As `fail`, for a pod of which nothing is in force: no proxy is to hold its namespace."""
    failed, actions = fail(replace(life, announced=False), reason, settings)
    return failed, ((Withdraw(), *actions) if life.announced else actions)


def wake(life: Life, timer: Timer, after_s: float) -> Step:
    return replace(life, timer=timer), (Wake(timer, after_s),)


def plan_to_leave(life: Life, settings: LifeSettings) -> RedirectPlan:
    """The plan in force or, where only a former agent knew it, what the pod asks for now: what steers is the same for
    all in the drain form and its removal, and only what is left alone altogether may differ."""
    if life.plan_in_force is not None:
        return life.plan_in_force
    try:
        return build_plan(life.pod, settings.plan)
    except InvalidPlan:
        return build_plan(replace(life.pod, annotations=()), settings.plan)
