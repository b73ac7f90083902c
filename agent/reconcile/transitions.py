"""The transitions of a pod's life.

Actions are performed one after the other by the supervisor, which turns each outcome into the next event; an event
that means nothing in a state changes nothing. Order is the point of this module:

- inspected before announced: a port of ours that is taken, or a foreign namespace, leaves the pod as it was;
- announced before installed: no rule leads a running pod's traffic to a port where nobody listens;
- drained before removed, removed before withdrawn: the proxy keeps its sockets while anything is steered to them,
  unless the drain's time is over: then it closes what is left, before that loses its translation.

`ANYWHERE` says which events are answered in every state, `TABLE` which ones a state answers besides.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from agent.plan import InvalidPlan, build_plan
from agent.pods import wants_mesh
from agent.reconcile.life import (
    Acked,
    Announce,
    Begin,
    CountSteered,
    Drain,
    Drained,
    Due,
    Event,
    Inspect,
    Inspected,
    Install,
    Installed,
    Left,
    Life,
    LifeSettings,
    Nacked,
    NetnsLost,
    NetnsUnfit,
    ProofsTaken,
    Prove,
    ProveNow,
    ProxyAbsent,
    Refused,
    Remove,
    Removed,
    Seen,
    State,
    SteeredLeft,
    Step,
    Stop,
    Timer,
    Wake,
    Withdraw,
    Withdrawn,
)

_OVER: Final = frozenset({State.GONE})
_MOST_DOUBLINGS: Final = 12
"""From a second to more than an hour: longer than any recheck_s of use."""
_NO_PROXY: Final = "no proxy is connected to the agent's zds.sock: is `headgate proxy` running on this node?"


def begin(seen: Seen, settings: LifeSettings) -> Step:
    """A life begins: the pod is looked at, or left alone when its label says so."""
    life = Life(seen.pod, seen.netns_path, seen.netns_id)
    return _enter(life) if wants_mesh(seen.pod) else (_disabled(life), ())


def step(life: Life, event: Event, settings: LifeSettings) -> Step:
    """The one function of this package. Total: any event in any state; GONE is for ever."""
    if life.state in _OVER:
        return life, ()
    handler = ANYWHERE.get(type(event)) or TABLE.get((life.state, type(event)))
    return handler(life, event, settings) if handler else (life, ())


# ── From seen to proved ────────────────────────────────────────────────────────────────────────────────────────────
def _enter(life: Life) -> Step:
    """From the beginning; with rules in force already, they stay until the new ones take their place."""
    fresh = replace(life, state=State.SEEN, reason="", ending=None, successor=None, timer=None)
    return fresh, (Inspect(),)


def _inspected(life: Life, event: Inspected, settings: LifeSettings) -> Step:
    found = event.inspection
    own = life.pod.addresses
    # One of the pod's addresses suffices, as for istio-cni (#61211): IPv6 may not be assigned yet.
    if own and not set(own) & set(found.addresses):
        holds = ", ".join(map(str, found.addresses)) or "none"
        return _fail(
            life,
            f"network namespace {life.netns_path} does not hold the pod's address {', '.join(map(str, own))} "
            f"(it holds: {holds}): correct the pod's `netns` or `addresses`",
            settings,
        )
    if found.conflicts and not life.announced:
        what = "; ".join(map(str, found.conflicts))
        return _fail(life, f"{what}: the proxy must listen there; move the application to another port", settings)
    return _planned(replace(life, state=State.LOCATED), settings)


def _planned(life: Life, settings: LifeSettings) -> Step:
    complaint = ""
    try:
        plan = build_plan(life.pod, settings.plan)
    except InvalidPlan as error:
        if not life.installed or life.plan is None:
            return _fail(life, str(error), settings)
        plan, complaint = life.plan, str(error)  # the last good plan stays in force
    if life.state in (State.INSTALLED, State.PROVED) and plan == life.plan:
        return replace(life, complaint=complaint), () if complaint == life.complaint else (Prove(),)
    return replace(life, state=State.PLANNED, plan=plan, reason="", complaint=complaint), (Announce(),)


def _acked(life: Life, event: Acked, settings: LifeSettings) -> Step:
    if life.plan is None:
        return life, ()
    if life.state in (State.INSTALLED, State.PROVED):  # a proxy came back: is it really serving?
        return replace(life, announced=True), (Prove(),)
    return replace(life, state=State.ANNOUNCED, announced=True, reason="", timer=None), (Install(life.plan),)


def _nacked(life: Life, event: Nacked, settings: LifeSettings) -> Step:
    pending = replace(life, state=State.PENDING, reason=f"the proxy refused the pod: {event.reason}")
    return _wake(pending, Timer.RETRY, settings.retry_s)


def _proxy_absent(life: Life, event: ProxyAbsent, settings: LifeSettings) -> Step:
    return _wake(replace(life, state=State.PENDING, reason=_NO_PROXY), Timer.RETRY, settings.retry_s)


def _installed(life: Life, event: Installed, settings: LifeSettings) -> Step:
    unproved = "redirection is not proved yet"
    return replace(life, state=State.INSTALLED, installed=True, reason=unproved, failures=0), (Prove(),)


def _refused(life: Life, event: Refused, settings: LifeSettings) -> Step:
    """Nothing was applied: the rules that were in force before, if any, still are."""
    if life.announced and not life.installed:
        failed, wake = _fail(replace(life, announced=False), event.reason, settings)
        return failed, (Withdraw(), *wake)
    return _fail(life, event.reason, settings)


def _proofs_taken(life: Life, event: ProofsTaken, settings: LifeSettings) -> Step:
    proofs = event.proofs
    if proofs.hold:
        return _wake(
            replace(life, state=State.PROVED, proofs=proofs, reason=life.complaint), Timer.PROVE, settings.prove_every_s
        )
    why = "; ".join(proofs.failures) or "no proof could be taken in one direction"
    unproved = replace(life, state=State.INSTALLED, proofs=proofs, reason=f"redirection is not proved: {why}")
    return _wake(unproved, Timer.PROVE, settings.prove_again_s)


def _prove(life: Life, event: ProveNow, settings: LifeSettings) -> Step:
    return life, (Prove(),)


# ── Told again, or no longer told ──────────────────────────────────────────────────────────────────────────────────
def _seen(life: Life, event: Seen, settings: LifeSettings) -> Step:
    if event.netns_id != life.netns_id:
        return _superseded(life, event)
    known = replace(life, pod=event.pod, netns_path=event.netns_path, failures=0)
    if not wants_mesh(event.pod):
        return (known, ()) if known.state is State.DISABLED else _leave(known, State.DISABLED, settings)
    if known.state in (State.LEAVING, State.DISABLED, State.FAILED):
        return _enter(known)
    if event.pod != life.pod:
        return _planned(known, settings) if known.installed else _enter(known)
    return known, ()


def _superseded(life: Life, seen: Seen) -> Step:
    """The sandbox was made anew. The old namespace is drained first, then the new life begins beside the old one's
    end: the uid now belongs to the new namespace, so this life must not withdraw it from the proxy."""
    if not life.installed or life.plan is None:
        return replace(life, state=State.GONE, timer=None), (Begin(seen),)
    leaving = replace(life, state=State.LEAVING, ending=State.GONE, successor=seen, timer=None)
    return leaving, (Drain(life.plan),)


def _left(life: Life, event: Left, settings: LifeSettings) -> Step:
    return _leave(life, State.GONE, settings)


def _netns_lost(life: Life, event: NetnsLost, settings: LifeSettings) -> Step:
    """The namespace took its rules along. The source will tell that the pod left, or where it is now."""
    lost = replace(life, installed=False, reason=f"its network namespace is gone: {event.reason}", timer=None)
    if lost.state is State.LEAVING:
        return _withdrawn_last(lost)
    failed, wake = _fail(replace(lost, announced=False), lost.reason, settings)
    return failed, ((Withdraw(), *wake) if life.announced else wake)


def _netns_unfit(life: Life, event: NetnsUnfit, settings: LifeSettings) -> Step:
    return _fail(life, event.reason, settings)


def _stop(life: Life, event: Stop, settings: LifeSettings) -> Step:
    """No drain: the agent ends now."""
    gone = replace(life, state=State.LEAVING, ending=State.GONE, successor=None, timer=None)
    return (gone, (Remove(life.plan),)) if life.installed and life.plan else _withdrawn_last(gone)


# ── Leaving ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _leave(life: Life, ending: State, settings: LifeSettings) -> Step:
    if life.state is State.LEAVING:
        return replace(life, ending=ending), ()
    leaving = replace(life, state=State.LEAVING, ending=ending, reason="", timer=None, proofs=None)
    if not life.installed or life.plan is None:
        return _withdrawn_last(leaving)
    return replace(leaving, drain_left_s=settings.drain_s), (Drain(life.plan),)


def _drained(life: Life, event: Drained, settings: LifeSettings) -> Step:
    if life.successor is not None:
        begun = replace(life, announced=False, successor=None, drain_left_s=settings.drain_s)
        return begun, (Begin(life.successor), CountSteered())
    return life, (CountSteered(),)


def _steered_left(life: Life, event: SteeredLeft, settings: LifeSettings) -> Step:
    if life.plan is not None and event.count == 0:
        return replace(life, reason="", timer=None), (Remove(life.plan),)
    if life.plan is not None and life.drain_left_s <= 0:
        # What is left is closed by the proxy while it is still translated: without rules it would go on in clear.
        over = replace(life, announced=False, reason="", timer=None)
        return over, (Withdraw(),) if life.announced else (Remove(life.plan),)
    draining = replace(
        life,
        reason=f"{event.count} steered connections are alive, {life.drain_left_s:.0f} s left",
        drain_left_s=life.drain_left_s - settings.drain_poll_s,
    )
    return _wake(draining, Timer.DRAIN, settings.drain_poll_s)


def _leaving_refused(life: Life, event: Refused, settings: LifeSettings) -> Step:
    """Rules that cannot be removed are told and tried again; the proxy keeps serving meanwhile."""
    held = replace(life, reason=f"cannot leave yet: {event.reason}", drain_left_s=0.0)
    return _wake(held, Timer.RETRY, settings.retry_s)


def _leave_again(life: Life, event: Due, settings: LifeSettings) -> Step:
    if event.timer is not life.timer or life.plan is None:
        return life, ()
    if event.timer is Timer.DRAIN:
        return replace(life, timer=None), (CountSteered(),)
    return replace(life, timer=None), (Remove(life.plan),)


def _removed(life: Life, event: Removed, settings: LifeSettings) -> Step:
    return _withdrawn_last(replace(life, installed=False, plan=None))


def _withdrawn_last(life: Life) -> Step:
    if life.announced:
        return replace(life, announced=False), (Withdraw(),)
    return _ended(life)


def _withdrawn(life: Life, event: Withdrawn, settings: LifeSettings) -> Step:
    if life.installed and life.plan is not None:
        return life, (Remove(life.plan),)
    return _ended(life)


def _ended(life: Life) -> Step:
    follow = () if life.successor is None else (Begin(life.successor),)
    if life.ending is State.DISABLED:
        return _disabled(life), follow
    return replace(life, state=State.GONE, timer=None, successor=None), follow


# ── Pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _disabled(life: Life) -> Life:
    return Life(life.pod, life.netns_path, life.netns_id, State.DISABLED, "label headgate.io/mesh: disabled")


def _fail(life: Life, reason: str, settings: LifeSettings) -> Step:
    """What was wrong may be put right in the namespace without anybody telling: look again later."""
    after_s = min(settings.recheck_s, settings.first_recheck_s * 2 ** min(life.failures, _MOST_DOUBLINGS))
    failed = replace(life, state=State.FAILED, reason=reason, failures=life.failures + 1)
    return _wake(failed, Timer.RECHECK, after_s)


def _wake(life: Life, timer: Timer, after_s: float) -> Step:
    return replace(life, timer=timer), (Wake(timer, after_s),)


def _due(life: Life, event: Due, settings: LifeSettings) -> Step:
    if event.timer is not life.timer:  # set in an earlier state
        return life, ()
    rested = replace(life, timer=None)
    match event.timer:
        case Timer.RETRY:
            return rested, (Announce(),)
        case Timer.RECHECK:
            return _enter(rested)
        case _:
            return rested, (Prove(),)


Handler = Callable[[Life, Any, LifeSettings], Step]  # Any: the tables' keys say which event a handler takes

ANYWHERE: Final[Mapping[type, Handler]] = {
    Seen: _seen,
    Left: _left,
    Stop: _stop,
    NetnsLost: _netns_lost,
}

TABLE: Final[Mapping[tuple[State, type], Handler]] = {
    (State.SEEN, Inspected): _inspected,
    (State.SEEN, NetnsUnfit): _netns_unfit,
    (State.SEEN, Refused): _refused,
    (State.PLANNED, Acked): _acked,
    (State.PLANNED, Nacked): _nacked,
    (State.PLANNED, ProxyAbsent): _proxy_absent,
    (State.PENDING, Acked): _acked,
    (State.PENDING, Nacked): _nacked,
    (State.PENDING, ProxyAbsent): _proxy_absent,
    (State.PENDING, Due): _due,
    (State.ANNOUNCED, Installed): _installed,
    (State.ANNOUNCED, Refused): _refused,
    (State.INSTALLED, ProofsTaken): _proofs_taken,
    (State.INSTALLED, ProveNow): _prove,
    (State.INSTALLED, Acked): _acked,
    (State.INSTALLED, Nacked): _nacked,
    (State.INSTALLED, Due): _due,
    (State.PROVED, ProofsTaken): _proofs_taken,
    (State.PROVED, ProveNow): _prove,
    (State.PROVED, Acked): _acked,
    (State.PROVED, Nacked): _nacked,
    (State.PROVED, Due): _due,
    (State.FAILED, Due): _due,
    (State.LEAVING, Drained): _drained,
    (State.LEAVING, SteeredLeft): _steered_left,
    (State.LEAVING, Removed): _removed,
    (State.LEAVING, Refused): _leaving_refused,
    (State.LEAVING, Withdrawn): _withdrawn,
    (State.LEAVING, Due): _leave_again,
}
