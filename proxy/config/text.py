"""Strings from objects and files, made safe to print: in a log line, a terminal, a page, an HTTP header."""

from typing import Final

from proxy.model.snapshot import Rejection

MAX_QUOTED: Final = 80
"""Characters of a foreign value that a message repeats: enough to find it, too few to flood a log."""


def printable(text: str) -> str:
    """`text` with whatever is not printable ASCII as a backslash escape; the backslash itself is left alone."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isascii() and c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def quoted(value: object) -> str:
    """A foreign value as a message shows it, with its type where that is the point: `text "90"`, `a mapping`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        short = value if len(value) <= MAX_QUOTED else value[:MAX_QUOTED] + "..."
        return f'text "{printable(short)}"'
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f"{type(value).__name__} {value}"


def render_rejection(rejection: Rejection) -> str:
    """One line for an operator: object, field, reason, what is in force instead, remedy, file and line."""
    line = f"{rejection.object}: {rejection.field}: " if rejection.field else f"{rejection.object}: "
    line += rejection.reason
    if rejection.stale:
        line += "; its last good version stays in force"
    if rejection.remedy:
        line += f"; {rejection.remedy}"
    if rejection.source:
        line += f" ({rejection.source})"
    return printable(line)
