"""What a probe saw, beside what it was to see. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from agent.printable import printable
from agent.verify.matrix import Cell


class Result(Enum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It could not be tried, or nothing told what became of it: the reason says which."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`captured` is the port that it was led to, None that it went on as it was. `lost`: it never came through the
    rules at all; the text says how that showed. `told_by`: the evidence."""

    captured: int | None = None
    told_by: str = ""
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Untold:
    """Nothing was seen, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    cell: Cell
    result: Result
    seen: str
    reason: str


def judged(cell: Cell, seen: Seen | Untold) -> Outcome:
    wanted = cell.expected.captured
    match seen:
        case Untold(reason=reason):
            return Outcome(cell, Result.UNKNOWN, "-", reason)
        case Seen(lost=lost) if lost:
            return Outcome(cell, Result.FAILED, "dropped", lost)
        case Seen(captured=port, told_by=told_by) if port == wanted:
            return Outcome(cell, Result.OK, said(port), told_by)
        case Seen(captured=None):
            why = f"it went past the proxy; rule {cell.expected.rule_id} should have led it to port {wanted}"
            return Outcome(cell, Result.FAILED, said(None), why)
        case Seen(captured=port) if wanted is None:
            why = f"it was led to port {port}; rule {cell.expected.rule_id} should have left it alone"
            return Outcome(cell, Result.FAILED, said(port), why)
        case Seen(captured=port):
            return Outcome(cell, Result.FAILED, said(port), f"led to port {port} instead of {wanted}")


def said(captured: int | None) -> str:
    return "direct" if captured is None else f"to {captured}"


@dataclass(frozen=True, slots=True)
class Report:
    """`untried`: families that the namespace has not, and other reasons why cells are missing. `seconds`: in all."""

    outcomes: tuple[Outcome, ...]
    untried: tuple[str, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.result is Result.FAILED)

    @property
    def ok(self) -> bool:
        """Nothing failed, and where something is to be captured at least one connection was seen captured: a matrix of
        which nothing could be tried proves nothing."""
        captures = [o for o in self.outcomes if o.cell.expected.captured is not None]
        proved = any(outcome.result is Result.OK for outcome in captures)
        return not self.failed and bool(self.outcomes) and (proved or not captures)

    @property
    def why_not(self) -> str:
        """Of a report that is not ok."""
        if self.failed:
            return ", ".join(outcome.cell.title for outcome in self.failed)
        return "no connection that is to be captured could be tried"

    @property
    def summary(self) -> str:
        """As `21 ok, 1 unknown`."""
        results = [outcome.result for outcome in self.outcomes]
        return ", ".join(f"{results.count(one)} {one.value}" for one in Result if one in results) or "nothing tried"

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (
                o.cell.family.value,
                o.cell.sender.value,
                o.cell.name,
                o.cell.dialled,
                said(o.cell.expected.captured),
                o.seen,
                o.result.value if o.result is not Result.FAILED else "FAILED",
                o.reason,
            )
            for o in self.outcomes
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "cells": [_cell(outcome) for outcome in self.outcomes],
            "untried": [printable(reason) for reason in self.untried],
        }


HEAD = ("FAMILY", "SENDER", "WHAT", "TO", "EXPECTED", "SEEN", "RESULT", "REASON")


def _cell(outcome: Outcome) -> dict[str, Any]:
    cell = outcome.cell
    return {
        "family": cell.family.value,
        "protocol": cell.protocol.value,
        "sender": cell.sender.value,
        "name": cell.name,
        "uid": cell.uid,
        "gid": cell.gid,
        "mark": cell.mark,
        "source": str(cell.source),
        "destination": str(cell.destination),
        "port": cell.port,
        "expected": said(cell.expected.captured),
        "rule": cell.expected.rule_id,
        "seen": outcome.seen,
        "result": outcome.result.value,
        "reason": printable(outcome.reason, 400),
    }
