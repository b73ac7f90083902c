"""What cannot be told, followed both ways: the same walk again, with another answer each time. Pure.

A walk is repeated from its beginning rather than copied where it parts: nothing of it needs to be copyable, and what
is certain, which is nearly everything, costs nothing. Two walks that come to the same place in the same state become
one: of twenty rules that each might end a chain there are twenty-one ways, not a million.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

LARGEST_WAYS: Final = 64
"""Ways that are followed to their end. A Service of kube-proxy parts into as many as it has endpoints; beyond this a
person learns no more from one more of them."""


LARGEST_FORKS: Final = 4096
"""Places that a walk parts at, on all ways together: each is remembered with its state, 1 KB."""


class TooLong(Exception):
    """More is met than is followed."""


class Walked(Exception):
    """What lies ahead has been followed from here before, in the same state."""


@dataclass(slots=True)
class Choices:
    """`begin` a walk, `choose` where it parts, until `begin` says there is no other way."""

    _taken: list[int] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)
    _at: int = 0
    _begun: bool = False
    _known: set[Hashable] = field(default_factory=set)

    def begin(self) -> bool:
        """The next way, from the beginning; False when all have been walked."""
        if self._begun:
            while self._taken and self._taken[-1] + 1 >= self._counts[-1]:
                self._taken.pop()
                self._counts.pop()
            if not self._taken:
                return False
            self._taken[-1] += 1
        self._begun, self._at = True, 0
        return True

    def choose(self, count: int, state: Hashable) -> int:
        """Which of `count` answers this walk takes, 0 first. Raises Walked where another has been in `state`,
        TooLong."""
        return self.reserve(state, count)[1]

    def reserve(self, state: Hashable, count: int = 1) -> tuple[int, int]:
        """As `choose`, where only what follows tells whether there is a choice at all: (number, answer); `widen`."""
        if self._at == len(self._taken):
            if state in self._known:
                raise Walked
            if len(self._known) >= LARGEST_FORKS:
                raise TooLong
            self._known.add(state)
            self._taken.append(0)
            self._counts.append(count)
        self._at += 1
        return self._at - 1, self._taken[self._at - 1]

    def widen(self, number: int, count: int) -> None:
        self._counts[number] = count
