"""Parts of what an API server or an agent has sent. Pure."""

from collections.abc import Mapping
from typing import Any


class Shapeless(ValueError):
    """An answer that is not what was asked for: where."""


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Shapeless(f"{where}: no object")
    return value


def part(of: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A mapping within; empty where there is none. Raises Shapeless."""
    value: Any = of
    for name in names:
        value = value.get(name) or {}
        mapping(value, name)
    return dict(value)


def text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    return value if isinstance(value, str) else ""


def number(of: Mapping[str, Any], name: str) -> int:
    value = of.get(name)
    return value if isinstance(value, int) else 0
