"""What an API server says on a watch: one JSON object a line (kubernetes.io/docs: API concepts, Efficient detection of
changes). Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from agent.kube.errors import ApiRefused
from agent.kube.list_items import MAX_ITEM_CHARACTERS
from agent.printable import printable


class What(Enum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"  # only says how far the server has come


_KINDS: Final = {what.value: what for what in What}
_ERROR: Final = "ERROR"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    what: What
    body: dict[str, Any]
    version: str


class NoEvent(ValueError):
    """A line that is no event; nothing behind it can be trusted either."""


@dataclass(slots=True)
class WatchLines:
    """Give it bytes with `feed`, take events from what that returns."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> Iterator[WatchEvent]:
        """Raises ApiRefused for the server's ERROR, NoEvent."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_ITEM_CHARACTERS:
            raise NoEvent(f"an event longer than {MAX_ITEM_CHARACTERS} bytes")
        for line in lines:
            if line.strip():
                yield _event(line)


def _event(line: bytes) -> WatchEvent:
    try:
        told = json.loads(line)
        kind, body = told["type"], told["object"]
        if kind == _ERROR:
            raise ApiRefused(int(body.get("code") or 500), _word(body, "reason"), _word(body, "message"))
        version = body["metadata"]["resourceVersion"]
        if not isinstance(version, str) or not version:  # to ask on from nowhere would lose what is gone meanwhile
            raise ValueError("it has no resourceVersion")
        return WatchEvent(_KINDS[kind], body, version)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoEvent(f"a line that is no watch event: {printable(str(error), 100)}") from error


def _word(status: dict[str, Any], key: str) -> str:
    return printable(str(status.get(key) or ""), 300)
