"""Tokens of a bound that spans workers, leased in batches: no worker asks another per request.

The bound is exact: what is granted and not given back never exceeds it, whoever dies or stays silent. What batches cost
is that a worker may be without tokens while another has unused ones, until they are recalled. Here for things that are
held and given back (idle connections).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

BATCHES: Final = 8
"""A bound is granted in eighths: eight workers get one each, and a worker that needs most of a bound asks eight times
in all."""

MAX_IDLE_A_POD: Final = 256
"""Idle connections of all a pod's upstreams, in all its workers together (DESIGN 6, pools)."""


def batch_of(bound: int) -> int:
    """Tokens of one grant; at least 1."""
    return max(1, bound // BATCHES)


@dataclass(frozen=True, slots=True)
class Grant:
    holder: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Recall:
    """`holder` is asked to give back up to `tokens`; what it uses it keeps until it falls free."""

    holder: int
    tokens: int


@dataclass(slots=True)
class Ledger:
    """Who holds how much of one bound. Holders are workers by number; `ask`, `give_back` and `reclaim` return what to
    tell them. A holder is in `waiting` while its ask could not be answered, served in order."""

    bound: int
    batch: int
    _held: dict[int, int] = field(default_factory=dict)
    _waiting: list[int] = field(default_factory=list)
    _recalled: dict[int, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        return self.bound - sum(self._held.values())

    @property
    def held(self) -> Mapping[int, int]:
        return self._held

    @property
    def waiting(self) -> tuple[int, ...]:
        return tuple(self._waiting)

    def open(self, holder: int) -> int:
        """The first grant of a holder: everything while it is alone, since then no other needs it."""
        tokens = self.free if not self._held else min(self.batch, self.free)
        self._held[holder] = self._held.get(holder, 0) + tokens
        return tokens

    def ask(self, holder: int) -> Grant | Recall | None:
        """One batch more, or whom to recall it from; None: nobody has more than the holder itself."""
        tokens = min(self.batch, self.free)
        if tokens:
            self._held[holder] = self._held.get(holder, 0) + tokens
            return Grant(holder, tokens)
        if holder not in self._waiting:
            self._waiting.append(holder)
        return self._recall_for(holder)

    def give_back(self, holder: int, tokens: int) -> list[Grant]:
        """Only what was recalled; anything else was said of an earlier ledger of the same name, and is passed over."""
        recalled = self._recalled.get(holder, 0)
        if not 0 < tokens <= recalled:
            return []
        self._held[holder] -= tokens
        self._recalled[holder] = recalled - tokens
        return self._serve_waiting()

    def reclaim(self, holder: int) -> list[Grant]:
        """The holder is gone, and what it held with it."""
        self._held.pop(holder, None)
        self._recalled.pop(holder, None)
        if holder in self._waiting:
            self._waiting.remove(holder)
        return self._serve_waiting()

    def _serve_waiting(self) -> list[Grant]:
        grants = []
        while self._waiting and (tokens := min(self.batch, self.free)):
            holder = self._waiting.pop(0)
            self._held[holder] = self._held.get(holder, 0) + tokens
            grants.append(Grant(holder, tokens))
        return grants

    def _recall_for(self, asking: int) -> Recall | None:
        """From whoever would keep most, and keeps more than the asking one: two starving workers do not take from each
        other in turns."""
        left = {holder: held - self._recalled.get(holder, 0) for holder, held in self._held.items()}
        richest = max(left, key=lambda holder: left[holder], default=asking)
        tokens = min(self.batch, (left.get(richest, 0) - left.get(asking, 0)) // 2)
        if richest == asking or tokens <= 0:
            return None
        self._recalled[richest] = self._recalled.get(richest, 0) + tokens
        return Recall(richest, tokens)
