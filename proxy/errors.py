"""What the proxy refuses, in words for the person who must act; and how foreign text is shown."""

import unicodedata
from typing import Final

PRINTABLE_LIMIT: Final = 200
"""Characters of foreign text that one message shows."""


class CannotStart(Exception):
    """The proxy cannot run as configured. Not worth a retry: a setting or a permission must change."""


class CannotServe(Exception):
    """A pod cannot be served now; the text goes to the agent as the nack. The agent may try again later."""


def printable(text: str, limit: int = PRINTABLE_LIMIT) -> str:
    """Foreign text made safe for a log line or terminal: controls and separators escaped, length bounded."""
    cut = text[:limit]
    shown = "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else ascii(c)[1:-1] for c in cut)
    return shown if len(text) <= limit else shown + "…"
