"""Which findings about pods' namespaces are news, and which are the agent's own doing: bookkeeping without a clock."""

from collections import Counter
from dataclasses import dataclass

from agent.plan import RedirectPlan
from agent.plan.drift import Form
from agent.pods import NetnsId


@dataclass(frozen=True, slots=True)
class Watch:
    """From now on the pod's namespace is to hold this; not looked at before a Release when `held`."""

    uid: str
    netns_path: str
    netns_id: NetnsId
    plan: RedirectPlan
    form: Form
    epoch: int
    held: bool


@dataclass(frozen=True, slots=True)
class Forget:
    uid: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The agent itself is about to change the namespace: do not look."""

    uid: str


@dataclass(frozen=True, slots=True)
class Release:
    """The agent is done: look now. What is found from here on is of this epoch."""

    uid: str
    epoch: int


Command = Watch | Forget | Hold | Release


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at a pod's namespace has found. `epoch`: of the last command that the look knew of. `routine`: nobody
    had said that anything changed; it was the minute's own look."""

    uid: str
    epoch: int
    changes: tuple[str, ...]
    by: str
    foreign: tuple[str, ...]
    routine: bool = False


@dataclass(slots=True)
class _Entry:
    epoch: int
    told: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """`drifted`: to be told and healed; `foreign`: the list of foreign chains when it is another than before."""

    drifted: bool = False
    foreign: tuple[str, ...] | None = None


class Ledger:
    """All pods that are watched. A look that began before a change of ours, or fell into it, says nothing: each change
    begins an epoch, and only findings of the present one count."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._ours: Counter[str] = Counter()
        self._epochs = 0

    def watch(self, uid: str, netns_path: str, netns_id: NetnsId, plan: RedirectPlan, form: Form) -> Watch:
        """Again for the same pod: what it is to hold now; what was told of it is forgotten."""
        entry = self._entries.get(uid)
        self._entries[uid] = _Entry(self._next(), (), entry.foreign if entry else ())
        return Watch(uid, netns_path, netns_id, plan, form, self._epochs, self._ours[uid] > 0)

    def forget(self, uid: str) -> tuple[Forget, ...]:
        return (Forget(uid),) if self._entries.pop(uid, None) is not None else ()

    def begin(self, uid: str) -> tuple[Hold, ...]:
        """A change of ours begins."""
        self._ours[uid] += 1
        return (Hold(uid),) if uid in self._entries and self._ours[uid] == 1 else ()

    def end(self, uid: str) -> tuple[Release, ...]:
        """A change of ours has ended, well or not."""
        self._ours[uid] -= 1
        if self._ours[uid] > 0:
            return ()
        del self._ours[uid]
        entry = self._entries.get(uid)
        if entry is None:
            return ()
        entry.epoch = self._next()
        return (Release(uid, entry.epoch),)

    def judge(self, finding: Finding) -> News:
        """The same drift is told once, until it is healed or gone; and again by each minute's look, should nobody have
        acted: a heal that the kernel refuses must not be begun anew at once."""
        entry = self._entries.get(finding.uid)
        if entry is None or entry.epoch != finding.epoch or self._ours.get(finding.uid):
            return News()
        foreign = finding.foreign if finding.foreign != entry.foreign else None
        entry.foreign = finding.foreign
        news = bool(finding.changes) and (finding.routine or finding.changes != entry.told)
        entry.told = finding.changes
        return News(news, foreign)

    def _next(self) -> int:
        self._epochs += 1
        return self._epochs
