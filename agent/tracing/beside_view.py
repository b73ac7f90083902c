"""Explanation and trace side by side, as a table and as JSON. Pure; everything is made printable here."""

from collections.abc import Iterator
from typing import Any, Final

from agent.printable import printable
from agent.tracing.beside import Beside, Row

_LINE: Final = 1000
_SIGNS: Final = {(True, True): "=", (True, False): "-", (False, True): "+"}


def lines(found: Beside) -> Iterator[str]:
    """`=` both, `-` only explain, `+` only the kernel says that the rule matched."""
    yield "live: rules that matched, = by both, - by explain only, + by the kernel's trace only"
    for row in found.rows:
        yield f"  {_SIGNS[row.explained, row.traced]} {_rule(row)}"
    if found.way > 1:
        yield f"it went way {found.way}"
    for note in found.notes:
        yield f"note: {printable(note, _LINE)}"
    for words in found.differs:
        yield f"differs: {printable(words, _LINE)}"
    if not found.differs:
        yield "the kernel's trace agrees"


def _rule(row: Row) -> str:
    met = row.met
    number = f"rule {met.place}" if met.place else f"handle {met.handle}"
    return f"{met.family} {printable(met.table)} {printable(met.chain)} {number}"


def as_json(found: Beside) -> dict[str, Any]:
    """Keys are stable."""
    return {
        "agrees": not found.differs,
        "way": found.way,
        "rules": [
            {
                "family": row.met.family,
                "table": printable(row.met.table),
                "chain": printable(row.met.chain),
                "place": row.met.place or None,
                "handle": row.met.handle,
                "explained": row.explained,
                "traced": row.traced,
            }
            for row in found.rows
        ],
        "differs": [printable(words, _LINE) for words in found.differs],
        "notes": [printable(note, _LINE) for note in found.notes],
    }
