"""Rules as iptables-save prints them, read one at a time."""

from agent.explain.iptables_text import tables
from agent.explain.statements import Statement
from agent.explain.tables import Rule, Table, Tool


def table_of(text: str, family: str = "ip", tool: Tool = Tool.IPTABLES_LEGACY) -> Table:
    (table,) = tables(text, tool, family)
    return table


def rule_of(spec: str, family: str = "ip") -> Rule:
    table = table_of(f"*mangle\n:PREROUTING ACCEPT [0:0]\n:MINE - [0:0]\n-A PREROUTING {spec}\nCOMMIT\n", family)
    (rule,) = table.chains["PREROUTING"].rules
    return rule


def read(spec: str, family: str = "ip") -> tuple[Statement, ...]:
    return rule_of(spec, family).statements
