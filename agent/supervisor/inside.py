"""What is done inside a pod's network namespace, one function a visit. Blocking; run by NetnsThreads.

All raise KernelRefused when the kernel refuses, OSError when a netlink socket cannot be had; nothing is half-applied.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.kernel import conntrack, iproute, nft, nft_replay, sock_diag
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.plan import (
    FlowKey,
    FlowTuple,
    OtherEnds,
    PlanSettings,
    RedirectPlan,
    opened_meanwhile,
    outside_the_mesh,
)
from agent.plan.render.nft import (
    ANCHOR_TABLE,
    TABLE,
    drain_script,
    forget_script,
    grandfather_script,
    install_script,
    remove_script,
)
from agent.reconcile.life import Inspection, PortConflict

FORGOTTEN_RULES: Final = frozenset({"in-forgotten", "out-forgotten", "out-forgotten-proxy"})


@dataclass(frozen=True, slots=True)
class Applied:
    """How an install went: seconds it took, and the connections that live on outside the mesh."""

    seconds: float
    grandfathered: frozenset[FlowKey]


def inspect(settings: PlanSettings) -> Inspection:
    """Addresses, and who listens on the proxy's ports. The proxy's own listeners carry its mark: after a restart of
    the agent they are there already, and are no conflict."""
    ours = (settings.outbound_port, settings.inbound_port, settings.tunnel_port)
    conflicts = []
    for listener in sock_diag.listeners():
        if listener.port in ours and (listener.mark or 0) & settings.mark_mask != settings.proxy_mark:
            owner = sock_diag.owner_of(listener.inode)
            conflicts.append(PortConflict(listener.port, owner.pid if owner else 0, owner.command if owner else ""))
    return Inspection(iproute.read_addresses(), tuple(dict.fromkeys(conflicts)))


def install(plan: RedirectPlan, settings: PlanSettings) -> Applied:
    """Put the plan in force; a namespace that holds it already is left alone, counters and all.

    The return path first: it means nothing without marks, and no mark is ever set without it. The sockets are read
    before the transaction, because what is in the set when the rules come into force is never interrupted; and again
    after it, for what opened in between: from the transaction on, new connections are captured, so what the second
    reading shows beyond the first is either captured (left out) or opened in the gap (added).
    """
    began = time.perf_counter()
    iproute.ensure_return_path(plan.return_path)
    before = _outside_the_mesh(settings)
    try:
        _apply_plan(plan, before)
    except BaseException:
        if nft.list_table(ANCHOR_TABLE) is None:  # nothing was in force before either
            iproute.remove_return_path(plan.return_path)
        raise
    late = _opened_meanwhile(before, settings)
    if late:
        nft.apply(grandfather_script(late))
    return Applied(time.perf_counter() - began, before | late)


def _apply_plan(plan: RedirectPlan, grandfathered: frozenset[FlowKey]) -> None:
    script = install_script(plan, grandfathered, replace=False)
    try:
        if grandfathered:
            nft.apply(script)  # nobody else has these connections: nothing to compile
        else:
            nft_replay.apply_fresh(script)
        return
    except KernelRefused:
        if nft.list_table(TABLE) is None and nft.list_table(ANCHOR_TABLE) is None:
            raise
    if in_force(plan):
        late = grandfather_script(grandfathered)
        if late:
            nft.apply(late)
        return
    nft.apply(install_script(plan, grandfathered, replace=True))


def in_force(plan: RedirectPlan) -> bool:
    """The namespace holds exactly the plan's tables, as the same tool prints them."""
    script = install_script(plan, (), replace=False)
    return all(nft.list_table(table) == nft.expected_listing(script, table) for table in (ANCHOR_TABLE, TABLE))


def _outside_the_mesh(settings: PlanSettings) -> frozenset[FlowKey]:
    flows = sock_diag.established()
    return outside_the_mesh(flows, settings.steered_ports, _other_ends(flows, settings))


def _opened_meanwhile(before: frozenset[FlowKey], settings: PlanSettings) -> frozenset[FlowKey]:
    after = sock_diag.established()
    if not outside_the_mesh(after, settings.steered_ports) - before:
        return frozenset()
    again = sock_diag.established()
    return opened_meanwhile(before, after, again, settings.steered_ports, _other_ends(again, settings))


def _other_ends(flows: Iterable[FlowTuple], settings: PlanSettings) -> OtherEnds:
    """conntrack is asked only where something is steered: a fresh pod has nothing to tell, and is in a hurry."""
    return conntrack.other_ends() if any(flow.local_port in settings.steered_ports for flow in flows) else {}


def drain(plan: RedirectPlan) -> None:
    nft.apply(drain_script(plan))


def remove(plan: RedirectPlan) -> None:
    """Tables first: with them go the marks that the return path serves."""
    nft.apply(remove_script())
    iproute.remove_return_path(plan.return_path)


def count_steered(settings: PlanSettings) -> int:
    return conntrack.count_steered(settings.steered_ports)


def forget_ended(grandfathered: frozenset[FlowKey], settings: PlanSettings) -> frozenset[FlowKey]:
    """Take connections that have ended out of the sets, and return those that live.

    A tuple that is used again belongs to a captured connection, which must not be let pass when conntrack forgets it.
    """
    living = grandfathered & _outside_the_mesh(settings)
    ended = grandfathered - living
    if ended:
        try:
            nft.apply(forget_script(ended))
        except KernelRefused:
            return frozenset()  # somebody emptied or replaced the sets: what we remember is void
    return living


def forgotten() -> tuple[RuleCounter, ...]:
    """What was dropped: of one table only, because each minute 250 pods are asked and reading it takes 0.5 ms."""
    return tuple(counter for counter in nft.list_counters(TABLE) if counter.rule_id in FORGOTTEN_RULES)


def counters() -> tuple[RuleCounter, ...]:
    return (*nft.list_counters(ANCHOR_TABLE), *nft.list_counters(TABLE))
