"""The transitions of a pod's life.

Actions are performed one after the other by the supervisor, which turns each outcome into the next event; an event
that means nothing in a state changes nothing. Order is the point of this package:

- looked at before anything: what a former agent left in force is taken over, or taken out;
- inspected before announced: a port of ours that is taken, or a foreign namespace, leaves the pod as it was;
- announced before installed: no rule leads a running pod's traffic to a port where nobody listens;
- drained before removed, removed before withdrawn: nothing that was steered goes on in clear.

`ANYWHERE` says which events are answered in every state, `TABLE` which ones a state answers besides.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agent.pods import wants_mesh
from agent.reconcile import drift, entering, leaving
from agent.reconcile.leaving import leave, superseded
from agent.reconcile.life import (
    Acked,
    Announce,
    Drained,
    Drifted,
    Due,
    Event,
    Healed,
    Inspected,
    Installed,
    Left,
    Life,
    LifeSettings,
    Nacked,
    NetnsLost,
    NetnsUnfit,
    ProofsTaken,
    ProofsWait,
    Prove,
    ProveNow,
    ProxyAbsent,
    ProxyParked,
    Refused,
    Removed,
    Seen,
    State,
    SteeredLeft,
    Step,
    Stop,
    Timer,
    Withdrawn,
)
from agent.reconcile.pieces import Handler, enter, fail_unenrolled, known

_OVER: Final = frozenset({State.GONE})


def begin(seen: Seen, settings: LifeSettings) -> Step:
    """A life begins: the pod is looked at, whatever its label says, for what a former agent may have left in force."""
    return enter(Life(seen.pod, seen.netns_path, seen.netns_id))


def step(life: Life, event: Event, settings: LifeSettings) -> Step:
    """The one function of this package. Total: any event in any state; GONE is for ever."""
    if life.state in _OVER:
        return life, ()
    handler = ANYWHERE.get(type(event)) or TABLE.get((life.state, type(event)))
    return handler(life, event, settings) if handler else (life, ())


# ── Told again, or no longer told ──────────────────────────────────────────────────────────────────────────────────
def _seen(life: Life, event: Seen, settings: LifeSettings) -> Step:
    if event.netns_id != life.netns_id:
        return superseded(life, event, settings)
    told = replace(life, pod=event.pod, netns_path=event.netns_path, failures=0)
    if not told.looked_at:
        return enter(told)
    if not wants_mesh(event.pod):
        return (told, ()) if told.state is State.DISABLED else leave(told, State.DISABLED, settings)
    if told.state in (State.LEAVING, State.DISABLED, State.FAILED):
        return enter(told)
    if event.pod != life.pod:
        return entering.planned(told, settings, enrolled=True) if told.capturing else enter(told)
    return told, ()


def _left(life: Life, event: Left, settings: LifeSettings) -> Step:
    return leave(life, State.GONE, settings) if life.looked_at else enter(life, State.GONE)


def _netns_lost(life: Life, event: NetnsLost, settings: LifeSettings) -> Step:
    return _homeless(life, f"its network namespace is gone: {event.reason}", settings)


def _netns_unfit(life: Life, event: NetnsUnfit, settings: LifeSettings) -> Step:
    return _homeless(life, event.reason, settings)


def _homeless(life: Life, reason: str, settings: LifeSettings) -> Step:
    """The namespace took its rules along. The source will tell that the pod left, or where it is now."""
    if life.state is State.DISABLED:
        return life, ()
    lost = replace(known(life), installed=False, drained=False, replaces=None, reason=reason, timer=None)
    if life.state is State.LEAVING and life.ending is not State.FAILED:
        return leaving.withdrawn_last(lost, settings)
    if life.ending is State.GONE:
        return leave(lost, State.GONE, settings)
    return fail_unenrolled(replace(lost, ending=None, successor=None), reason, settings)


# ── Time ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _due(life: Life, event: Due, settings: LifeSettings) -> Step:
    if event.timer is not life.timer:  # set in an earlier state
        return life, ()
    rested = replace(life, timer=None)
    if event.timer is Timer.RECHECK:
        return enter(rested, life.ending)
    if event.timer is Timer.PROVE and life.state is State.PROVED:
        return rested, (Prove(),)
    # Unproved, the proxy may never have heard of the pod, or have lost it: it is told again before it is tested.
    return rested, (Announce(),)


ANYWHERE: Final[Mapping[type, Handler]] = {
    Seen: _seen,
    Left: _left,
    Stop: leaving.stop,
    NetnsLost: _netns_lost,
}

TABLE: Final[Mapping[tuple[State, type], Handler]] = {
    (State.SEEN, Inspected): entering.inspected,
    (State.SEEN, NetnsUnfit): _netns_unfit,
    (State.SEEN, Refused): entering.refused,
    (State.PLANNED, Acked): entering.acked,
    (State.PLANNED, Nacked): entering.nacked,
    (State.PLANNED, ProxyAbsent): entering.proxy_absent,
    (State.PLANNED, Refused): entering.refused,
    (State.PENDING, Acked): entering.acked,
    (State.PENDING, Nacked): entering.nacked,
    (State.PENDING, ProxyAbsent): entering.proxy_absent,
    (State.PENDING, Installed): entering.put_in_order,
    (State.PENDING, Refused): entering.refused,
    (State.PENDING, Due): _due,
    (State.PENDING, Drifted): drift.drifted,
    (State.PENDING, ProxyParked): drift.proxy_parked,
    (State.ANNOUNCED, Installed): entering.installed,
    (State.ANNOUNCED, Refused): entering.refused,
    (State.INSTALLED, Acked): entering.acked,
    (State.INSTALLED, Nacked): entering.nacked,
    (State.INSTALLED, ProxyAbsent): entering.proxy_absent,
    (State.INSTALLED, Installed): entering.put_in_order,
    (State.INSTALLED, Refused): entering.refused,
    (State.INSTALLED, ProofsWait): entering.proofs_wait,
    (State.INSTALLED, ProofsTaken): entering.proofs_taken,
    (State.INSTALLED, ProveNow): entering.prove,
    (State.INSTALLED, Due): _due,
    (State.INSTALLED, Drifted): drift.drifted,
    (State.INSTALLED, ProxyParked): drift.proxy_parked,
    (State.PROVED, Acked): entering.acked,
    (State.PROVED, Nacked): entering.nacked,
    (State.PROVED, ProofsWait): entering.proofs_wait,
    (State.PROVED, ProofsTaken): entering.proofs_taken,
    (State.PROVED, ProveNow): entering.prove,
    (State.PROVED, Due): _due,
    (State.PROVED, Drifted): drift.drifted,
    (State.PROVED, ProxyParked): drift.proxy_parked,
    (State.DRIFTED, Healed): drift.healed,
    (State.DRIFTED, Refused): drift.refused,
    (State.DRIFTED, Drifted): drift.drifted,
    (State.FAILED, Due): _due,
    (State.FAILED, Drifted): drift.drifted,
    (State.LEAVING, Drained): leaving.drained,
    (State.LEAVING, SteeredLeft): leaving.steered_left,
    (State.LEAVING, Removed): leaving.removed,
    (State.LEAVING, Refused): leaving.refused,
    (State.LEAVING, Withdrawn): leaving.withdrawn,
    (State.LEAVING, Due): leaving.again,
    (State.LEAVING, Drifted): drift.drifted,
}
