"""A pod's way in: inspected before announced, announced before installed, installed before proved.

What a former agent left in force is taken over: it stays as it is where it equals the plan, and it captures until the
plan takes its place, also while no proxy is there (fail closed).
"""

from dataclasses import replace
from typing import Final

from agent.plan import InvalidPlan, RedirectPlan, build_plan
from agent.pods import wants_mesh
from agent.reconcile.leaving import leave
from agent.reconcile.life import (
    Acked,
    Announce,
    Held,
    Inspected,
    Inspection,
    Install,
    Installed,
    Life,
    LifeSettings,
    Nacked,
    ProofsTaken,
    ProofsWait,
    Prove,
    ProveNow,
    ProxyAbsent,
    Refused,
    State,
    Step,
    Timer,
)
from agent.reconcile.pieces import fail, fail_unenrolled, looked, wake

UNPROVED: Final = "redirection is not proved yet"
AWAITS_POLICY: Final = "the proxy waits for its policy: connections of the pod, and its proofs, wait for that"
NO_PROXY: Final = "no proxy is connected to the agent's zds.sock: is `headgate proxy` running on this node?"


def inspected(life: Life, event: Inspected, settings: LifeSettings) -> Step:
    found = event.inspection
    seen = looked(life, found.held)
    if life.ending is State.GONE:
        return leave(seen, State.GONE, settings)
    if not wants_mesh(life.pod):
        return leave(seen, State.DISABLED, settings)
    misfit = _misfit(life, found)
    if misfit:
        return _unfit(seen, misfit, settings)
    enrolled = life.installed or found.held is Held.RULES
    return planned(replace(seen, state=State.LOCATED), settings, enrolled=enrolled)


def _misfit(life: Life, found: Inspection) -> str:
    """Why this pod cannot be enrolled in this namespace; empty when it can."""
    own = life.pod.addresses
    # One of the pod's addresses suffices, as for istio-cni (#61211): IPv6 may not be assigned yet.
    if own and not set(own) & set(found.addresses):
        holds = ", ".join(map(str, found.addresses)) or "none"
        return (
            f"network namespace {life.netns_path} does not hold the pod's address {', '.join(map(str, own))} "
            f"(it holds: {holds}): correct the pod's `netns` or `addresses`"
        )
    if found.held is Held.SIDECARS and not life.installed:
        return (
            "it holds the rules of `headgate init`, for a proxy of its own: take the init container away, or label it "
            "headgate.io/mesh: disabled"
        )
    # Where rules are in force already, the proxy's answer decides: to take them away would be to fail open.
    if found.conflicts and not life.announced and found.held is not Held.RULES:
        what = "; ".join(map(str, found.conflicts))
        return f"{what}: the proxy must listen there; move the application to another port"
    return ""


def _unfit(life: Life, reason: str, settings: LifeSettings) -> Step:
    """What a former agent left in force there is taken out first: nobody may serve it."""
    if life.installed:
        return leave(replace(life, complaint=reason), State.FAILED, settings)
    return fail_unenrolled(life, reason, settings)


def planned(life: Life, settings: LifeSettings, *, enrolled: bool) -> Step:
    """`enrolled`: the pod's traffic was led to the proxy before, so its last good plan is worth keeping."""
    complaint = ""
    plan: RedirectPlan | None = None
    try:
        plan = build_plan(life.pod, settings.plan)
    except InvalidPlan as error:
        complaint = str(error)
        if enrolled and life.plan is not None:
            plan = life.plan  # the last good plan stays in force
        elif not life.capturing:
            return _unfit(life, complaint, settings)
    if life.state in (State.INSTALLED, State.PROVED) and plan is not None and plan == life.plan:
        return replace(life, complaint=complaint), () if complaint == life.complaint else (Prove(),)
    # Without a plan a former agent's rules are in force, which nobody here can name: they stay, and they are served.
    # From here on a proxy may serve it, also one that hears of it by its snapshot before the answer is there.
    told = replace(life, state=State.PLANNED, plan=plan, announced=True, reason="", complaint=complaint, timer=None)
    in_force = life.plan_in_force if life.capturing else None
    return replace(told, replaces=None if in_force == plan else in_force), (Announce(),)


def acked(life: Life, event: Acked, settings: LifeSettings) -> Step:
    if life.plan is None:
        return fail(life, life.complaint, settings)
    if life.state in (State.INSTALLED, State.PROVED):  # a proxy came back: is it really serving?
        return replace(life, timer=None if life.timer is Timer.RETRY else life.timer), (Prove(),)
    if life.timer is not None:  # no answer to an announcement: of a snapshot, and as old as the wait for its turn
        return replace(life, timer=None), (Announce(),)
    return replace(life, state=State.ANNOUNCED, reason="", timer=None), (Install(life.plan, life.replaces),)


def nacked(life: Life, event: Nacked, settings: LifeSettings) -> Step:
    return _unserved(life, State.PENDING, f"the proxy refused the pod: {event.reason}", settings)


def proxy_absent(life: Life, event: ProxyAbsent, settings: LifeSettings) -> Step:
    return _unserved(life, State.INSTALLED if life.capturing else State.PENDING, NO_PROXY, settings)


def _unserved(life: Life, state: State, reason: str, settings: LifeSettings) -> Step:
    """Rules of before are put in order without a proxy too: refused connections beat connections past the mesh."""
    in_order: tuple[Install, ...] = ()
    if life.state is State.PLANNED and life.capturing and life.plan is not None:
        in_order = (Install(life.plan, life.replaces),)
    told = f"{reason}; {life.complaint}" if life.complaint else reason
    waiting, actions = wake(replace(life, state=state, reason=told), Timer.RETRY, settings.retry_s)
    return waiting, (*in_order, *actions)


def put_in_order(life: Life, event: Installed, settings: LifeSettings) -> Step:
    """The plan is in force; nobody serves it yet."""
    return replace(life, replaces=None), ()


def installed(life: Life, event: Installed, settings: LifeSettings) -> Step:
    in_force = replace(life, state=State.INSTALLED, installed=True, drained=False, reason=UNPROVED, failures=0)
    return replace(in_force, replaces=None), (Prove(),)


def refused(life: Life, event: Refused, settings: LifeSettings) -> Step:
    """Nothing was applied: the rules that were in force before, if any, still are."""
    if life.looked_at and not life.installed:
        return fail_unenrolled(life, event.reason, settings)
    return fail(life, event.reason, settings)


def proofs_taken(life: Life, event: ProofsTaken, settings: LifeSettings) -> Step:
    proofs = event.proofs
    if proofs.hold:
        proved = replace(life, state=State.PROVED, proofs=proofs, reason=life.complaint)
        return wake(proved, Timer.PROVE, settings.prove_every_s)
    why = "; ".join(proofs.failures) or "no proof could be taken in one direction"
    unproved = replace(life, state=State.INSTALLED, proofs=proofs, reason=f"redirection is not proved: {why}")
    return wake(unproved, Timer.PROVE, settings.prove_again_s)


def proofs_wait(life: Life, event: ProofsWait, settings: LifeSettings) -> Step:
    """Served, and answered by nobody. The next proofs are under way: a timer for them would begin the wait anew."""
    timer = None if life.timer is Timer.PROVE else life.timer
    return replace(life, state=State.INSTALLED, proofs=None, reason=AWAITS_POLICY, timer=timer), ()


def prove(life: Life, event: ProveNow, settings: LifeSettings) -> Step:
    return life, (Prove(),)
