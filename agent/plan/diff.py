"""What changes between two plans, rule by rule."""

from dataclasses import dataclass

from agent.plan.rules import RedirectPlan


@dataclass(frozen=True, slots=True)
class PlanChange:
    """Rule ids, each list in the order of the plan it comes from."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    reordered: bool
    return_path: bool

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.reordered or self.return_path)


def diff_plan(old: RedirectPlan, new: RedirectPlan) -> PlanChange:
    """Compare by rule id; the order of the rules both plans hold counts, because the first match wins."""
    before = {rule.rule_id: rule for rule in old.all_rules}
    after = {rule.rule_id: rule for rule in new.all_rules}
    common_before = [rule_id for rule_id in before if rule_id in after]
    common_after = [rule_id for rule_id in after if rule_id in before]
    return PlanChange(
        added=tuple(rule_id for rule_id in after if rule_id not in before),
        removed=tuple(rule_id for rule_id in before if rule_id not in after),
        changed=tuple(rule_id for rule_id in common_after if before[rule_id] != after[rule_id]),
        reordered=common_before != common_after,
        return_path=old.return_path != new.return_path,
    )
