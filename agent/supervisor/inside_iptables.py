"""What agent.supervisor.inside does, where the rules are iptables': the same visits, by iptables-save and -restore.

What differs (docs/rules.md): a visit takes tools, some tens of milliseconds; the reason why a connection is outside the
mesh is known to the agent alone, so that the next agent counts all of them as older; what has ended stays in its chain
until the next change.
"""

import ipaddress
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kernel import backends, conntrack, glance, iproute, iptables, outside, sock_diag
from agent.kernel.backends import Backend
from agent.kernel.held import Found
from agent.kernel.iptables_tools import Variant
from agent.kernel.nft import RuleCounter
from agent.plan import FlowKey, IPFamily, OnUnsteered, PlanSettings, RedirectPlan, plan_of
from agent.plan.drift import Form, describe_return_path
from agent.plan.forgotten import DROP_RULE_IDS
from agent.plan.iptables_saved import is_older
from agent.plan.render.iptables import older_chain
from agent.plan.rules import Direction
from agent.reconcile.life import Held, Inspection
from agent.supervisor import holding, inside, left_alone, unsteered
from agent.supervisor.inside import Applied, LookedAfter
from agent.supervisor.unsteered import Unsteered

_DROPS: Final = frozenset(rule_id for ids in DROP_RULE_IDS.values() for rule_id in ids)
_OLDER: Final = re.compile(r"-s ([0-9a-f.:]+)/\d+ -d ([0-9a-f.:]+)/\d+ -p tcp -m tcp --sport (\d+) --dport (\d+) ")
"""As agent.plan.render.iptables.older_rules writes it and iptables-save gives it back."""


@dataclass(frozen=True, slots=True)
class IptablesRules:
    """`backend`: one of iptables' two. Every method acts in the namespace that the calling thread is in, and raises
    KernelRefused or OSError; nothing is half-applied then."""

    backend: Backend

    @property
    def _variant(self) -> Variant:
        return Variant.NFT if self.backend is Backend.IPTABLES_NFT else Variant.LEGACY

    def inspect(self, settings: PlanSettings, proc: Path) -> Inspection:
        return inside.inspect(settings, proc, self._held)

    def _held(self, settings: PlanSettings) -> Held:
        held = backends.held()
        if holding.for_a_sidecar(held):
            return Held.SIDECARS
        if self.backend not in held:
            return Held.RULES if held else inside.held_beside_rules(settings)
        drained = iptables.changes(self._variant, plan_of(settings.defaults, settings), Form.DRAIN)
        return Held.RULES if drained else Held.DRAIN_FORM

    # ── Into force ─────────────────────────────────────────────────────────────────────────────────────────────────
    def enrol(
        self,
        plan: RedirectPlan,
        settings: PlanSettings,
        on_unsteered: OnUnsteered = OnUnsteered.REPORT,
        replaces: RedirectPlan | None = None,
    ) -> Applied:
        inside.refuse_deaf(plan)
        fresh = not iptables.held(self._variant)
        applied = self._apply(plan, settings, Unsteered(), on_unsteered, replaces, fresh=fresh)
        for other in backends.held() - {self.backend}:
            backends.remove_rules(other)
        return applied

    def restore(
        self,
        plan: RedirectPlan,
        settings: PlanSettings,
        remembered: Unsteered,
        on_unsteered: OnUnsteered = OnUnsteered.REPORT,
    ) -> Applied:
        return self._apply(plan, settings, remembered, on_unsteered, None, fresh=False)

    def _apply(
        self,
        plan: RedirectPlan,
        settings: PlanSettings,
        remembered: Unsteered,
        on_unsteered: OnUnsteered,
        replaces: RedirectPlan | None,
        *,
        fresh: bool,
    ) -> Applied:
        """What is outside the mesh is read while the guard chain drops new connections: nothing opens in between."""
        began = time.perf_counter()
        remembered = remembered.also(Unsteered() if fresh else self._known())
        passed: list[FlowKey] = []

        def older() -> frozenset[FlowKey]:
            passed.extend(left_alone.concerned(plan, settings, outside.read(settings)))
            return frozenset(passed)

        applied = iptables.apply(self._variant, plan, Form.STEERING, older)
        seconds = time.perf_counter() - began
        if not applied.changed:
            return Applied(seconds, remembered.among(outside.read(settings)), changed=False)
        found = frozenset(passed)
        if fresh:
            remembered = Unsteered(grandfathered=found)
        strangers = left_alone.steered(plan, settings, found - remembered.flows)
        replanned = _replanned(replaces, settings, strangers)
        slipped = strangers - replanned
        past = remembered.among(found).also(Unsteered(slipped=slipped, replanned=replanned))
        ended = self._ended(plan, settings, past.flows if fresh else strangers, on_unsteered)
        return Applied(
            seconds,
            past.among(past.flows - ended),
            slipped=slipped,
            replanned=replanned,
            ended=ended,
            cut=len(unsteered.look(settings).cut),
            counting_s=time.perf_counter() - began - seconds,
        )

    def _ended(
        self, plan: RedirectPlan, settings: PlanSettings, flows: frozenset[FlowKey], on_unsteered: OnUnsteered
    ) -> frozenset[FlowKey]:
        if on_unsteered is OnUnsteered.REPORT:
            return frozenset()
        ended = left_alone.steered(plan, settings, flows)
        sock_diag.destroy(ended)
        return ended

    def _known(self) -> Unsteered:
        """Who stands in the chain of the connections that are older than the rules."""
        flows: set[FlowKey] = set()
        for family in IPFamily:
            mangle = iptables.read(self._variant, family).get("mangle")
            for rule in mangle.rules if mangle is not None else ():
                if rule.chain == older_chain(Direction.OUTBOUND) and is_older(rule.spec):
                    flows.update(_flow(rule.spec))
        return Unsteered(grandfathered=frozenset(flows))

    # ── Out of force ───────────────────────────────────────────────────────────────────────────────────────────────
    def drain(self, plan: RedirectPlan) -> None:
        if holding.sidecars():
            return
        iptables.apply(self._variant, plan, Form.DRAIN, frozenset)

    def remove(self, plan: RedirectPlan) -> None:
        if holding.sidecars():
            return
        backends.remove(plan, self.backend)

    def count_steered(self, settings: PlanSettings) -> int:
        return inside.count_steered(settings)

    # ── What is seen ───────────────────────────────────────────────────────────────────────────────────────────────
    def compare(self, plan: RedirectPlan, form: Form) -> Found:
        return Found(iptables.changes(self._variant, plan, form), ())

    def look_after(self, remembered: Unsteered, settings: PlanSettings) -> LookedAfter:
        left = remembered.among(outside.read(settings)) if remembered.flows else remembered
        forgotten = tuple(counter for counter in self.counters() if counter.rule_id in _DROPS)
        return LookedAfter(left, forgotten, conntrack.table())

    def counters(self) -> tuple[RuleCounter, ...]:
        return iptables.counters(self._variant)


@dataclass(frozen=True, slots=True)
class IptablesComparing:
    """For agent.supervisor.drift_rounds. The nft tables of iptables-nft count generations as any do, so that the tools
    are run only when something has changed. Those of iptables-legacy count nothing: the tools are run once a minute."""

    backend: Backend

    def generation(self) -> bytes:
        return glance.generation() if self.backend is Backend.IPTABLES_NFT else b""

    def expectation(self, plan: RedirectPlan, form: Form) -> tuple[RedirectPlan, Form]:
        return plan, form

    def compare(self, expected: tuple[RedirectPlan, Form], *, unchanged: bool) -> Found:
        plan, form = expected
        if unchanged and self.backend is Backend.IPTABLES_NFT:
            path = plan.return_path
            return Found(describe_return_path(path, iproute.missing_return_path(path)), ())
        return IptablesRules(self.backend).compare(plan, form)


def _replanned(
    replaces: RedirectPlan | None, settings: PlanSettings, strangers: frozenset[FlowKey]
) -> frozenset[FlowKey]:
    """Whom the plan before left alone as it should: they did not slip by."""
    return frozenset() if replaces is None else strangers - left_alone.steered(replaces, settings, strangers)


def _flow(spec: str) -> tuple[FlowKey, ...]:
    match = _OLDER.match(spec)
    if match is None:
        return ()
    source, destination, sport, dport = match.groups()
    return ((ipaddress.ip_address(source), int(sport), ipaddress.ip_address(destination), int(dport)),)
