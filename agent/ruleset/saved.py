"""The tables of either iptables as the inventory has them. Pure."""

import re
from typing import Final

from agent.plan import IPFamily
from agent.plan.iptables_saved import SavedRule, SavedTable, parse
from agent.ruleset.inventory import HeldChain, HeldRule, HeldTable, Tool

_FAMILIES: Final = {IPFamily.IPV4: "ip", IPFamily.IPV6: "ip6"}
_COMMENT: Final = re.compile(r'(?:^| )-m comment --comment (?:"((?:[^"\\]|\\.)*)"|(\S+))', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def tables(text: str, tool: Tool, family: IPFamily) -> tuple[HeldTable, ...]:
    """Of what iptables-save -c prints."""
    return tuple(_table(table, tool, _FAMILIES[family]) for table in parse(text).values())


def _table(table: SavedTable, tool: Tool, family: str) -> HeldTable:
    # A chain that is not declared is none of iptables-save's own making, and its rules are shown all the same.
    names = dict.fromkeys((*table.policies, *(rule.chain for rule in table.rules)))
    return HeldTable(tool, family, table.name, tuple(_chain(table, name) for name in names))


def _chain(table: SavedTable, name: str) -> HeldChain:
    rules = tuple(_rule(rule) for rule in table.of_chain(name))
    if not table.is_builtin(name):
        return HeldChain(name, rules)
    return HeldChain(name, rules, f"{table.name} {name.lower()}", table.policies[name].lower())


def _rule(rule: SavedRule) -> HeldRule:
    comment = _COMMENT.search(rule.spec)
    said = ""
    if comment is not None:
        said = comment[2] if comment[1] is None else _ESCAPED.sub(r"\1", comment[1])
    return HeldRule(_COMMENT.sub("", rule.spec, count=1).strip(), said, rule.packets, rule.bytes)
