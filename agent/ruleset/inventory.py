"""The rules of a namespace as values, whoever made them and with whatever tool.

Every name, comment and text in here may have been written by the pod: it is made printable where it is shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from agent.explain.tables import Tool as Tool

COMMENT_PREFIX: Final = "headgate:"
HEADGATE: Final = "headgate"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class HeldRule:
    """`text` as the tool writes it, without counter, comment and chain. `packets` and `bytes` None: the rule counts
    nothing. `whose`: a name of agent.ruleset.whose."""

    text: str
    comment: str = ""
    packets: int | None = None
    bytes: int | None = None
    whose: str = UNKNOWN

    @property
    def rule_id(self) -> str | None:
        """Of a rule that says it is ours."""
        ours = self.comment.startswith(COMMENT_PREFIX)
        return self.comment.removeprefix(COMMENT_PREFIX) if ours else None

    @property
    def is_ours(self) -> bool:
        return self.whose == HEADGATE


@dataclass(frozen=True, slots=True)
class HeldChain:
    """`hook`: what it hangs on, as `nat output, priority -100`; empty for a chain that is jumped to. `policy`: of a
    chain with a hook, what becomes of a packet that no rule decides upon."""

    name: str
    rules: tuple[HeldRule, ...] = ()
    hook: str = ""
    policy: str = ""
    whose: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class HeldTable:
    """`objects`: its sets, maps and the like, as `set grandfathered4`."""

    tool: Tool
    family: str
    name: str
    chains: tuple[HeldChain, ...] = ()
    objects: tuple[str, ...] = ()
    whose: str = UNKNOWN

    @property
    def rules(self) -> Iterator[tuple[HeldChain, HeldRule]]:
        for chain in self.chains:
            for rule in chain.rules:
                yield chain, rule


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """An `ip rule` beside the kernel's own three. `text` as ip-rule(8) writes it."""

    family: str
    preference: int
    text: str
    whose: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class TableRoute:
    """A route of our routing table, whoever made it. `text` as ip-route(8) writes it."""

    family: str
    text: str
    whose: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class Routing:
    """`loopback_addresses`: those of lo that are not the kernel's own."""

    rules: tuple[PolicyRule, ...] = ()
    routes: tuple[TableRoute, ...] = ()
    loopback_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """`unread`: what could not be read, and why: then there may be more."""

    tables: tuple[HeldTable, ...] = ()
    routing: Routing = field(default_factory=Routing)
    unread: tuple[str, ...] = ()

    @property
    def ours(self) -> tuple[HeldTable, ...]:
        """The tables in which something is ours."""
        return tuple(table for table in self.tables if owns(table))

    @property
    def rule_ids(self) -> frozenset[str]:
        """Of the rules that are ours."""
        rules = (rule for table in self.tables for _, rule in table.rules if rule.is_ours)
        return frozenset(rule.rule_id for rule in rules if rule.rule_id is not None)


def not_ours(inventory: Inventory) -> Inventory:
    """What is left of it without our tables, chains and rules."""
    tables = []
    for table in inventory.tables:
        if table.whose != HEADGATE:
            chains = tuple(
                replace(chain, rules=tuple(rule for rule in chain.rules if not rule.is_ours))
                for chain in table.chains
                if chain.whose != HEADGATE
            )
            if any(chain.rules for chain in chains):
                tables.append(replace(table, chains=chains))
    routing = inventory.routing
    rules = tuple(rule for rule in routing.rules if rule.whose != HEADGATE)
    routes = tuple(route for route in routing.routes if route.whose != HEADGATE)
    return Inventory(tuple(tables), replace(routing, rules=rules, routes=routes), inventory.unread)


def owns(table: HeldTable) -> bool:
    return (
        table.whose == HEADGATE
        or any(chain.whose == HEADGATE for chain in table.chains)
        or any(rule.is_ours for _, rule in table.rules)
    )
