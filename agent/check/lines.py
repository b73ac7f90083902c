"""What a check says. Pure."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """`FAILED`: headgate cannot be installed, or does not do its work. `WARNING`: some of it, or only perhaps."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Line:
    """One check. `id` is stable, and its place in docs/check.md. `what`: said when it holds, and what did not when it
    does not: `why` and `remedy` then. Texts hold names that others chose: made printable where they are shown."""

    section: str
    id: str
    level: Level
    what: str
    why: str = ""
    remedy: str = ""
