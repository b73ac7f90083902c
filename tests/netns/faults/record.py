"""What the fault tests count, one JSON line a test: build/reliability.json; docs/reliability.md is written from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from agent.lab.objects import write_atomically
from tests.netns.faults.verdict import Verdict

ROOT: Final = Path(__file__).parents[3]
FILE: Final = ROOT / "build" / "reliability.json"


@dataclass(frozen=True, slots=True)
class Line:
    """`key` orders the lines and stands for the fault; `found_s`/`healed_s`: of drift; `note`: what else was seen."""

    key: str
    test: str
    verdict: Verdict
    found_s: float | None = None
    healed_s: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "lost": self.verdict.lost}


def record(line: Line, file: Path = FILE) -> None:
    """Adds the line, or replaces the one of the same key."""
    lines = {found["key"]: found for found in read(file)}
    lines[line.key] = line.as_json()
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, "".join(json.dumps(lines[key], sort_keys=True) + "\n" for key in sorted(lines)))


def read(file: Path = FILE) -> list[dict[str, Any]]:
    """All lines; none when nothing was recorded yet."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
