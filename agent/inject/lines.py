"""Where a text's lines begin and end."""

import re
from bisect import bisect_right
from typing import Final

_BREAK: Final = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""YAML 1.1, 5.4."""


class Lines:
    """Of one text; its places count from 0, its lines from 1."""

    __slots__ = ("_starts", "newline", "text")

    def __init__(self, text: str) -> None:
        breaks = [(found.end(), found.group()) for found in _BREAK.finditer(text)]
        self.text = text
        self.newline = breaks[0][1] if breaks else "\n"
        self._starts = [0, *(end for end, _ in breaks)]

    def number(self, at: int) -> int:
        return bisect_right(self._starts, at)

    def start(self, at: int) -> int:
        """Of the line that `at` is in."""
        return self._starts[self.number(at) - 1]

    def column(self, at: int) -> int:
        return at - self.start(at)

    def end(self, at: int) -> int:
        """Where the next line begins, of the line that `at` is behind something in; `at` itself where a line begins:
        a text in block style (`|`) ends there."""
        number = self.number(at)
        if at and at == self._starts[number - 1]:
            return at
        return self._starts[number] if number < len(self._starts) else len(self.text)

    def before(self, at: int) -> int:
        """Where the break begins that ends before `at`, the start of a line but the first."""
        return at - (2 if self.text[at - 2 : at] == "\r\n" else 1)

    def is_open(self, at: int) -> bool:
        """Whether it is the end of a text whose last line does not end."""
        return at == len(self.text) and at != self._starts[-1]

    @staticmethod
    def last(blank: str) -> str:
        """What stands in its last line; empty where it has no second one."""
        return _BREAK.split(blank)[-1] if _BREAK.search(blank) else ""
