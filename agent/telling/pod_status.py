"""What is to stand on each pod of the node, what stands there, and which is to be written next. Pure: time is given.

Level, not edge: nothing is remembered of an hour without an API server but what is so at its end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from agent.kube.backoff import Backoff
from agent.pods import Pairs, PodRef
from agent.pods.told import REASON, STATUS, TOLD
from agent.printable import printable
from agent.reconcile import Life, State

SETTLE_S: Final = 5.0
"""A state that is not the good one is told when it lasts: a pod that starts goes through six in a tenth of a second, a
drift is healed within two, and every agent of the cluster hears of each change (its watch of all pods). So long a
pending pod waits for its next attempt (LifeSettings.retry_s)."""
REASON_EVERY_S: Final = 60.0
"""The same state for another reason: as often as an Event (agent.events.WINDOW_S)."""
CALM_S: Final = 600.0
"""A pod that is written more often than so rests twice as long after each write, up to REASON_EVERY_S: what comes and
goes in a loop is no load, of however many pods."""
REASON_CHARACTERS: Final = 512
"""A pod's annotations have 256 KiB together (apimachinery/pkg/api/validation: TotalAnnotationSizeLimitB)."""


class Word(Enum):
    ENROLLED = "enrolled"  # proved
    PENDING = "pending"  # wanted, and not proved
    FAILED = "failed"  # cannot be enrolled as it is
    LEAVING = "leaving"
    NOTHING = ""  # none of ours


@dataclass(frozen=True, slots=True)
class PodStatus:
    word: Word
    reason: str = ""

    def pairs(self) -> Pairs:
        """As annotations."""
        if self.word is Word.NOTHING:
            return ()
        said = ((STATUS, self.word.value), (REASON, printable(self.reason, REASON_CHARACTERS)))
        return tuple(pair for pair in said if pair[1])


NOTHING: Final = PodStatus(Word.NOTHING)


def status_of(life: Life | None, waits: str = "") -> PodStatus:
    """`life` None: the pod has none; `waits` says why, of one that is selected."""
    if life is None:
        return PodStatus(Word.PENDING, waits) if waits else NOTHING
    match life.state:
        case State.PROVED:
            return PodStatus(Word.ENROLLED, life.reason)
        case State.FAILED:
            return PodStatus(Word.FAILED, life.reason)
        case State.LEAVING:  # not its reason: the number of connections that are left is another each second
            return PodStatus(Word.LEAVING, life.pod.left_out or life.complaint)
        case State.DISABLED | State.GONE:
            return NOTHING
    return PodStatus(Word.PENDING, life.reason)


def patch(pod: PodRef, said: Pairs) -> dict[str, Any]:
    """A merge patch, for this pod only: another one of its name has another uid, and is left alone (409)."""
    given = dict(said)
    return {"metadata": {"uid": pod.uid, "annotations": {key: given.get(key) for key in sorted(TOLD)}}}


@dataclass(frozen=True, slots=True)
class Standing:
    """A pod of the node. `shown`: what the API server was last heard to have of us on it; `wanted`: what is so."""

    pod: PodRef
    shown: Pairs
    wanted: PodStatus


@dataclass(frozen=True, slots=True)
class _Known:
    """`since_s`: when the present word was wanted first. `written`: what was shown, and what was written then: a watch
    that still shows the former has not heard of it yet. `tried`: something was sent, whatever came of it."""

    wanted: PodStatus
    since_s: float
    written_s: float = 0.0
    not_before_s: float = 0.0
    in_a_row: int = 0
    written: tuple[Pairs, Pairs] | None = None
    tried: bool = False
    backoff: Backoff = field(default_factory=Backoff)


class StatusBook:
    """Of each pod, by uid. `behind`: those on which something else stands than what is so, as of the last look."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self.behind: frozenset[str] = frozenset()

    def due(self, standings: Iterable[Standing], now_s: float) -> list[Standing]:
        """Whose annotations are to be written now: who has waited longest first, but behind all whose writing has not
        failed. Pods that are not named are forgotten."""
        before, self._known = self._known, {}
        due: list[tuple[int, float, Standing]] = []
        behind: set[str] = set()
        for standing in standings:
            uid, wanted = standing.pod.uid, standing.wanted
            known = before.get(uid) or _Known(wanted, now_s)
            if known.wanted != wanted:
                since_s = known.since_s if known.wanted.word is wanted.word else now_s
                known = replace(known, wanted=wanted, since_s=since_s)
            self._known[uid] = known
            if _shown(standing, known) == wanted.pairs():
                continue
            behind.add(uid)
            if now_s >= _not_before_s(standing, known):
                due.append((known.backoff.failures, known.since_s, standing))
        self.behind = frozenset(behind)
        return [standing for _, _, standing in sorted(due, key=lambda one: one[:2])]

    def written(self, standing: Standing, now_s: float) -> None:
        """It stands there. Not again at once, whoever else writes it."""
        known = self._known[standing.pod.uid]
        restless = known.written is not None and now_s < known.written_s + CALM_S
        in_a_row = known.in_a_row + 1 if restless else 0
        self._known[standing.pod.uid] = replace(
            known,
            written=(standing.shown, standing.wanted.pairs()),
            written_s=now_s,
            in_a_row=in_a_row,
            not_before_s=now_s + min(SETTLE_S * 2.0 ** min(in_a_row, 8), REASON_EVERY_S),
            backoff=Backoff(),
        )

    def tries(self, standing: Standing) -> None:
        """It is being written."""
        self._known[standing.pod.uid] = replace(self._known[standing.pod.uid], tried=True)

    def has_tried(self, uid: str) -> bool:
        """Something may stand there of which a watch has not told yet."""
        known = self._known.get(uid)
        return known is not None and known.tried

    def failed(self, standing: Standing, now_s: float, chance: float, wanted_s: float | None = None) -> None:
        """Tried again later, and later each time. `wanted_s`: the server's Retry-After. `chance` in [0, 1)."""
        known = self._known[standing.pod.uid]
        backoff = known.backoff.failed()
        again_s = now_s + backoff.delay_s(chance, wanted_s)
        self._known[standing.pod.uid] = replace(known, not_before_s=again_s, backoff=backoff)


def _shown(standing: Standing, known: _Known) -> Pairs:
    if known.written is not None and known.written[0] == standing.shown:
        return known.written[1]
    return standing.shown


def _not_before_s(standing: Standing, known: _Known) -> float:
    wanted = standing.wanted
    settled_s = known.since_s if wanted.word is Word.ENROLLED else known.since_s + SETTLE_S
    if known.written is not None and dict(_shown(standing, known)).get(STATUS) == wanted.word.value:
        settled_s = known.written_s + REASON_EVERY_S
    return max(settled_s, known.not_before_s)
