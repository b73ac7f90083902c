"""The code under test as a table: each life is a number, each event and action a word, each step is taken once.

Exploring asks for the same step of the same life again and again, and a life is a deep value: numbered, 500,000 states
take seconds. What no decision depends on is levelled (how a reason is worded, how many failures came before), so that
equal decisions meet in one number.
"""

from dataclasses import dataclass, replace
from typing import Final

from agent.plan import build_plan
from agent.pods import NetnsId, PodRef
from agent.reconcile import Action, Event, Life, LifeSettings, Seen, State, begin, step, telling
from agent.reconcile.life import (
    Acked,
    Begin,
    Drained,
    Drifted,
    Due,
    Heal,
    Healed,
    Held,
    Inspected,
    Inspection,
    Install,
    Installed,
    Left,
    Nacked,
    NetnsLost,
    NetnsUnfit,
    ProofsWait,
    Prove,
    ProxyAbsent,
    ProxyParked,
    Refused,
    Removed,
    SteeredLeft,
    Stop,
    Timer,
    Wake,
    Withdrawn,
)
from tests.unit.agent.lives import ADDRESS, PROVED, UNPROVED

SETTINGS: Final = LifeSettings(drain_s=0.5, drain_poll_s=0.5, retry_s=0.5)
"""One look at the drain before its time is over: more of them are more states and no other decision."""

_PODS: Final = {
    "on": PodRef("u", "default", "web", addresses=(ADDRESS,)),
    "off": PodRef("u", "default", "web", addresses=(ADDRESS,), labels=(("headgate.io/mesh", "disabled"),)),
    "other": PodRef("u", "default", "web", addresses=(ADDRESS,), annotations=(("headgate.io/exclude-uids", "7"),)),
    "bad": PodRef("u", "default", "web", addresses=(ADDRESS,), annotations=(("headgate.io/exclude-uids", "root"),)),
}
_FORMS: Final = {build_plan(_PODS[wish], SETTINGS.plan): form for wish, form in (("on", "rules"), ("other", "others"))}
"""The form of a namespace's rules in which the plan is in force."""


def seen_word(wish: str, netns: int) -> str:
    return f"seen {wish} {netns}"


_HELD: Final = {
    "nothing": Held.NOTHING, "rules": Held.RULES, "others": Held.RULES, "damaged": Held.RULES, "drain": Held.DRAIN_FORM,
    "path": Held.DRAIN_FORM, "path served": Held.RULES,
}  # fmt: skip
"""What an inspection says of each form that a namespace can be in."""

_EVENTS: Final[dict[str, Event]] = {
    **{
        seen_word(wish, netns): Seen(pod, f"/run/netns/{netns}", NetnsId(4, netns))
        for wish, pod in _PODS.items()
        for netns in (1, 2)
    },
    **{f"inspected {form}": Inspected(Inspection((ADDRESS,), held=held)) for form, held in _HELD.items()},
    **{f"misfit {form}": Inspected(Inspection((), held=held)) for form, held in _HELD.items()},
    **{f"due {timer.value}": Due(timer) for timer in Timer},
    "left": Left(),
    "stop": Stop(),
    "lost": NetnsLost("is not there"),
    "unfit": NetnsUnfit("is another one now"),
    "acked": Acked(),
    "nacked": Nacked("no"),
    "absent": ProxyAbsent(),
    "installed": Installed(),
    "healed": Healed(0, 0),
    "refused": Refused("no"),
    "proved": PROVED,
    "unproved": UNPROVED,
    "proofs wait": ProofsWait(),
    "drifted": Drifted(("a rule is missing",)),
    "parked": ProxyParked(),
    "drained": Drained(),
    "steered 0": SteeredLeft(0),
    "steered 1": SteeredLeft(1),
    "removed": Removed(),
    "withdrawn": Withdrawn(),
}
_WORDS: Final = {event: word for word, event in _EVENTS.items() if isinstance(event, Seen)}


@dataclass(frozen=True, slots=True)
class Known:
    """What the exploration asks of a life."""

    state: str
    reason: bool
    timer: str  # "" without one
    installed: bool
    capturing: bool
    drained: bool
    announced: bool
    form: str  # of what is to be in force; "" when nobody here can name it
    telling: str
    leaving: bool
    looked_at: bool


@dataclass(frozen=True, slots=True)
class Stepped:
    """The outcome of a step: the next life, what is to be done one after the other, and what happens at once."""

    life: int
    todo: tuple[str, ...]
    proves: bool
    begins: str


class Lives:
    """Every life that occurred, by number."""

    def __init__(self) -> None:
        self._numbers: dict[Life, int] = {}
        self._lives: list[Life] = []
        self._steps: dict[tuple[int, str], Stepped] = {}
        self.known: list[Known] = []

    def __repr__(self) -> str:
        return f"{len(self._lives)} lives, {len(self._steps)} steps"

    def __len__(self) -> int:
        return len(self._lives)

    def begun(self, word: str) -> Stepped:
        if (-1, word) not in self._steps:
            seen = _EVENTS[word]
            assert isinstance(seen, Seen)
            self._steps[-1, word] = self._stepped(*begin(seen, SETTINGS))
        return self._steps[-1, word]

    def step(self, life: int, word: str) -> Stepped:
        stepped = self._steps.get((life, word))
        if stepped is None:
            stepped = self._stepped(*step(self._lives[life], _EVENTS[word], SETTINGS))
            self._steps[life, word] = stepped
        return stepped

    def _stepped(self, life: Life, actions: tuple[Action, ...]) -> Stepped:
        todo = tuple(_word(action) for action in actions if not isinstance(action, Wake | Prove | Begin))
        begins = [_WORDS[action.seen] for action in actions if isinstance(action, Begin)]
        proves = any(isinstance(action, Prove) for action in actions)
        return Stepped(self._number(life), todo, proves, "".join(begins))

    def _number(self, life: Life) -> int:
        plain = _levelled(life)
        if plain not in self._numbers:
            self._numbers[plain] = len(self._lives)
            self._lives.append(plain)
            self.known.append(_known(plain))
        return self._numbers[plain]


def _levelled(life: Life) -> Life:
    left_s = life.drain_left_s if life.state is State.LEAVING else 0.0
    return replace(
        life, reason="why" if life.reason else "", failures=min(life.failures, 1), proofs=None, drain_left_s=left_s
    )


def _known(life: Life) -> Known:
    return Known(
        state=life.state.value,
        reason=bool(life.reason),
        timer=life.timer.value if life.timer else "",
        installed=life.installed,
        capturing=life.capturing,
        drained=life.drained,
        announced=life.announced,
        form=_form(life),
        telling=telling(life).value,
        leaving=life.state is State.LEAVING,
        looked_at=life.looked_at,
    )


def _form(life: Life) -> str:
    if life.plan_in_force is None:
        return ""
    return "drain" if life.drained else _FORMS[life.plan_in_force]


def _word(action: Action) -> str:
    word = type(action).__name__.lower()
    return f"{word} {_FORMS[action.plan]}" if isinstance(action, Install | Heal) else word
