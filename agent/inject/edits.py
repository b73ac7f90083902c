"""Changes of an object: applied to it, or as a JSON Patch (RFC 6902). What they are in a file's text: text_edits."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Put:
    """Into the mapping at `path`: a key that is not there, or one whose value is empty."""

    path: Path
    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Insert:
    """Into the list at `path`, which holds something, in this order; before all, or after."""

    path: Path
    values: tuple[Any, ...]
    first: bool


@dataclass(frozen=True, slots=True)
class Take:
    """Out of the list or mapping at `path`, which keeps others."""

    path: Path
    keys: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Restore:
    """The key's value is empty again. `spelled`: what stood after the colon (` []`, ` ~`, nothing at all)."""

    path: Path
    key: str
    spelled: str

    @property
    def value(self) -> Any:
        return {"[": [], "{": {}}.get(self.spelled.strip()[:1])


Edit = Put | Insert | Take | Restore


def below(prefix: Path, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The same, of an object that is a part of another."""
    return tuple(replace(edit, path=(*prefix, *edit.path)) for edit in edits)


def applied(document: Any, edits: Iterable[Edit]) -> Any:
    """One after the other. The object given stays as it is; what is not touched is shared with it."""
    for edit in edits:
        document = _changed(document, edit.path, edit)
    return document


def _changed(value: Any, path: Path, edit: Edit) -> Any:
    if path:
        step, *rest = path
        copy: Any = list(value) if isinstance(value, list) else dict(value)
        copy[step] = _changed(copy[step], tuple(rest), edit)
        return copy
    match edit:
        case Put() | Restore():
            return {**value, edit.key: edit.value}
        case Insert():
            return [*edit.values, *value] if edit.first else [*value, *edit.values]
        case Take() if isinstance(value, list):
            return [item for index, item in enumerate(value) if index not in edit.keys]
        case Take():
            return {key: inner for key, inner in value.items() if key not in edit.keys}


def json_patch(edits: Iterable[Edit]) -> list[dict[str, Any]]:
    """Operations, in the order in which they are to be done."""
    return [operation for edit in edits for operation in _operations(edit)]


def _operations(edit: Edit) -> Iterator[dict[str, Any]]:
    match edit:
        case Put() | Restore():  # RFC 6902 4.1: a member that exists is replaced
            yield {"op": "add", "path": _pointer(edit.path, edit.key), "value": edit.value}
        case Insert():
            for index, value in enumerate(edit.values):
                yield {"op": "add", "path": _pointer(edit.path, index if edit.first else "-"), "value": value}
        case Take():
            # From the end, so that the other indices still hold.
            for key in sorted(edit.keys, key=lambda key: key if isinstance(key, int) else 0, reverse=True):
                yield {"op": "remove", "path": _pointer(edit.path, key)}


def _pointer(path: Path, key: str | int) -> str:
    """RFC 6901."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in (*path, key))


def part(of: Mapping[str, Any], *keys: str) -> Any:
    """What is there; None where anything on the way is no mapping."""
    value: Any = of
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
