"""A pod's way out: drained before removed, removed before withdrawn.

The proxy keeps its sockets while anything is steered to them, unless the drain's time is over: then it is sent away
first and closes what is left while that is still translated.
"""

import math
from dataclasses import replace
from typing import Final

from agent.reconcile.life import (
    Begin,
    CountSteered,
    Drain,
    Drained,
    Due,
    Life,
    LifeSettings,
    Refused,
    Remove,
    Removed,
    Seen,
    State,
    SteeredLeft,
    Step,
    Stop,
    Timer,
    Withdraw,
    Withdrawn,
)
from agent.reconcile.pieces import fail, known, plan_to_leave, wake

_UNTIL_CLOSED: Final = math.inf
"""Patience with a namespace that the pod has left: the proxy ends what is steered there when it is told of the new one
(or of the pod's end), by its own drain; the old life cannot send it away."""


def leave(life: Life, ending: State, settings: LifeSettings) -> Step:
    """Take the pod out of the mesh and end in `ending`. A life that nobody looked at counts as one with rules."""
    if life.state is State.LEAVING:
        return replace(life, ending=ending, successor=None), ()
    return _leaving(life, ending, settings.drain_s, settings)


def stop(life: Life, event: Stop, settings: LifeSettings) -> Step:
    """The agent ends now: the same way, without patience for what is still steered to a proxy that can be sent away.
    That leads out what speaks HTTP, for as long as an agent that ends can wait (supervisor.effects.LAST_ANSWERS_S)."""
    return _leaving(life, State.GONE, life.drain_left_s if life.drain_left_s == _UNTIL_CLOSED else 0.0, settings)


def _leaving(life: Life, ending: State, patience_s: float, settings: LifeSettings) -> Step:
    cleared = replace(
        known(life), state=State.LEAVING, ending=ending, reason="", timer=None, proofs=None, successor=None
    )
    if life.looked_at and not life.installed:
        return withdrawn_last(cleared, settings)
    plan = plan_to_leave(life, settings)
    return replace(cleared, installed=True, plan=plan, replaces=None, drain_left_s=patience_s), (Drain(plan),)


def superseded(life: Life, seen: Seen, settings: LifeSettings) -> Step:
    """The sandbox was made anew. The old namespace is drained first, then the new life begins beside the old one's
    end: the uid now belongs to the new namespace, so this life must not withdraw it from the proxy."""
    if life.looked_at and not life.installed:
        return replace(life, state=State.GONE, timer=None, announced=False), (Begin(seen),)
    leaving, actions = _leaving(life, State.GONE, settings.drain_s, settings)
    return replace(leaving, successor=seen), actions


def drained(life: Life, event: Drained, settings: LifeSettings) -> Step:
    life = replace(life, drained=True)
    if life.successor is None:
        return life, (CountSteered(),)
    begun = replace(life, announced=False, successor=None, drain_left_s=_UNTIL_CLOSED)
    return begun, (Begin(life.successor), CountSteered())


def steered_left(life: Life, event: SteeredLeft, settings: LifeSettings) -> Step:
    if event.count == 0:
        return replace(life, reason="", timer=None), (Remove(plan_to_leave(life, settings)),)
    if life.drain_left_s <= 0:
        return _time_is_over(life, settings)
    left = "until the proxy ends them" if life.drain_left_s == _UNTIL_CLOSED else f"{life.drain_left_s:.0f} s left"
    reason = f"{event.count} steered connections are alive, {left}"
    draining = replace(life, reason=reason, drain_left_s=life.drain_left_s - settings.drain_poll_s)
    return wake(draining, Timer.DRAIN, settings.drain_poll_s)


def _time_is_over(life: Life, settings: LifeSettings) -> Step:
    """What is left is closed by the proxy while it is still translated: without rules it would go on in clear."""
    over = replace(life, announced=False, reason="", timer=None)
    return over, (Withdraw() if life.announced else Remove(plan_to_leave(life, settings)),)


def refused(life: Life, event: Refused, settings: LifeSettings) -> Step:
    """Told, and tried again; the proxy keeps serving meanwhile, no longer than the drain may last once it is in force:
    then waiting for a count that is refused again and again helps nobody."""
    if life.drained and life.announced and life.drain_left_s <= 0:
        return _time_is_over(life, settings)
    left_s = life.drain_left_s - settings.retry_s if life.drained else life.drain_left_s
    held = replace(life, reason=f"cannot leave yet: {event.reason}", drain_left_s=max(0.0, left_s))
    return wake(held, Timer.RETRY, settings.retry_s)


def again(life: Life, event: Due, settings: LifeSettings) -> Step:
    """From where it stopped. Never removed before drained: what is steered would go on in clear."""
    if event.timer is not life.timer:
        return life, ()
    rested = replace(life, timer=None)
    if not life.drained:
        return rested, (Drain(plan_to_leave(life, settings)),)
    if event.timer is Timer.RETRY and not life.announced and life.drain_left_s <= 0:
        return rested, (Remove(plan_to_leave(life, settings)),)
    return rested, (CountSteered(),)


def removed(life: Life, event: Removed, settings: LifeSettings) -> Step:
    return withdrawn_last(replace(life, installed=False, drained=False, plan=None), settings)


def withdrawn_last(life: Life, settings: LifeSettings) -> Step:
    """Nothing of ours is in the namespace: the proxy may go too."""
    if life.announced:
        return replace(life, announced=False), (Withdraw(),)
    return _ended(life, settings)


def withdrawn(life: Life, event: Withdrawn, settings: LifeSettings) -> Step:
    if life.installed:
        return life, (Remove(plan_to_leave(life, settings)),)
    return _ended(life, settings)


def _ended(life: Life, settings: LifeSettings) -> Step:
    match life.ending:
        case State.DISABLED:
            reason = life.pod.left_out or "label headgate.io/mesh: disabled"
            return Life(life.pod, life.netns_path, life.netns_id, State.DISABLED, reason, looked_at=True), ()
        case State.FAILED:
            return fail(replace(life, ending=None, complaint=""), life.complaint, settings)
    follow = () if life.successor is None else (Begin(life.successor),)
    return replace(life, state=State.GONE, timer=None, successor=None), follow
