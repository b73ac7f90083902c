"""Whether the rules are in force and do what they are for, and what goes past them. Pure."""

import shlex
from typing import Final

from agent.why.facts import Difference, Facts, Led, Netns, Ours, Pod, Proved, Table, Unknown
from agent.why.verdict import Result, Step, Verdict, failed, headgate, passed, skipped, unknown

_TAKEN: Final = frozenset({"accept", "redirect", "dnat", "tproxy"})
"""Fates of a connection that goes on: with the wrong end, somebody else has taken it before us."""
_LOST: Final = frozenset({"drop", "reject"})
_TOLD: Final = 5
_PAST: Final = "connections of the pod go past the mesh, or into nowhere"


# ── rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def rules(facts: Facts, before: tuple[Verdict, ...]) -> Verdict:
    """`before`: of the steps up to here."""
    place = facts.netns if isinstance(facts.netns, Netns) else None
    found_full = facts.pod is not None and facts.pod.conntrack_full
    if place is not None and isinstance(place.conntrack, Table) and (place.conntrack.full or found_full):
        return _full(place, place.conntrack)
    if facts.pod is None:
        return _by_looks(facts, place)
    return (
        _not_made(facts, facts.pod, before)
        or _differ(facts, facts.pod.difference, facts.pod)
        or _taken_before(facts, place)
        or _in_force(facts, facts.pod, place)
    )


def _full(place: Netns, table: Table) -> Verdict:
    enter = f"nsenter --net={shlex.quote(place.path)}"
    return failed(
        Step.RULES,
        f"the conntrack table of the namespace is full: {table.entries} of {table.limit} entries",
        "a connection that finds no room there is dropped: it is neither steered nor let through",
        "close some of the pod's connections, or raise net.netfilter.nf_conntrack_max on the node",
        f"{enter} conntrack -C",
        f"sysctl -w net.netfilter.nf_conntrack_max={2 * table.limit}",
    )


def _not_made(facts: Facts, told: Pod, before: tuple[Verdict, ...]) -> Verdict | None:
    if told.installed:
        return None
    if any(verdict.result is Result.FAILED for verdict in before):
        return skipped(Step.RULES, "none is made before the steps above hold")
    return failed(
        Step.RULES,
        f"no rule of ours is in force: the pod is {told.state}" + (f": {told.reason}" if told.reason else ""),
        "nothing of the pod is led to the proxy",
        "the agent tries again by itself, within a minute; its log has every attempt",
        headgate(f"events {told.name}", facts.run_dir),
    )


def _differ(facts: Facts, difference: Difference | Unknown, told: Pod) -> Verdict | None:
    if isinstance(difference, Unknown):
        return None
    if not difference.changes:
        return None
    more = len(difference.changes) - _TOLD
    found = "; ".join(difference.changes[:_TOLD]) + (f"; and {more} more" if more > 0 else "")
    who = f"; seen last: {told.last_drift}" if told.last_drift else ""
    return failed(
        Step.RULES,
        f"the kernel holds something else than planned: {found}{who}",
        _PAST,
        "the agent heals it within a second; if it comes back each time, stop who takes it away",
        headgate(f"rules diff {told.name} --fix", facts.run_dir),
        headgate(f"events {told.name}", facts.run_dir),
    )


def _taken_before(facts: Facts, place: Netns | None) -> Verdict | None:
    """By the rules as they are: who leads the pod's connections elsewhere."""
    led = place.led if place is not None and not isinstance(place.led, Unknown) else ()
    # What a rule of ours lets pass, the pod wishes so.
    taken = [one for one in led if one.verdict in _TAKEN and one.port != one.wanted and not one.ours]
    wrong = [one for one in taken if not _is_exempt(facts, one)]
    if not wrong or place is None:
        return None
    first = wrong[0]
    ends = f"ends at port {first.port}" if first.port is not None else "goes on as it was"
    by = f" by {first.by}" if first.by else ", because no rule takes it"
    return failed(
        Step.RULES,
        f"{first.asked} is not led to port {first.wanted} but {ends}{by}",
        "who decides first is obeyed: rules of ours that come later are not asked" if first.by else _PAST,
        "take that rule away, or let it leave the pod's connections alone" if first.by else "have the rules put back",
        *((first.undo,) if first.undo else ()),
        _explained(place, first),
    )


def _explained(place: Netns, one: Led) -> str:
    """The command that shows all of its way."""
    return f"headgate rules explain --netns {shlex.quote(place.path)} {one.options}"


def _is_exempt(facts: Facts, one: Led) -> bool:
    """What the pod wishes to go direct is not taken from anybody."""
    proofs = facts.pod.proofs if facts.pod is not None else ()
    known = () if isinstance(proofs, Unknown) else proofs
    return any(proof.name == one.name and proof.result in ("exempt", "absent", "ok") for proof in known)


def _in_force(facts: Facts, told: Pod, place: Netns | None) -> Verdict:
    notes: list[str] = list(place.conflicts) if place is not None else []
    difference = told.difference
    if told.drained:
        found = "in the form that captures nothing: the pod is leaving, or waits for a proxy"
        return failed(Step.RULES, found, "nothing new is led to the proxy", "see the pod's state and its reason")
    if isinstance(difference, Unknown):
        return unknown(Step.RULES, f"not compared: {difference.reason}")
    notes += [f"others' rules may interfere: {chain}" for chain in difference.foreign]
    if told.drifts:
        notes.append(f"found changed {told.drifts} times and healed; last: {told.last_drift}")
    return passed(Step.RULES, "in force as planned, with the way back", *notes[:_TOLD])


# ── Without the agent's word ───────────────────────────────────────────────────────────────────────────────────────
def _by_looks(facts: Facts, place: Netns | None) -> Verdict:
    if place is None:
        return skipped(Step.RULES, "neither the agent nor the namespace could be asked")
    held = place.ours
    if isinstance(held, Unknown):
        return unknown(Step.RULES, f"cannot be read: {held.reason}")
    if held.nothing:
        return _none(facts, place)
    return _damaged(place, held) or _taken_before(facts, place) or _looks_whole(place, held)


def _none(facts: Facts, place: Netns) -> Verdict:
    return failed(
        Step.RULES,
        f"no rule of ours is in {place.path}",
        "nothing of the pod is led to a proxy: it is not in the mesh",
        "enrol it by an agent of this node, or install rules for a sidecar with `headgate init`",
        headgate("agent", facts.run_dir),
    )


def _damaged(place: Netns, held: Ours) -> Verdict | None:
    wrong = [] if held.steers else ["the rules that lead to the proxy are gone"]
    wrong += held.missing
    if not wrong:
        return None
    return failed(
        Step.RULES,
        f"the kernel holds but a part of ours: {'; '.join(wrong)}",
        _PAST,
        "start the agent: it puts them back at once; without one, for a pod without annotations:",
        f"headgate rules diff --netns {shlex.quote(place.path)} --identity mark --fix",
    )


def _looks_whole(place: Netns, held: Ours) -> Verdict:
    found = f"rules of {' and '.join(held.backends)} are there, with the way back"
    return passed(Step.RULES, f"{found}; whether they are as planned only the agent knows", *place.conflicts[:_TOLD])


# ── proofs ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def proofs(facts: Facts, before: Verdict) -> Verdict:
    """`before`: of the step `rules`."""
    told = facts.pod
    if told is None:
        return skipped(Step.PROOFS, "only the agent takes them, of a pod that it knows")
    if not told.installed:
        return skipped(Step.PROOFS, "without rules there is nothing to prove")
    if isinstance(told.proofs, Unknown):
        return unknown(Step.PROOFS, told.proofs.reason)
    wrong = [proof for proof in told.proofs if proof.result == "failed"]
    if wrong:
        return _unproved(facts, told, wrong)
    if (unmade := _no_direction(told.proofs)) is not None:
        return unmade
    return passed(Step.PROOFS, ", ".join(_told(proof) for proof in told.proofs))


def _told(proof: Proved) -> str:
    return f"{proof.name} {proof.result}" + (f" ({proof.reason})" if proof.reason else "")


def _no_direction(taken: tuple[Proved, ...]) -> Verdict | None:
    """As agent.pods.proofs: absence alone proves nothing."""
    settled = {proof.name[:-1] for proof in taken if proof.result in ("ok", "exempt")}
    unmade = sorted({proof.name[:-1] for proof in taken} - settled)
    if not unmade:
        return None
    return failed(
        Step.PROOFS,
        f"no proof could be taken {' and '.join(f'{one}bound' for one in unmade)}: {', '.join(map(_told, taken))}",
        "what cannot be tried is not known to work",
        "give the pod an address and a route of one family at least",
    )


def _unproved(facts: Facts, told: Pod, wrong: list[Proved]) -> Verdict:
    found = "; ".join(f"{proof.name}: {proof.reason}" for proof in wrong)
    culprit = _culprit(facts, {proof.name for proof in wrong})
    why = "a connection as an application makes it did not reach the proxy: traffic of the pod fails, or goes past it"
    if culprit is not None and isinstance(facts.netns, Netns):
        lost = f"{culprit.by} loses it ({culprit.verdict})"
        undo = (culprit.undo,) if culprit.undo else ()
        remedy = "take that rule away, or let it spare what is led to the proxy's ports"
        return failed(Step.PROOFS, f"{found}; {lost}", why, remedy, *undo, _explained(facts.netns, culprit))
    return failed(
        Step.PROOFS,
        found,
        why,
        "see what becomes of such a packet, rule by rule",
        headgate(f"rules trace {told.name} --for 10s", facts.run_dir),
        headgate(f"rules verify {told.name}", facts.run_dir),
    )


def _culprit(facts: Facts, names: set[str]) -> Led | None:
    led = facts.netns.led if isinstance(facts.netns, Netns) else ()
    if isinstance(led, Unknown):
        return None
    return next((one for one in led if one.name in names and one.verdict in _LOST and one.by), None)


# ── outside ────────────────────────────────────────────────────────────────────────────────────────────────────────
def outside(facts: Facts) -> Verdict:
    """Never a failure: enrolling cuts nothing, so what is older goes on as it was."""
    told = facts.pod
    if told is None or not told.installed:
        return skipped(Step.OUTSIDE, "nothing is steered" if told is not None else "only the agent knows")
    known = told.outside
    if not known.count:
        return passed(Step.OUTSIDE, "no connection lives outside the mesh that would be steered now")
    kinds = ((known.grandfathered, "older than the rules"), (known.drift, "opened while rules were missing"))
    parts = [f"{count} {what}" for count, what in (*kinds, (known.rules_changed, "left alone by the rules before"))]
    found = f"{known.count} connections live outside the mesh: {', '.join(p for p in parts if not p.startswith('0 '))}"
    notes = [f"{'; '.join(known.named)}{' …' if known.count > len(known.named) else ''}"] if known.named else []
    notes.append(f"they end in their own time; all of them: {headgate(f'conn {told.name} --unsteered', facts.run_dir)}")
    return passed(Step.OUTSIDE, found, *notes)
