"""A plan as people and programs read it before it is in force: an nft script, iptables-restore text, or JSON."""

import json
from typing import Any, Final

from agent.plan.drift import Form
from agent.plan.render import iptables, nft
from agent.plan.rules import IPFamily, PassGrandfathered, RedirectPlan, Rule

NFT, IPTABLES, JSON = "nft", "iptables", "json"
OUTPUTS: Final = (NFT, IPTABLES, JSON)

_RESTORE: Final = {IPFamily.IPV4: "iptables-restore", IPFamily.IPV6: "ip6tables-restore"}


def plan_text(plan: RedirectPlan, output: str, families: tuple[IPFamily, ...] = tuple(IPFamily)) -> str:
    """What an empty namespace would be given; ends with a line feed. `output`: one of OUTPUTS."""
    if output == JSON:
        return json.dumps(plan_json(plan), indent=2) + "\n"
    if output == NFT:
        return nft.install_script(plan, (), replace=False) + _beside(plan)
    texts = (
        f"# {_RESTORE[family]} --noflush\n{iptables.restore_text(iptables.tables_of(plan, Form.STEERING, family))}"
        for family in families
    )
    return "".join(texts) + _beside(plan)


def plan_json(plan: RedirectPlan) -> dict[str, Any]:
    """Keys are stable. `return_path` null: the plan has none."""
    path = plan.return_path
    return {
        "rules": [_rule(rule) for rule in plan.all_rules],
        "return_path": {
            "families": [family.value for family in path.families],
            "fwmark": f"{path.mark:#x}/{path.mask:#x}",
            "table": path.table,
            "preference": path.preference,
        }
        if path.families
        else None,
        "loopback_addresses": [str(address) for address in plan.loopback_addresses],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    table, chain = iptables.table_and_chain(rule)
    return {
        "id": rule.rule_id,
        "direction": rule.direction.value,
        "meaning": rule.meaning,
        "nft": {"chain": nft.chain_of(rule), "rule": nft.rule_expression(rule)},
        "iptables": {
            "table": table,
            "chain": chain,
            "rules": {family.value: _lines(rule, family) for family in IPFamily},
        },
    }


def _lines(rule: Rule, family: IPFamily) -> list[str]:
    """None for the connections that are older than the rules: they stand in a chain of their own, one rule each."""
    return [] if isinstance(rule, PassGrandfathered) else iptables.rule_lines(rule, family)


def _beside(plan: RedirectPlan) -> str:
    """What is no rule of a packet filter, as the commands that would do it."""
    path = plan.return_path
    lines = [
        line
        for family in path.families
        for option in (f"-{4 if family is IPFamily.IPV4 else 6}",)
        for line in (
            f"# ip {option} route add local default dev lo table {path.table}\n",
            f"# ip {option} rule add preference {path.preference} fwmark {path.mark:#x}/{path.mask:#x} "
            f"lookup {path.table}\n",
        )
    ]
    lines += [f"# ip -6 address add {address}/128 dev lo\n" for address in plan.loopback_addresses]
    return "".join(lines)
