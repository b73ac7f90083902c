"""Values of ours as text: YAML lines, or JSON where the text round it is JSON (or YAML's flow style)."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_PLAIN: Final = re.compile(r"(?:--|/)?[A-Za-z][A-Za-z0-9_/.-]*(?:[:@][A-Za-z0-9_/.-]+)*|[0-9]+(?:m|Mi)", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
"""Texts that YAML 1.1 takes for something else."""
_STEP: Final = "  "


def block(value: Any) -> Iterator[str]:
    """Its lines, for a collection that holds something."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _under(f"{_scalar(key)}:", inner)
        return
    for item in value:
        first, *others = block(item) if _is_open(item) else [_scalar(item)]
        yield f"- {first}"
        yield from (f"{_STEP}{line}" for line in others)


def _under(key: str, value: Any) -> Iterator[str]:
    if not _is_open(value):
        yield f"{key} {_scalar(value)}"
        return
    yield key
    indent = _STEP if isinstance(value, Mapping) else ""
    yield from (f"{indent}{line}" for line in block(value))


def _is_open(value: Any) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if '"' in value and "'" not in value and value.isascii() and value.isprintable():
        return f"'{value}'"
    return json.dumps(value)


def flow(value: Any, newline: str = "", step: str = "") -> str:
    """As JSON. `newline`: with what a line begins where it stands, the break included; empty: all in one line."""
    if not newline:
        return json.dumps(value, ensure_ascii=False)
    return newline.join(json.dumps(value, indent=step, ensure_ascii=False).split("\n"))
