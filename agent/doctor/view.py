"""Findings as people and programs read them. Pure; everything is made printable here or by the table's writer."""

from collections.abc import Iterable
from typing import Any, Final

from agent.doctor.findings import ORDER, Finding, Severity, Unseen
from agent.printable import printable

HEAD: Final = ("SEVERITY", "ID", "WHERE", "WHAT")
_TEXT: Final = 1000
_WHERE: Final = 200
_SHOWN: Final = 3
_INDENT: Final = "  "


def rows(findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    """One line each; what is alike in several places is told once."""
    return [(alike[0].severity.value.upper(), alike[0].id, _places(alike), alike[0].what) for alike in _alike(findings)]


def wide(findings: Iterable[Finding]) -> str:
    """Paragraphs, with why and what to do."""
    parts = []
    for alike in _alike(findings):
        first = alike[0]
        parts.append(f"{first.severity.value.upper()} {first.id}: {_places(alike)}: {printable(first.what, _TEXT)}")
        parts.append(f"{_INDENT}why     {printable(first.why, _TEXT)}")
        parts.append(f"{_INDENT}remedy  {printable(first.remedy, _TEXT)}\n")
    return "\n".join(parts).rstrip("\n")


def _alike(findings: Iterable[Finding]) -> list[list[Finding]]:
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.id, finding.severity.value, finding.what), []).append(finding)
    return list(groups.values())


def _places(alike: list[Finding]) -> str:
    names = list(dict.fromkeys(printable(finding.where, _WHERE) for finding in alike))
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def unseen_lines(unseen: Iterable[Unseen]) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for one in unseen:
        groups.setdefault((one.what, one.reason), []).append(printable(one.where, _WHERE))
    lines = []
    for (what, reason), names in groups.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        lines.append(f"not looked at: {what} of {', '.join(names[:_SHOWN])}{more}: {printable(reason, _TEXT)}")
    return lines


def summary(findings: Iterable[Finding], pods: int, seconds: float) -> str:
    listed = list(findings)
    counts = [(sum(one.severity is severity for one in listed), severity.value) for severity in ORDER]
    return f"{', '.join(f'{number} {name}' for number, name in counts)}; {pods} pods, {seconds:.2f} s"


def as_json(findings: Iterable[Finding], unseen: Iterable[Unseen], pods: int) -> dict[str, Any]:
    """Keys are stable."""
    listed = list(findings)
    return {
        "serious": sum(one.severity is Severity.SERIOUS for one in listed),
        "pods": pods,
        "findings": [
            {
                "id": one.id,
                "severity": one.severity.value,
                "where": printable(one.where, _TEXT),
                "what": printable(one.what, _TEXT),
                "why": printable(one.why, _TEXT),
                "remedy": printable(one.remedy, _TEXT),
            }
            for one in listed
        ],
        "unseen": [
            {"what": one.what, "where": printable(one.where, _TEXT), "reason": printable(one.reason, _TEXT)}
            for one in unseen
        ],
    }
