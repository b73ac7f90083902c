"""The verdicts as people and programs read them. Pure; everything is made printable here."""

from typing import Any, Final

from agent.printable import printable
from agent.why.facts import Facts
from agent.why.steps import first_failure
from agent.why.verdict import Result, Verdict

_LINE: Final = 1000
"""Characters of one line: a port's holder, four proofs with their reasons."""
_SIGNS: Final = {
    Result.PASSED: "ok",
    Result.NOTED: "ok",
    Result.UNKNOWN: "?",
    Result.SKIPPED: "-",
    Result.FAILED: "FAILED",
}


def lines(facts: Facts, verdicts: tuple[Verdict, ...]) -> list[str]:
    """Each step up to the first that fails, then that one in full, then a line for each of the others that has
    something to say."""
    cause = first_failure(verdicts)
    at = len(verdicts) if cause is None else verdicts.index(cause)
    told = [line for verdict in verdicts[:at] for line in _line(verdict)]
    if cause is None:
        return [*told, "", _end(facts, verdicts)]
    told += in_full(cause)
    rest = [line for verdict in verdicts[at + 1 :] if verdict.result is not Result.SKIPPED for line in _line(verdict)]
    return [*told, "", "beyond that:", *rest] if rest else told


def _line(verdict: Verdict) -> list[str]:
    told = f"{_SIGNS[verdict.result]:<7}{verdict.step.value:<12}{printable(verdict.found, _LINE)}"
    return [told, *(f"{'':<19}note: {printable(note, _LINE)}" for note in verdict.notes)]


def in_full(verdict: Verdict) -> list[str]:
    """Of a step that fails."""
    told = [
        *_line(verdict),
        f"  why     {printable(verdict.why, _LINE)}",
        f"  remedy  {printable(verdict.remedy, _LINE)}",
    ]
    return told + [f"          $ {printable(command, _LINE)}" for command in verdict.commands]


def _end(facts: Facts, verdicts: tuple[Verdict, ...]) -> str:
    unseen = [verdict.step.value for verdict in verdicts if verdict.result is Result.UNKNOWN]
    name = printable(facts.asked) or "the namespace"
    if unseen:
        return f"{name}: no step fails; not looked at: {', '.join(unseen)}"
    return f"{name} is in the mesh, and it is proved"


def as_json(facts: Facts, verdicts: tuple[Verdict, ...]) -> dict[str, Any]:
    """Keys are stable. `failed`: the first step that fails, null when none does."""
    cause = first_failure(verdicts)
    return {
        "pod": printable(facts.asked) or None,
        "ok": cause is None,
        "failed": None if cause is None else cause.step.value,
        "steps": [_step(verdict) for verdict in verdicts],
    }


def _step(verdict: Verdict) -> dict[str, Any]:
    told: dict[str, Any] = {
        "step": verdict.step.value,
        "result": verdict.result.value,
        "found": printable(verdict.found, _LINE),
        "notes": [printable(note, _LINE) for note in verdict.notes],
    }
    if verdict.result is Result.FAILED:
        told |= {
            "why": printable(verdict.why, _LINE),
            "remedy": printable(verdict.remedy, _LINE),
            "commands": [printable(command, _LINE) for command in verdict.commands],
        }
    return told
