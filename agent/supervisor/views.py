"""What the agent tells of pods and rules, as JSON-ready values. Shapes are documented in README and kept stable."""

from collections.abc import Iterable, Mapping
from typing import Any

from agent.kernel.nft import RuleCounter
from agent.plan import InvalidPlan, PlanSettings, RedirectPlan, build_plan
from agent.plan.annotations import Wishes, steering_of
from agent.plan.render.nft import ANCHOR_TABLE, TABLE, chain_of, rule_expression
from agent.plan.rules import Rule
from agent.pods import Proofs
from agent.reconcile import Life
from agent.supervisor.reports import NO_FACTS, PodFacts, ProbeFacts


def pod_view(life: Life, facts: PodFacts = NO_FACTS) -> dict[str, Any]:
    return {
        "name": life.pod.name,
        "namespace": life.pod.namespace,
        "uid": life.pod.uid,
        "service_account": life.pod.service_account,
        "addresses": [str(address) for address in life.pod.addresses],
        "netns": life.netns_path,
        "netns_id": str(life.netns_id),
        "state": life.state.value,
        "reason": life.reason,
        "proofs": _proofs_view(life.proofs),
        "grandfathered_connections": len(facts.unsteered.grandfathered),
        "unsteered_connections": {
            "grandfathered": len(facts.unsteered.grandfathered),
            "drift": len(facts.unsteered.slipped),
            "rules_changed": len(facts.unsteered.replanned),
        },
        "drifts": facts.drifts,
        "last_drift": facts.drift,
        "foreign_chains": list(facts.foreign),
        "conntrack_full": facts.conntrack_full,
        "probes": _probes_view(facts.probes),
    }


def _probes_view(probes: ProbeFacts | None) -> dict[str, Any] | None:
    if probes is None:
        return None
    return {
        "listed": probes.listed,
        "paths": [
            {
                "address": str(path.address),
                "status": path.status.value,
                "fails": path.fails,
                "reason": path.reason,
                "remedy": path.remedy,
            }
            for path in probes.paths
        ],
    }


def _proofs_view(proofs: Proofs | None) -> dict[str, Any] | None:
    if proofs is None:
        return None
    return {name: {"result": proof.status.value, "reason": proof.reason} for name, proof in proofs.items()}


def rules_view(life: Life, plan: RedirectPlan, counters: Iterable[RuleCounter]) -> dict[str, Any]:
    """Every rule of the plan in its order, with what the kernel counted; null where the kernel does not hold it."""
    seen = {counter.rule_id: counter for counter in counters}
    return {
        "pod": str(life.pod),
        "state": life.state.value,
        "reason": life.reason,
        "tables": [
            {"name": ANCHOR_TABLE, "rules": [_rule_view(rule, seen) for rule in plan.anchor]},
            {"name": TABLE, "rules": [_rule_view(rule, seen) for rule in plan.rules]},
        ],
        "return_path": {
            "mark": f"{plan.return_path.mark:#x}/{plan.return_path.mask:#x}",
            "table": plan.return_path.table,
            "preference": plan.return_path.preference,
        },
    }


def plan_view(life: Life, settings: PlanSettings) -> dict[str, Any]:
    """What the pod asks for, by whose word, and the rules that it has, or that it would have. `error`: why what it asks
    for cannot be given; then the rules are those in force, if they are known."""
    plan, wishes, error = life.plan, Wishes(settings.defaults), ""
    try:
        wishes = steering_of(life.pod.annotations, settings.defaults)
        plan = build_plan(life.pod, settings)
    except InvalidPlan as refused:
        error = str(refused)
    return {
        "pod": str(life.pod),
        "state": life.state.value,
        "reason": life.reason,
        "error": error,
        "rules": [] if plan is None else [_planned_view(rule) for rule in plan.all_rules],
        "origins": [
            {
                "what": origin.what,
                "key": origin.key,
                "value": origin.value,
                "overruled": [list(pair) for pair in origin.overruled],
            }
            for origin in wishes.origins
        ],
        "noted": [{"key": noted.key, "value": noted.value, "reason": noted.reason} for noted in wishes.noted],
    }


def _planned_view(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.rule_id,
        "direction": rule.direction.value,
        "chain": chain_of(rule),
        "rule": rule_expression(rule),
        "meaning": rule.meaning,
    }


def _rule_view(rule: Rule, counters: Mapping[str, RuleCounter]) -> dict[str, Any]:
    counter = counters.get(rule.rule_id)
    return {
        "id": rule.rule_id,
        "chain": chain_of(rule),
        "rule": rule_expression(rule),
        "meaning": rule.meaning,
        "packets": None if counter is None else counter.packets,
        "bytes": None if counter is None else counter.bytes,
    }
