"""What is done inside a pod's network namespace, one function a visit. Blocking; run by NetnsThreads.

All raise KernelRefused when the kernel refuses, OSError when a netlink socket cannot be had; nothing is half-applied.
"""

import itertools
import socket
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from agent.kernel import conntrack, held, iproute, nft, nft_replay, sock_diag
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.plan import FlowKey, OnUnsteered, PlanSettings, RedirectPlan, opened_meanwhile, outside_the_mesh, steerable
from agent.plan.drift import Form
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
from agent.reconcile.life import Held, Inspection, PortConflict
from agent.supervisor import unsteered
from agent.supervisor.unsteered import Unsteered

_FORGOTTEN_RULES: Final = {"in-forgotten": ("in-forgotten",), "out-forgotten": ("out-forgotten", "out-forgotten-proxy")}
"""By chain: what counts the packets of forgotten connections that were dropped."""
_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h
_OURS: Final = frozenset({TABLE, ANCHOR_TABLE})
_RETURN_PATH_PARTS: Final = 2  # a rule and a route a family


@dataclass(frozen=True, slots=True)
class Applied:
    """How the plan came into force: seconds it took, and the connections that live on outside the mesh.

    `changed` False: it was in force already, and nothing was touched. `slipped`: connections that were found to have
    gone past the mesh while rules were missing; `ended`: those that were reset for being outside; `cut`: steered
    connections that lost one of their sockets, and with it their translation, through the rules' absence. `counting_s`:
    what it took to find these, after the plan was in force.
    """

    seconds: float
    unsteered: Unsteered
    changed: bool = True
    slipped: frozenset[FlowKey] = frozenset()
    ended: frozenset[FlowKey] = frozenset()
    cut: int = 0
    counting_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LookedAfter:
    """What a visit each minute finds."""

    unsteered: Unsteered
    forgotten: tuple[RuleCounter, ...]
    table: conntrack.Table


def inspect(settings: PlanSettings) -> Inspection:
    """Addresses, who listens on the proxy's ports, and what a former agent left in force. The proxy's own listeners
    carry its mark: after a restart of the agent they are there already, and are no conflict."""
    ours = (settings.outbound_port, settings.inbound_port, settings.tunnel_port)
    conflicts = []
    for listener in sock_diag.listeners():
        if listener.port in ours and (listener.mark or 0) & settings.mark_mask != settings.proxy_mark:
            owner = sock_diag.owner_of(listener.inode)
            conflicts.append(PortConflict(listener.port, owner.pid if owner else 0, owner.command if owner else ""))
    return Inspection(iproute.read_addresses(), tuple(dict.fromkeys(conflicts)), _held(settings), _netns_cookie())


def _netns_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])


def _held(settings: PlanSettings) -> Held:
    if not nft.tables() & _OURS:
        path = settings.return_path
        missing = len(iproute.missing_return_path(path))
        # Of IPv6, nothing is missing where it is off: what then is not missing is not there either.
        absent = (_RETURN_PATH_PARTS, _RETURN_PATH_PARTS * len(path.families))
        return Held.NOTHING if missing in absent else Held.RULES
    return Held.DRAIN_FORM if _drains(settings.drain_rule_ids) else Held.RULES


def _drains(rule_ids: Collection[str]) -> bool:
    """The table holds rules of the drain form and nothing that only the steering form has."""
    rules = {counter.rule_id for counter in nft.list_counters(TABLE)}
    return bool(rules) and rules <= set(rule_ids) and all(nft.connections(name) is None for name in set_names())


# ── Into force ─────────────────────────────────────────────────────────────────────────────────────────────────────
def install(plan: RedirectPlan, settings: PlanSettings, on_unsteered: OnUnsteered = OnUnsteered.REPORT) -> Applied:
    """Put the plan in force; a namespace that holds it already is left alone, counters, handles, sets and all."""
    began = time.perf_counter()
    if not nft.tables() & _OURS:
        try:
            return _install_fresh(plan, settings, on_unsteered, began)
        except KernelRefused:
            if not nft.tables() & _OURS:  # else somebody else installs at this moment
                raise
    return restore(plan, settings, Unsteered(), on_unsteered, began)


def _install_fresh(plan: RedirectPlan, settings: PlanSettings, on_unsteered: OnUnsteered, began: float) -> Applied:
    """The return path first: it means nothing without marks, and no mark is ever set without it. The sockets are read
    before the transaction, because what is in the set when the rules come into force is never interrupted; and again
    after it, for what opened in between: from the transaction on, new connections are captured, so what the second
    reading shows beyond the first is either captured (left out) or opened in the gap (added).
    """
    iproute.ensure_return_path(plan.return_path)
    before = unsteered.read(settings)
    script = install_script(plan, before, replace=False)
    try:
        if before:
            nft.apply(script)  # nobody else has these connections: nothing to compile
        else:
            nft_replay.apply_fresh(script)
    except BaseException:
        if not nft.tables() & _OURS:  # nothing was in force before either
            iproute.remove_return_path(plan.return_path)
        raise
    late = _opened_meanwhile(before, settings)
    if late:
        nft.apply(grandfather_script(late))
    outside = Unsteered(before | late)
    ended = _ended(outside.flows, on_unsteered)
    return Applied(time.perf_counter() - began, outside.among(outside.flows - ended), ended=ended)


def in_force(plan: RedirectPlan) -> bool:
    """The namespace holds exactly the plan, in its steering form. Raises KernelRefused or OSError."""
    try:
        return not held.compare(held.expectation(plan, Form.STEERING)).changes
    except FileNotFoundError:  # a table went while it was read
        return False


def restore(
    plan: RedirectPlan,
    settings: PlanSettings,
    remembered: Unsteered,
    on_unsteered: OnUnsteered = OnUnsteered.REPORT,
    began: float | None = None,
) -> Applied:
    """Put the plan in force where it was before, in one transaction, and find what its absence has cost.

    `remembered`: connections known to be outside the mesh, beside those that the kernel's sets still tell of. All else
    that is outside has slipped by. Steered connections live on: the anchor holds the hooks, or conntrack remembers.
    """
    began = time.perf_counter() if began is None else began
    remembered = remembered.also(unsteered.known())
    if in_force(plan):
        return Applied(time.perf_counter() - began, remembered, changed=False)
    translated = () if nft.tables() & _OURS else _translated(settings)
    iproute.ensure_return_path(plan.return_path)
    let_pass = None if in_force(plan) else _replace(plan, settings, remembered)
    seconds = time.perf_counter() - began
    # Only now, for it takes its time in a busy pod: what was lost while the plan was not in force.
    outside, cut = (remembered, 0) if let_pass is None else _slipped(remembered, let_pass, settings)
    if translated:
        cut = _cut(translated, settings)
    slipped = outside.slipped - remembered.slipped
    ended = _ended(slipped, on_unsteered)
    left = outside.among(outside.flows - ended)
    counting_s = time.perf_counter() - began - seconds
    return Applied(seconds, left, slipped=slipped, ended=ended, cut=cut, counting_s=counting_s)


def _replace(plan: RedirectPlan, settings: PlanSettings, remembered: Unsteered) -> frozenset[FlowKey]:
    """One transaction. Whatever may be outside the mesh is let pass by it, for the moment: which ones."""
    before = unsteered.candidates(settings)
    living = remembered.among(before)
    strangers = before - remembered.flows
    nft.apply(install_script(plan, living.grandfathered, replace=True, slipped=living.slipped | strangers))
    return before


def _slipped(remembered: Unsteered, let_pass: frozenset[FlowKey], settings: PlanSettings) -> tuple[Unsteered, int]:
    """Who is outside the mesh, now that the plan is in force; and how many were cut: steered, and the proxy's end dead.

    Two looks, because one may show the application's end of a connection captured a moment ago and not yet the proxy's.
    Who was let pass and is not outside is no longer: it would speak on in clear when conntrack forgets it.
    """
    first, again = unsteered.look(settings), unsteered.look(settings)
    outside = frozenset(flow for flow in first.outside & again.outside if steerable(flow))
    slipped = outside - remembered.flows
    if late := slipped - let_pass:
        nft.apply(grandfather_script((), late))
    if wrong := let_pass - remembered.flows - slipped:
        nft.apply(forget_script(wrong))
    living = remembered.among(let_pass)
    return Unsteered(living.grandfathered, living.slipped | slipped), len(again.cut)


def _opened_meanwhile(before: frozenset[FlowKey], settings: PlanSettings) -> frozenset[FlowKey]:
    after = sock_diag.established()
    if not outside_the_mesh(after, settings.steered_ports) - before:
        return frozenset()
    again = sock_diag.established()
    return opened_meanwhile(before, after, again, settings.steered_ports, unsteered.other_ends(again, settings))


def _ended(flows: frozenset[FlowKey], on_unsteered: OnUnsteered) -> frozenset[FlowKey]:
    """Resets those that the rules would have steered, when it was so wished; which ones."""
    if on_unsteered is OnUnsteered.REPORT:
        return frozenset()
    ended = frozenset(flow for flow in flows if steerable(flow))
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
    """A namespace that holds the drain form already is left alone."""
    # Asked in this order: to find the form in force is the exception, and to know what it looks like takes a while.
    if _drains({rule.rule_id for rule in plan.drain}) and not held.compare(held.expectation(plan, Form.DRAIN)).changes:
        return
    iproute.ensure_return_path(plan.return_path)
    nft.apply(drain_script(plan))


def remove(plan: RedirectPlan) -> None:
    """Tables first: with them go the marks that the return path serves."""
    nft.apply(remove_script())
    iproute.remove_return_path(plan.return_path)


def count_steered(settings: PlanSettings) -> int:
    return conntrack.count_steered(settings.steered_ports)


# ── What is seen ───────────────────────────────────────────────────────────────────────────────────────────────────
def look_after(remembered: Unsteered, settings: PlanSettings) -> LookedAfter:
    """Each minute, of 250 pods: kept small."""
    left = unsteered.forget_ended(remembered, settings) if remembered.flows else remembered
    forgotten = [nft.read_counters(chain, rules) for chain, rules in _FORGOTTEN_RULES.items()]
    return LookedAfter(left, tuple(itertools.chain.from_iterable(forgotten)), conntrack.table())


def counters() -> tuple[RuleCounter, ...]:
    return (*nft.list_counters(ANCHOR_TABLE), *nft.list_counters(TABLE))
