"""Breadth first over every interleaving, each state once, with the shortest way to a violation.

One pod first. Then two: what one pod can do depends on the other only through agent and proxy, so a move of either is
looked up in the table that exploring one pod has filled, and what moves agent or proxy moves both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final, TypeVar

from tests.property.agent.reconcile.checks import check, check_end, fair
from tests.property.agent.reconcile.lives import Lives
from tests.property.agent.reconcile.model import Pod, Violation, World
from tests.property.agent.reconcile.moves import moves

Place = tuple[str, str, int]
"""(agent, proxy, pod by number): the node as one pod sees it."""
Pair = tuple[str, str, int, int]
"""The same for two pods, the lower number first: which is which makes no difference."""
S = TypeVar("S")
Came = dict[S, tuple[S, str] | None]
"""Where each state was first reached from, and how; None for a seed."""

_FAIR_STEPS: Final = 400
_KILLED: Final = "agent is killed"
_SHARED: Final = frozenset({
    "agent starts", "agent is told to stop", "agent ends",
    "proxy starts", "proxy connects", "proxy is killed", "listeners are parked",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exits:
    """Where a place leads: by what the pod alone does or suffers, and by what happens to agent or proxy."""

    own: tuple[tuple[str, Place], ...]
    shared: tuple[tuple[str, Place], ...]


@dataclass
class Explorer:
    lives: Lives = field(default_factory=Lives)
    transitions: int = 0
    _pods: list[Pod] = field(default_factory=list)
    _numbers: dict[Pod, int] = field(default_factory=dict)
    _exits: dict[Place, Exits] = field(default_factory=dict)
    _live: set[World] = field(default_factory=set)

    def place(self, world: World) -> Place:
        (pod,) = world.pods
        number = self._numbers.setdefault(pod, len(self._pods))
        if number == len(self._pods):
            self._pods.append(pod)
        return world.agent, world.proxy, number

    def world(self, place: Place) -> World:
        return World(place[0], place[1], (self._pods[place[2]],))

    # ── One pod ────────────────────────────────────────────────────────────────────────────────────────────────────
    def one_pod(self, seeds: Iterable[World], depth: int) -> Came[Place]:
        """Every place within `depth` moves of the seeds, each judged. Raises Violation with the way that led there."""
        came: Came[Place] = {self.place(seed): None for seed in seeds}
        front = list(came)
        for _ in range(depth):
            ahead = []
            for place in front:
                try:
                    exits = self._exits_of(place)
                except Violation as violation:
                    raise _traced(violation, came, place) from violation
                for label, after in (*exits.own, *exits.shared):
                    self.transitions += 1
                    if after not in came:
                        came[after] = (place, label)
                        ahead.append(after)
            front = ahead
            self._judge_all(came, front)
        return came

    def _exits_of(self, place: Place) -> Exits:
        found = self._exits.get(place)
        if found is None:
            own: list[tuple[str, Place]] = []
            shared: list[tuple[str, Place]] = []
            for label, world in moves(self.lives, self.world(place)):
                both = label in _SHARED or label.startswith(_KILLED)
                (shared if both else own).append((label, self.place(world)))
            found = self._exits[place] = Exits(tuple(own), tuple(shared))
        return found

    def _judge_all(self, came: Came[Place], places: Iterable[Place]) -> None:
        for place in places:
            try:
                check(self.lives, self.world(place))
                self._comes_to_its_end(self.world(place))
            except Violation as violation:
                raise _traced(violation, came, place) from violation

    def _comes_to_its_end(self, world: World) -> None:
        """Left alone from here on. Ways that meet are walked once."""
        walked: set[World] = set()
        following: World | None = world
        while following is not None and following not in self._live:
            if following in walked or len(walked) > _FAIR_STEPS:
                raise Violation(f"left alone it goes round and round: {following}")
            walked.add(following)
            world, following = following, fair(self.lives, following)
        if following is None:
            check_end(self.lives, world)
        self._live |= walked

    # ── Two pods ───────────────────────────────────────────────────────────────────────────────────────────────────
    def two_pods(self, seeds: Iterable[tuple[World, World]], depth: int) -> set[Pair]:
        """Every pair of places within `depth` moves. `seen_by_each` tells what there is to be judged of them."""
        came = {_pair(self.place(one), self.place(other)) for one, other in seeds}
        front = list(came)
        for _ in range(depth):
            ahead = []
            for pair in front:
                for _, after in self._exits_of_two(pair):
                    self.transitions += 1
                    if after not in came:
                        came.add(after)
                        ahead.append(after)
            front = ahead
        return came

    def _exits_of_two(self, pair: Pair) -> Iterator[tuple[str, Pair]]:
        agent, proxy, one, other = pair
        first, second = (agent, proxy, one), (agent, proxy, other)
        mine, yours = self._exits_of(first), self._exits_of(second)
        for label, after in mine.own:
            yield label, _pair(after, second)
        for label, after in yours.own:
            yield label, _pair(first, after)
        for (label, after), (same, too) in product(mine.shared, yours.shared):
            # The agent is killed in one worker's action while the other's stands wherever it stands.
            if label == same or (label.startswith(_KILLED) and same.startswith(_KILLED)):
                yield label, _pair(after, too)


def seen_by_each(pairs: Iterable[Pair]) -> set[Place]:
    """The places of pairs. Every check speaks of one pod, agent and proxy: a pair is as good as its two places."""
    return {(agent, proxy, pod) for agent, proxy, one, other in pairs for pod in (one, other)}


def _pair(one: Place, other: Place) -> Pair:
    assert one[:2] == other[:2], "one agent and one proxy"
    low, high = sorted((one[2], other[2]))
    return one[0], one[1], low, high


def _traced(violation: Violation, came: Came[S], state: S) -> Violation:
    way = []
    while (before := came[state]) is not None:
        state, label = before
        way.append(label)
    return Violation(f"{violation}, after: {' · '.join(reversed(way))}")
