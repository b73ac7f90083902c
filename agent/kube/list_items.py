"""A list as it arrives, its items one by one: 10,000 pods are never in memory as JSON and as values at once. Pure.

Core kinds are written with `metadata` before `items`, others' in alphabetical order: both are read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_BLANK: Final = " \t\r\n"
_DECODER: Final = json.JSONDecoder()
MAX_ITEM_CHARACTERS: Final = 8 << 20
"""Above what the API server takes for an object, 3 MiB (apiserver/pkg/server/config.go: MaxRequestBodyBytes)."""


class NoList(ValueError):
    """What was read is no list of Kubernetes objects; the message says where."""


@dataclass(slots=True)
class ListItems:
    """Give it text with `feed`, take items from what that returns; `done` once the list's end was seen.

    `version`, `more`: resourceVersion, and the token for the next page, empty for none. Valid when done.
    """

    version: str = ""
    more: str = ""
    api_version: str = ""
    kind: str = ""
    done: bool = False
    _text: str = ""
    _items: bool = False
    _began: bool = field(default=False)

    def feed(self, text: str) -> Iterator[dict[str, Any]]:
        """The items that are whole now. Raises NoList."""
        self._text += text
        while not self.done:
            taken = self._item() if self._items else self._member()
            if taken is None:
                if len(self._text) > MAX_ITEM_CHARACTERS:
                    raise NoList(f"an object longer than {MAX_ITEM_CHARACTERS} characters")
                return
            if isinstance(taken, dict):
                yield taken

    def _member(self) -> bool | None:
        """One more of the list's own members, or up to the first item. None: more text is needed."""
        at = _skip(self._text, 0, "," if self._began else "")
        if at >= len(self._text):
            return None
        if not self._began:
            return self._open(at)
        if self._text[at] == "}":
            self.done = True
            return True
        name, after = _value(self._text, at)
        colon = _skip(self._text, after, "")
        if after < 0 or colon >= len(self._text):
            return None
        if not isinstance(name, str) or self._text[colon] != ":":
            raise NoList("a member without a name")
        return self._named(name, _skip(self._text, colon + 1, ""))

    def _open(self, at: int) -> bool:
        if self._text[at] != "{":
            raise NoList("it does not begin with {")
        self._began, self._text = True, self._text[at + 1 :]
        return True

    def _named(self, name: str, at: int) -> bool | None:
        if at >= len(self._text):
            return None
        if name == "items" and self._text[at] == "[":
            self._items, self._text = True, self._text[at + 1 :]
            return True
        value, end = _value(self._text, at)
        if end < 0 or end >= len(self._text):  # a number could go on
            return None
        self._text = self._text[end:]
        if name == "metadata" and isinstance(value, dict):
            self.version, self.more = str(value.get("resourceVersion") or ""), str(value.get("continue") or "")
        elif name == "kind":
            self.kind = str(value)
        elif name == "apiVersion":
            self.api_version = str(value)
        return True

    def _item(self) -> dict[str, Any] | bool | None:
        at = _skip(self._text, 0, ",")
        if at >= len(self._text):
            return None
        if self._text[at] == "]":
            self._items, self._text = False, self._text[at + 1 :]
            return True
        value, end = _value(self._text, at)
        if end < 0:
            return None
        if not isinstance(value, dict):
            raise NoList("an item that is no object")
        self._text = self._text[end:]
        return value


def _value(text: str, at: int) -> tuple[Any, int]:
    """The value that begins there and where it ends; -1 while it is not whole."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        return None, -1
    except RecursionError:
        raise NoList("nested too deeply") from None


def _skip(text: str, at: int, also: str) -> int:
    while at < len(text) and (text[at] in _BLANK or text[at] in also):
        at += 1
    return at
