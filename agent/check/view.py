"""Lines as people and programs read them. Pure; everything is made printable here."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from agent.check.lines import Level, Line
from agent.printable import printable

_SIGNS: Final = {Level.OK: "√", Level.WARNING: "‼", Level.FAILED: "×"}
"""Those of `linkerd check`."""
_TEXT: Final = 1000
_PAGE: Final = "docs/check.md"


def text(lines: Sequence[Line]) -> str:
    parts = []
    for section, group in groupby(lines, key=lambda line: line.section):
        parts.append("\n".join((section, "-" * len(section), *(_shown(line) for line in group))))
    return "\n\n".join((*parts, summary(lines)))


def _shown(line: Line) -> str:
    shown = f"{_SIGNS[line.level]} {printable(line.what, _TEXT)}"
    if line.level is Level.OK:
        return shown
    why, remedy = printable(line.why, _TEXT), printable(line.remedy, _TEXT)
    return f"{shown}\n    {why}\n    remedy: {remedy}\n    see {_PAGE}#{line.id}"


def summary(lines: Iterable[Line]) -> str:
    listed = list(lines)
    failed, warned = (sum(line.level is level for line in listed) for level in (Level.FAILED, Level.WARNING))
    sign = _SIGNS[Level.FAILED if failed else Level.OK]
    return f"Status check results are {sign} ({len(listed)} checks, {failed} failed, {warned} warnings)"


def as_json(lines: Iterable[Line]) -> dict[str, Any]:
    """Keys are stable."""
    listed = list(lines)
    return {
        "success": not any(line.level is Level.FAILED for line in listed),
        "checks": [
            {
                "section": line.section,
                "id": line.id,
                "result": line.level.value,
                "what": printable(line.what, _TEXT),
                "why": printable(line.why, _TEXT),
                "remedy": printable(line.remedy, _TEXT),
                "see": f"{_PAGE}#{line.id}",
            }
            for line in listed
        ],
    }
