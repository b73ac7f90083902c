"""The kernel no longer holds the plan: put it in force again, whoever serves the pod meanwhile (fail closed)."""

from dataclasses import replace
from typing import Final

from agent.reconcile.entering import UNPROVED
from agent.reconcile.life import (
    Drain,
    Drifted,
    Heal,
    Healed,
    Life,
    LifeSettings,
    Prove,
    ProxyParked,
    Refused,
    State,
    Step,
)
from agent.reconcile.pieces import enter, fail, plan_to_leave

_TOLD_CHANGES: Final = 5
"""What a line of `headgate pods` can hold; the log has them all."""
PARKED: Final = (
    "no proxy has come for longer than --park-timeout: connections of the pod are refused until one does: "
    "is `headgate proxy` running on this node?"
)


def drifted(life: Life, event: Drifted, settings: LifeSettings) -> Step:
    """Healed at once. The drain form is put back as the drain form; what nobody here can name is left as it is."""
    if not life.installed:
        return life, ()
    if life.drained or life.state is State.LEAVING:
        return life, (Drain(plan_to_leave(life, settings)),)
    plan = life.plan_in_force  # a newer one may have been refused: it is asked for again, and not by drift
    if plan is None:
        return life, ()
    return replace(life, state=State.DRIFTED, reason=_told(event), timer=None), (Heal(plan),)


def _told(event: Drifted) -> str:
    more = len(event.changes) - _TOLD_CHANGES
    changes = "; ".join(event.changes[:_TOLD_CHANGES]) + (f"; and {more} more" if more > 0 else "")
    return f"drifted: {changes or 'the rules are not the plan'}" + (f", changed by {event.by}" if event.by else "")


def healed(life: Life, event: Healed, settings: LifeSettings) -> Step:
    """In force again; whether it is served is to be proved. What had failed before is still to be put right, though:
    the plan may be one that the pod no longer asks for."""
    if life.failures or life.replaces is not None:
        return enter(life)
    return replace(life, state=State.INSTALLED, reason=UNPROVED), (Prove(),)


def refused(life: Life, event: Refused, settings: LifeSettings) -> Step:
    """Tried again, less and less often. Rules count as in force: some may be, and they are watched."""
    return fail(life, f"{life.reason}; cannot be put right: {event.reason}", settings)


def proxy_parked(life: Life, event: ProxyParked, settings: LifeSettings) -> Step:
    """Nothing to do: the rules stay and clients fail fast. A pod that nobody serves is proved no more."""
    state = State.INSTALLED if life.state is State.PROVED else life.state
    return replace(life, state=state, reason=PARKED), ()
