"""The inventory as people and programs read it. Pure; everything is made printable here or by the table's writer."""

from collections.abc import Callable
from typing import Any, Final

from agent.printable import printable
from agent.ruleset.conflicts import conflicts
from agent.ruleset.inventory import HEADGATE, UNKNOWN, HeldChain, HeldRule, HeldTable, Inventory, Tool

Meaning = Callable[[str], str | None]
"""Rule id -> why the rule is there; None for one that this version has not."""

HEAD: Final = ("CHAIN", "PACKETS", "WHOSE", "RULE")
ROUTING_HEAD: Final = ("ROUTING", "FAMILY", "WHOSE", "WHAT")
_TEXT: Final = 400
"""Characters of a rule that are shown: kube-proxy's longest have 300."""
_CONFLICT: Final = 1000
NO_LONGER: Final = "a rule of another version"


def heading(table: HeldTable) -> str:
    name = f"{table.tool.value} table {table.family} {printable(table.name)}"
    whose = {_name(rule.whose) for _, rule in table.rules} or {_name(table.whose)}
    return f"{name} ({', '.join(sorted(whose))})"


def _name(whose: str) -> str:
    return "ours" if whose == HEADGATE else whose


def rows(table: HeldTable, meaning: Meaning) -> list[tuple[str, ...]]:
    """An empty chain is only shown where it means something: iptables' save lists its built-in chains, there or not."""
    found: list[tuple[str, ...]] = []
    for chain in table.chains:
        found += [_row(chain, rule, meaning) for rule in chain.rules]
        if not chain.rules and chain.hook and (table.tool is Tool.NFT or chain.policy != "accept"):
            found.append((chain.name, "-", _name(chain.whose), f"(no rule; {chain.hook}, policy {chain.policy})"))
    return found


def _row(chain: HeldChain, rule: HeldRule, meaning: Meaning) -> tuple[str, ...]:
    packets = "-" if rule.packets is None else str(rule.packets)
    return (chain.name, packets, _name(rule.whose), printable(_said(rule, meaning), _TEXT))


def _said(rule: HeldRule, meaning: Meaning) -> str:
    if not rule.is_ours:
        return f"{rule.text}  # {rule.comment}" if rule.comment else rule.text
    rule_id = rule.rule_id
    return rule.text if rule_id is None else f"{rule_id}: {meaning(rule_id) or NO_LONGER}"


def routing_rows(inventory: Inventory) -> list[tuple[str, ...]]:
    """What, whose, text."""
    routing = inventory.routing
    return [
        *((f"ip rule {r.preference}", r.family, _name(r.whose), r.text) for r in routing.rules),
        *(("ip route, table 100", r.family, _name(r.whose), r.text) for r in routing.routes),
        *(("address on lo", "ip6" if ":" in a else "ip", UNKNOWN, a) for a in routing.loopback_addresses),
    ]


def told_conflicts(inventory: Inventory) -> tuple[str, ...]:
    return tuple(printable(text, _CONFLICT) for text in conflicts(inventory))


def as_json(inventory: Inventory, meaning: Meaning) -> dict[str, Any]:
    """Keys are stable; `packets` and `bytes` null: the rule counts nothing."""
    routing = inventory.routing
    return {
        "tables": [_table(table, meaning) for table in inventory.tables],
        "ip_rules": [
            {"family": r.family, "preference": r.preference, "rule": printable(r.text), "whose": r.whose}
            for r in routing.rules
        ],
        "ip_routes": [{"family": r.family, "route": printable(r.text), "whose": r.whose} for r in routing.routes],
        "loopback_addresses": list(routing.loopback_addresses),
        "conflicts": list(told_conflicts(inventory)),
        "unread": [printable(what, _TEXT) for what in inventory.unread],
    }


def _table(table: HeldTable, meaning: Meaning) -> dict[str, Any]:
    return {
        "tool": table.tool.value,
        "family": table.family,
        "name": printable(table.name),
        "whose": table.whose,
        "objects": [printable(what) for what in table.objects],
        "chains": [
            {
                "name": printable(chain.name),
                "whose": chain.whose,
                "hook": chain.hook,
                "policy": chain.policy,
                "rules": [_rule(rule, meaning) for rule in chain.rules],
            }
            for chain in table.chains
        ],
    }


def _rule(rule: HeldRule, meaning: Meaning) -> dict[str, Any]:
    rule_id = rule.rule_id if rule.is_ours else None
    return {
        "whose": rule.whose,
        "id": None if rule_id is None else printable(rule_id),
        "meaning": None if rule_id is None else meaning(rule_id),
        "rule": printable(rule.text, _TEXT),
        "comment": printable(rule.comment),
        "packets": rule.packets,
        "bytes": rule.bytes,
    }
