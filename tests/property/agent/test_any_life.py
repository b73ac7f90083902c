"""Whatever happens in whatever order: a pod's life never leads traffic to a port where nobody listens."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pods import NetnsId
from agent.reconcile import Action, Event, Life, State, begin, step
from agent.reconcile.life import (
    Acked,
    Announce,
    Begin,
    CountSteered,
    Drain,
    Drained,
    Drifted,
    Due,
    Heal,
    Healed,
    Held,
    Inspect,
    Inspected,
    Inspection,
    Install,
    Installed,
    Left,
    Nacked,
    NetnsLost,
    NetnsUnfit,
    PortConflict,
    ProofsWait,
    Prove,
    ProveNow,
    ProxyAbsent,
    ProxyParked,
    Refused,
    Remove,
    Removed,
    SteeredLeft,
    Stop,
    Timer,
    Wake,
    Withdraw,
    Withdrawn,
)
from tests.unit.agent.lives import DISABLED, FOUND, POD, PROVED, SEEN, SETTINGS, UNPROVED

ELSEWHERE = replace(SEEN, netns_id=NetnsId(4, 200))
ASKS_TOO_MUCH = replace(SEEN, pod=replace(POD, annotations=(("headgate.io/exclude-uids", "root"),)))
CONFLICT = Inspected(Inspection(POD.addresses, (PortConflict(15001, 7, "x"),)))

OUTCOMES: dict[type, tuple[Event, ...]] = {
    Inspect: (FOUND, CONFLICT, Inspected(Inspection(())), NetnsUnfit("host"), NetnsLost("gone"), Refused("no")),
    Announce: (Acked(), Nacked("no"), ProxyAbsent(), NetnsLost("gone"), Refused("no")),
    Install: (Installed(), Refused("no"), NetnsLost("gone")),
    Heal: (Healed(0, 0), Refused("no"), NetnsLost("gone")),
    Drain: (Drained(), Refused("no"), NetnsLost("gone")),
    CountSteered: (SteeredLeft(0), SteeredLeft(3), Refused("no"), NetnsLost("gone")),
    Remove: (Removed(), Refused("no"), NetnsLost("gone")),
    Withdraw: (Withdrawn(),),
}
FROM_OUTSIDE: tuple[Event, ...] = (
    SEEN, DISABLED, ELSEWHERE, ASKS_TOO_MUCH, Left(), Stop(), ProveNow(), PROVED, UNPROVED, Acked(), Nacked("no"),
    ProofsWait(), *map(Due, Timer), NetnsLost("gone"), Drifted(("a rule is missing",)), ProxyParked(),
)  # fmt: skip


@dataclass
class World:
    """The kernel and the proxy, as the life's actions leave them."""

    draw: st.DataObject
    capturing: bool = False
    tables: bool = False
    listening: bool = False
    timer: Timer | None = None
    begun: list[Begin] = field(default_factory=list)

    def perform(self, action: Action) -> Event | None:
        if isinstance(action, Wake):
            self.timer = action.timer
            return None
        if isinstance(action, Begin):
            self.begun.append(action)
        if isinstance(action, Prove | Begin):
            return None
        outcome: Event = self.draw.draw(st.sampled_from(OUTCOMES[type(action)]), label=type(action).__name__)
        self._apply(action, outcome)
        if isinstance(outcome, Inspected):
            held = Held.RULES if self.capturing else Held.DRAIN_FORM if self.tables else Held.NOTHING
            return Inspected(replace(outcome.inspection, held=held))
        return outcome

    def meets(self, event: Event) -> None:
        """What an event from outside says of the world: a proxy took the pod from its snapshot, a netns vanished."""
        if isinstance(event, Acked):
            self.listening = True
        if isinstance(event, NetnsLost):
            self.capturing = self.tables = False

    def _apply(self, action: Action, outcome: Event) -> None:
        match action, outcome:
            case _, NetnsLost() | NetnsUnfit():
                self.capturing = self.tables = False
            case Announce(), Acked():
                self.listening = True
            case (Install(), Installed()) | (Heal(), Healed()):
                assert self.listening or self.capturing, "rules went in before the proxy listened"
                self.capturing = self.tables = True
            case Drain(), Drained():
                self.capturing, self.tables = False, True
            case Remove(), Removed():
                self.capturing = self.tables = False
            case Withdraw(), Withdrawn():
                assert not self.capturing, "the proxy was sent away while traffic is led to it"
                self.listening = False


def live(life: Life, actions: tuple[Action, ...], world: World) -> Life:
    """Performs all that follows, as the supervisor's worker does."""
    outcomes = [outcome for action in actions if (outcome := world.perform(action)) is not None]
    for _ in range(50):
        if not outcomes:
            return life
        life, actions = step(life, outcomes.pop(0), SETTINGS)
        outcomes += [outcome for action in actions if (outcome := world.perform(action)) is not None]
    raise AssertionError(f"one event has no end of consequences: {life}")


@settings(max_examples=400, deadline=None)
@given(st.data(), st.lists(st.sampled_from(FROM_OUTSIDE), max_size=12))
def test_a_life_of_any_events(data: st.DataObject, events: list[Event]) -> None:
    world = World(data)
    life = live(*begin(SEEN, SETTINGS), world)
    for event in events:
        world.meets(event)
        life = live(*step(life, event, SETTINGS), world)
        if life.looked_at:  # one that leaves before anybody looked counts as holding rules
            assert life.installed or not world.tables, "what is in force is known"
            assert life.capturing or not world.capturing, "what captures is known"
        if life.state is State.PROVED:
            assert world.capturing and life.proofs is not None and life.proofs.hold
        if life.state in (State.DISABLED, State.GONE):
            assert not world.tables or world.begun, "an ended life leaves no rules behind"
        if life.state in (State.FAILED, State.PENDING, State.PROVED):
            assert life.timer is None or world.timer is life.timer
        if life.state in (State.FAILED, State.PENDING):
            assert life.reason, "a pod that is not enrolled says why"


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(st.sampled_from([*FROM_OUTSIDE, *(e for es in OUTCOMES.values() for e in es)]), max_size=20))
def test_any_event_in_any_state_has_an_answer(data: st.DataObject, events: list[Event]) -> None:
    life, _ = begin(SEEN, SETTINGS)
    for event in events:
        before = life
        life, actions = step(life, event, SETTINGS)
        if before.state is State.GONE:
            assert (life, actions) == (before, ())


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(st.sampled_from(FROM_OUTSIDE), max_size=8))
def test_stop_ends_any_life_when_the_kernel_obeys(data: st.DataObject, events: list[Event]) -> None:
    world = World(data)
    life = live(*begin(SEEN, SETTINGS), world)
    for event in events:
        world.meets(event)
        life = live(*step(life, event, SETTINGS), world)
    life, actions = step(life, Stop(), SETTINGS)
    obeying: dict[type, Event] = {
        Drain: Drained(), CountSteered: SteeredLeft(2), Withdraw: Withdrawn(), Remove: Removed(),
    }  # fmt: skip
    while actions:
        (action,) = (action for action in actions if type(action) in obeying)
        life, actions = step(life, obeying[type(action)], SETTINGS)
    assert life.state is State.GONE and not life.installed
