"""What is done inside a pod's network namespace, one function a visit. Blocking; run by NetnsThreads.

All raise KernelRefused when the kernel refuses, OSError when a netlink socket cannot be had; nothing is half-applied.
"""

import itertools
import socket
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kernel import backends, conntrack, held, iproute, nft, nft_replay, outside, sock_diag, socket_owners
from agent.kernel.backends import Backend
from agent.kernel.held import Found
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.plan import (
    FlowKey,
    OnUnsteered,
    PlanSettings,
    RedirectPlan,
    drain_rule_ids,
)
from agent.plan.drift import Form
from agent.plan.forgotten import DROP_RULE_IDS
from agent.plan.render.nft import (
    ANCHOR_TABLE,
    TABLE,
    drain_script,
    forget_script,
    grandfather_script,
    install_script,
    remove_script,
    set_names,
)
from agent.plan.rules import Capture, Protocol
from agent.reconcile.life import Held, Inspection, PortConflict
from agent.supervisor import holding, left_alone, unsteered
from agent.supervisor.holding import TABLES
from agent.supervisor.unsteered import Unsteered

_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h
_RETURN_PATH_PARTS: Final = 2  # a rule and a route a family


@dataclass(frozen=True, slots=True)
class Applied:
    """How the plan came into force: seconds it took, and the connections that live on outside the mesh.

    `changed` False: it was in force already, and nothing was touched. `slipped`: connections that were found to have
    gone past the mesh while rules were missing; `replanned`: those that the rules before left alone; `ended`: those
    that were reset for being outside; `cut`: steered connections that lost one of their sockets, and with it their
    translation, through the rules' absence. `counting_s`: what it took to find these, after the plan was in force.
    """

    seconds: float
    unsteered: Unsteered
    changed: bool = True
    slipped: frozenset[FlowKey] = frozenset()
    replanned: frozenset[FlowKey] = frozenset()
    ended: frozenset[FlowKey] = frozenset()
    cut: int = 0
    counting_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LookedAfter:
    """What a visit each minute finds."""

    unsteered: Unsteered
    forgotten: tuple[RuleCounter, ...]
    table: conntrack.Table


def inspect(
    settings: PlanSettings, proc: Path = Path("/proc"), held_here: Callable[[PlanSettings], Held] | None = None
) -> Inspection:
    """Addresses, who listens on the proxy's ports (named by the node's `proc`), and what a former agent left in force
    (`held_here`: as another backend finds it). The proxy's own listeners carry its mark: after a restart of the agent
    they are there already, and are no conflict."""
    ours = (settings.outbound_port, settings.inbound_port, settings.tunnel_port)
    conflicts = []
    for listener in sock_diag.listeners():
        if listener.port in ours and (listener.mark or 0) & settings.mark_mask != settings.proxy_mark:
            owner = socket_owners.owner_of(listener, proc)
            conflicts.append(PortConflict(listener.port, owner.pid if owner else 0, owner.command if owner else ""))
    left = (held_here or _held)(settings)
    return Inspection(iproute.read_addresses(), tuple(dict.fromkeys(conflicts)), left, _netns_cookie())


def _netns_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])


def _held(settings: PlanSettings) -> Held:
    if not nft.tables() & TABLES:
        others = holding.others()
        if others:
            return Held.SIDECARS if holding.for_a_sidecar(others) else Held.RULES
        return held_beside_rules(settings)
    if holding.for_a_sidecar((Backend.NFTABLES,)):
        return Held.SIDECARS
    return Held.DRAIN_FORM if _drains(drain_rule_ids(settings)) else Held.RULES


def held_beside_rules(settings: PlanSettings) -> Held:
    """Of a namespace that holds no rule of ours."""
    path = settings.return_path
    missing = len(iproute.missing_return_path(path))
    # Of IPv6, nothing is missing where it is off: what then is not missing is not there either.
    absent = (_RETURN_PATH_PARTS, _RETURN_PATH_PARTS * len(path.families))
    return Held.NOTHING if missing in absent else Held.RULES


def _drains(rule_ids: Collection[str]) -> bool:
    """The table holds rules of the drain form and nothing that only the steering form has."""
    rules = {counter.rule_id for counter in nft.list_counters(TABLE)}
    return bool(rules) and rules <= set(rule_ids) and all(nft.connections(name) is None for name in set_names())


# ── Into force ─────────────────────────────────────────────────────────────────────────────────────────────────────
def install(
    plan: RedirectPlan,
    settings: PlanSettings,
    on_unsteered: OnUnsteered = OnUnsteered.REPORT,
    replaces: RedirectPlan | None = None,
) -> Applied:
    """Put the plan in force; a namespace that holds it already is left alone, counters, handles, sets and all.
    `replaces`: what was in force until now, if that is known."""
    began = time.perf_counter()
    if not nft.tables() & TABLES:
        try:
            return _install_fresh(plan, settings, on_unsteered, began)
        except KernelRefused:
            if not nft.tables() & TABLES:  # else somebody else installs at this moment
                raise
    return restore(plan, settings, Unsteered(), on_unsteered, began, replaces)


def enrol(
    plan: RedirectPlan,
    settings: PlanSettings,
    on_unsteered: OnUnsteered = OnUnsteered.REPORT,
    replaces: RedirectPlan | None = None,
) -> Applied:
    """As `install`, and takes away what an agent with another backend left there; unless queries would be led to where
    nobody answers."""
    refuse_deaf(plan)
    applied = install(plan, settings, on_unsteered, replaces)
    for other in holding.others() if applied.changed else ():
        backends.remove_rules(other)
    return applied


def refuse_deaf(plan: RedirectPlan) -> None:
    """Not every proxy serves DNS, and a pod without names is a broken one."""
    queried = {rule.port for rule in plan.rules if isinstance(rule, Capture) and rule.protocol is Protocol.UDP}
    if queried and (deaf := queried - sock_diag.datagram_ports()):
        raise KernelRefused(
            f"leading DNS queries to port {min(deaf)}",
            "no socket of the pod's namespace receives there: the proxy serves no DNS",
            "take the annotation dns-capture away, or run a proxy that does",
        )


def _install_fresh(plan: RedirectPlan, settings: PlanSettings, on_unsteered: OnUnsteered, began: float) -> Applied:
    """The return path first: it means nothing without marks, and no mark is ever set without it. The sockets are read
    before the transaction, because what is in the set when the rules come into force is never interrupted; and again
    after it, for what opened in between: from the transaction on, new connections are captured, so what the second
    reading shows beyond the first is either captured (left out) or opened in the gap (added).
    """
    iproute.ensure_return_path(plan.return_path)
    before = outside.read(settings)
    older = left_alone.concerned(plan, settings, before)
    script = install_script(plan, older, replace=False)
    try:
        if older:
            nft.apply(script)  # nobody else has these connections: nothing to compile
        else:
            nft_replay.apply_fresh(script)
    except BaseException:
        if not nft.tables() & TABLES:  # nothing was in force before either
            iproute.remove_return_path(plan.return_path)
        raise
    late = left_alone.concerned(plan, settings, outside.read_later(before, settings))
    if late:
        nft.apply(grandfather_script(late))
    past = Unsteered(older | late)
    ended = _ended(plan, settings, past.flows, on_unsteered)
    return Applied(time.perf_counter() - began, past.among(past.flows - ended), ended=ended)


def in_force(plan: RedirectPlan) -> bool:
    """The namespace holds exactly the plan, in its steering form. Raises KernelRefused or OSError."""
    return not compare(plan, Form.STEERING).changes


def compare(plan: RedirectPlan, form: Form) -> Found:
    """What differs, in words, and whose chains come before ours. Raises KernelRefused or OSError."""
    try:
        return held.compare(held.expectation(plan, form))
    except FileNotFoundError:
        return Found(("a table went while it was read",), ())


def restore(
    plan: RedirectPlan,
    settings: PlanSettings,
    remembered: Unsteered,
    on_unsteered: OnUnsteered = OnUnsteered.REPORT,
    began: float | None = None,
    replaces: RedirectPlan | None = None,
) -> Applied:
    """Put the plan in force where it or `replaces` was before, in one transaction, and find what its absence has cost.

    `remembered`: connections known to be outside the mesh, beside those that the kernel's sets still tell of. All else
    that is outside and would be steered has slipped by, or `replaces` left it alone. Steered connections live on: the
    anchor holds the hooks, or conntrack remembers.
    """
    began = time.perf_counter() if began is None else began
    remembered = remembered.also(unsteered.known())
    if in_force(plan):
        return Applied(time.perf_counter() - began, remembered, changed=False)
    translated = () if nft.tables() & TABLES else _translated(settings)
    iproute.ensure_return_path(plan.return_path)
    passed = None if in_force(plan) else _replace(plan, settings, remembered, replaces)
    seconds = time.perf_counter() - began
    # Only now, for it takes its time in a busy pod: what was lost while the plan was not in force.
    past, cut = (remembered, 0) if passed is None else _lost(plan, settings, passed, replaces)
    if translated:
        cut = _cut(translated, settings)
    slipped, replanned = past.slipped - remembered.slipped, past.replanned - remembered.replanned
    ended = _ended(plan, settings, slipped | replanned, on_unsteered)
    left = past.among(past.flows - ended)
    counting_s = time.perf_counter() - began - seconds
    return Applied(seconds, left, slipped=slipped, replanned=replanned, ended=ended, cut=cut, counting_s=counting_s)


@dataclass(frozen=True, slots=True)
class _Passed:
    """What one transaction let pass: `living`, known to be outside; `strangers`, who may be. What was known and is left
    alone by the plan is neither."""

    living: Unsteered
    strangers: frozenset[FlowKey]
    known: frozenset[FlowKey]


def _replace(
    plan: RedirectPlan, settings: PlanSettings, remembered: Unsteered, replaces: RedirectPlan | None
) -> _Passed:
    """One transaction. Whatever may be outside the mesh is let pass by it, for the moment."""
    before = unsteered.candidates(settings)
    living = remembered.among(left_alone.concerned(plan, settings, remembered.flows & before))
    strangers = before - remembered.flows
    replanned = _left_alone_before(plan, settings, strangers, replaces)
    script = install_script(
        plan,
        living.grandfathered,
        replace=True,
        slipped=living.slipped | (strangers - replanned),
        replanned=living.replanned | replanned,
    )
    nft.apply(script)
    return _Passed(living, strangers, remembered.flows)


def _left_alone_before(
    plan: RedirectPlan, settings: PlanSettings, flows: frozenset[FlowKey], replaces: RedirectPlan | None
) -> frozenset[FlowKey]:
    """Those that are outside because the rules before left them alone."""
    if replaces is None:
        return frozenset()
    wanted = left_alone.steered(plan, settings, flows)
    return wanted - left_alone.steered(replaces, settings, wanted)


def _lost(
    plan: RedirectPlan, settings: PlanSettings, passed: _Passed, replaces: RedirectPlan | None
) -> tuple[Unsteered, int]:
    """Who is outside the mesh, now that the plan is in force; and how many were cut: steered, and the proxy's end dead.

    Two looks, because one may show the application's end of a connection captured a moment ago and not yet the proxy's.
    Who was let pass and is not outside is no longer: it would speak on in clear when conntrack forgets it.
    """
    first, again = unsteered.look(settings), unsteered.look(settings)
    past = left_alone.steered(plan, settings, (first.outside & again.outside) - passed.known)
    replanned = _left_alone_before(plan, settings, past, replaces)
    slipped = past - replanned
    if late := past - passed.strangers:
        nft.apply(grandfather_script((), slipped & late, replanned & late))
    if wrong := passed.strangers - past:
        nft.apply(forget_script(wrong))
    living = passed.living
    return Unsteered(living.grandfathered, living.slipped | slipped, living.replanned | replanned), len(again.cut)


def _ended(
    plan: RedirectPlan, settings: PlanSettings, flows: frozenset[FlowKey], on_unsteered: OnUnsteered
) -> frozenset[FlowKey]:
    """Resets those that the rules would have steered, when it was so wished; which ones."""
    if on_unsteered is OnUnsteered.REPORT:
        return frozenset()
    ended = left_alone.steered(plan, settings, flows)
    unsteered.end(ended)
    return ended


def _translated(settings: PlanSettings) -> tuple[conntrack.Entry, ...]:
    """Where no hook is left, conntrack sees nothing, and takes for alive what it took for alive then."""
    return tuple(entry for entry in conntrack.steered(settings.steered_ports) if entry.established)


def _cut(translated: tuple[conntrack.Entry, ...], settings: PlanSettings) -> int:
    """How many of these have lost a socket: nobody translated what it sent, or what was sent to it. conntrack would
    remember for days those that have none left: they are forgotten. Of an inbound one only the proxy's end is here: its
    caller, elsewhere, may have been reset unseen."""
    living = {flow.key for flow in sock_diag.established()}
    cut = [
        entry
        for entry in translated
        if _answerer(entry) not in living
        or (entry.steered_to == settings.outbound_port and _opener(entry) not in living)
    ]
    conntrack.forget(entry.original for entry in cut if not living & {_opener(entry), _answerer(entry)})
    return len(cut)


def _opener(entry: conntrack.Entry) -> FlowKey:
    sent = entry.original
    return sent.source, sent.source_port, sent.destination, sent.destination_port


def _answerer(entry: conntrack.Entry) -> FlowKey:
    answered = entry.reply
    return answered.source, answered.source_port, answered.destination, answered.destination_port


# ── Out of force ───────────────────────────────────────────────────────────────────────────────────────────────────
def drain(plan: RedirectPlan) -> None:
    """A namespace that holds the drain form already is left alone, and so is a sidecar's: a life that ends before its
    first look does not know."""
    # Asked in this order: to find the form in force is the exception, and to know what it looks like takes a while.
    if _drains({rule.rule_id for rule in plan.drain}) and not held.compare(held.expectation(plan, Form.DRAIN)).changes:
        return
    if holding.sidecars():
        return
    iproute.ensure_return_path(plan.return_path)
    nft.apply(drain_script(plan))


def remove(plan: RedirectPlan) -> None:
    """Tables first: with them go the marks that the return path serves. A sidecar's stay."""
    if holding.sidecars():
        return
    nft.apply(remove_script())
    iproute.remove_return_path(plan.return_path)


def count_steered(settings: PlanSettings) -> int:
    """The sockets first, which cost a tenth of conntrack: a pod that is taken down has none left at the proxy's ports,
    and without that end nothing is translated that anybody would answer."""
    if not sock_diag.is_spoken_with(settings.steered_ports):
        return 0
    return conntrack.count_steered(settings.steered_ports)


# ── What is seen ───────────────────────────────────────────────────────────────────────────────────────────────────
def look_after(remembered: Unsteered, settings: PlanSettings) -> LookedAfter:
    """Each minute, of 250 pods: kept small."""
    left = unsteered.forget_ended(remembered, settings) if remembered.flows else remembered
    forgotten = [nft.read_counters(chain, rules) for chain, rules in DROP_RULE_IDS.items()]
    return LookedAfter(left, tuple(itertools.chain.from_iterable(forgotten)), conntrack.table())


def counters() -> tuple[RuleCounter, ...]:
    return (*nft.list_counters(ANCHOR_TABLE), *nft.list_counters(TABLE))
