"""What an injected pod says of itself: which of its parts were made for it, so that they go again.

The annotation's value is JSON: by pointer of a part that had to be made, how an empty one was written there
(` []`, ` ~`); null where there was none.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from agent.inject.edits import Path, part
from agent.inject.errors import Refused

INJECTED: Final = "headgate.io/injected"
PARTS: Final[tuple[Path, ...]] = (
    ("metadata",),
    ("metadata", "annotations"),
    ("spec", "initContainers"),
    ("spec", "containers"),
    ("spec", "volumes"),
)
_POINTERS: Final = {"/" + "/".join(map(str, path)): path for path in PARTS}
_EMPTY: Final = re.compile(r"[ \t\r\n]{0,80}(|~|null|Null|NULL|\[[ \t\r\n]{0,80}\]|\{[ \t\r\n]{0,80}\})")
"""All that is ever written back: whoever writes the annotation must not be able to write the manifest."""
_CANONICAL: Final = {"list": " []", "dict": " {}"}

Made = dict[Path, str | None]


def spelling(value: object, spelled: str | None) -> str:
    """How an empty value is to be written again: as it was, where that can be told."""
    kept = spelled is not None and _EMPTY.fullmatch(spelled)
    return spelled if kept and spelled is not None else _CANONICAL.get(type(value).__name__, " null")


def has_status(pod: Mapping[str, Any]) -> bool:
    return INJECTED in (part(pod, "metadata", "annotations") or {})


def written(made: Made) -> str:
    by_pointer = {pointer: made[path] for pointer, path in _POINTERS.items() if path in made}
    return json.dumps({"made": by_pointer}, separators=(",", ":"))


def read(pod: Mapping[str, Any]) -> Made:
    """Raises Refused."""
    text = str(part(pod, "metadata", "annotations", INJECTED))
    try:
        found = json.loads(text)
        made = found["made"]
        return {_POINTERS[pointer]: _spelled(value) for pointer, value in made.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        reason = "is not as it was written: take out by hand what headgate added, and the annotation"
        raise Refused(f"annotation {INJECTED}", reason) from None


def _spelled(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and _EMPTY.fullmatch(value)):
        raise ValueError
    return value
