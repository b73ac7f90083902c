"""What nft 1.0.6 lists on 6.18 as JSON: 367 rules, one for each thing that it can say, and the sets that they name.

tests/netns/explain/test_nft_read.py asks the kernel whether it is still so.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.explain.nft_json import tables
from agent.explain.statements import Statement
from agent.explain.tables import Rule, Table

LISTED = Path(__file__).with_name("nft_listed.json")


@dataclass(frozen=True, slots=True)
class Listed:
    """`place`: family, table and chain. `expr`: as JSON. `words`: what it means."""

    place: str
    rule: str
    expr: list[Any]
    words: str


@functools.cache
def listing() -> tuple[list[Any], dict[str, Listed]]:
    """Everything but the rules, and the rules by their text."""
    read = json.loads(LISTED.read_text())
    return read["objects"], {rule: Listed(place, rule, expr, words) for place, rule, expr, words in read["rules"]}


def document(*rules: Any, objects: tuple[Any, ...] = ()) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}, *objects, *rules]})


def rule(*expr: Any, place: str = "inet t c", handle: int = 1, **more: Any) -> dict[str, Any]:
    family, table, chain = place.split(" ")
    return {"rule": {"family": family, "table": table, "chain": chain, "handle": handle, "expr": list(expr), **more}}


def read_rule(listed: Listed) -> Rule:
    """As it stands among the listing's tables and sets."""
    family, name, chain = listed.place.split(" ")
    text = document(rule(*listed.expr, place=listed.place), objects=tuple(listing()[0]))
    (table,) = (found for found in tables(text) if (found.family, found.name) == (family, name))
    return table.chains[chain].rules[0]


def read(*expr: Any, place: str = "inet t c", objects: tuple[Any, ...] = ()) -> tuple[Statement, ...]:
    """The statements of one rule."""
    return only(document(rule(*expr, place=place), objects=objects)).chains["c"].rules[0].statements


def only(text: str) -> Table:
    (table,) = tables(text)
    return table
