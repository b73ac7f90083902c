"""agent.telling.pod_status: what stands on a pod's object, and when it is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.pods import Pairs, PodRef
from agent.pods.told import REASON, STATUS
from agent.reconcile import Life, State
from agent.telling.pace import Bucket
from agent.telling.pod_status import (
    NOTHING,
    REASON_CHARACTERS,
    PodStatus,
    Standing,
    StatusBook,
    Word,
    patch,
    status_of,
)
from tests.unit.agent.lives import POD, enrolled, told

ENROLLED = PodStatus(Word.ENROLLED)
PENDING = PodStatus(Word.PENDING, "no proxy is connected")
SHOWN: Pairs = ((STATUS, "enrolled"),)


def _life(state: State, reason: str = "") -> Life:
    return replace(told().life, state=state, reason=reason)


# ── In words ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_only_what_is_proved_is_enrolled() -> None:
    words = {state: status_of(_life(state)).word for state in State}
    assert [state for state, word in words.items() if word is Word.ENROLLED] == [State.PROVED]
    assert status_of(enrolled().life) == ENROLLED


def test_what_is_wanted_and_not_proved_is_pending_for_its_reason() -> None:
    for state in (State.SEEN, State.LOCATED, State.PLANNED, State.ANNOUNCED, State.INSTALLED, State.DRIFTED):
        assert status_of(_life(state, "it takes time")) == PodStatus(Word.PENDING, "it takes time")


def test_a_selected_pod_without_a_life_says_what_it_waits_for_and_another_nothing() -> None:
    assert status_of(None, "no process of it runs here") == PodStatus(Word.PENDING, "no process of it runs here")
    assert status_of(None) == NOTHING
    assert status_of(_life(State.DISABLED, "label")) == NOTHING


def test_who_leaves_says_why_and_not_how_many_connections_are_left_of_which_there_are_others_each_second() -> None:
    life = replace(_life(State.LEAVING, "7 steered connections are alive, 12 s left"), complaint="bad annotation")
    assert status_of(life) == PodStatus(Word.LEAVING, "bad annotation")


def test_reasons_are_fit_for_a_terminal_and_short() -> None:
    said = dict(PodStatus(Word.FAILED, "\x1b[31m" + "x" * 2000).pairs())
    assert said[STATUS] == "failed"
    assert said[REASON].startswith("\\x1b[31mx")
    assert len(said[REASON]) == REASON_CHARACTERS


def test_a_patch_is_for_this_pod_only_and_takes_away_what_is_said_no_more() -> None:
    assert patch(POD, SHOWN) == {"metadata": {"uid": "u-1", "annotations": {STATUS: "enrolled", REASON: None}}}
    assert patch(POD, ())["metadata"]["annotations"] == {STATUS: None, REASON: None}


# ── When ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass
class Node:
    """One pod, unless others are named. `writes` performs what is due."""

    book: StatusBook
    now_s: float = 100.0
    shown: Pairs = ()

    def due(self, wanted: PodStatus, after_s: float = 0.0) -> bool:
        self.now_s += after_s
        return bool(self.book.due([Standing(POD, self.shown, wanted)], self.now_s))

    def writes(self, wanted: PodStatus, after_s: float = 0.0, *, heard: bool = True) -> bool:
        """`heard`: the watch tells of it at once."""
        if not self.due(wanted, after_s):
            return False
        self.book.written(Standing(POD, self.shown, wanted), self.now_s)
        if heard:
            self.shown = wanted.pairs()
        return True


def test_a_pod_that_starts_costs_one_write() -> None:
    node = Node(StatusBook())
    assert not any(node.due(status_of(_life(state)), 0.02) for state in (State.SEEN, State.PLANNED, State.INSTALLED))
    assert node.writes(ENROLLED, 0.1)
    assert not any(node.due(ENROLLED, 1) for _ in range(600))


def test_a_state_that_is_not_the_good_one_is_written_when_it_lasts() -> None:
    node = Node(StatusBook())
    assert node.writes(ENROLLED)
    drift = PodStatus(Word.PENDING, "drifted")
    assert not node.due(drift, 10)
    assert not node.due(ENROLLED, 1)  # healed
    assert not node.due(drift, 10)
    assert not node.due(drift, 4.9)
    assert node.writes(drift, 0.2)


def test_another_reason_of_the_same_state_waits_for_a_minute() -> None:
    node = Node(StatusBook())
    node.due(PENDING)
    assert node.writes(PENDING, 6)
    other = PodStatus(Word.PENDING, "the proxy said no")
    assert not node.due(other, 30)
    assert not node.due(other, 29)
    assert node.writes(other, 2)


def test_a_restarted_agent_writes_only_what_differs_from_what_the_watch_shows() -> None:
    node = Node(StatusBook(), shown=SHOWN)
    assert not any(node.due(status_of(_life(state)), 0.1) for state in (State.SEEN, State.LOCATED, State.INSTALLED))
    assert not node.due(ENROLLED, 0.1)


def test_the_annotation_goes_with_the_label_and_with_a_lie() -> None:
    """C1: whoever may annotate a pod can write it; what stands there is compared with what is so, never believed."""
    node = Node(StatusBook(), shown=SHOWN)
    assert not node.due(NOTHING)
    assert node.writes(NOTHING, 6)
    assert node.shown == ()
    node.shown = ((STATUS, "enrolled"), (REASON, "believe me"))
    assert node.due(NOTHING, 60)


def test_two_that_fight_over_an_annotation_are_no_load() -> None:
    node = Node(StatusBook(), shown=((STATUS, "theirs"),))
    written = sum(node.writes(ENROLLED, 1, heard=False) for _ in range(60) if node.shown == ((STATUS, "theirs"),))
    assert written == 1  # the watch is late, maybe: it still shows what was there before
    written = 0
    for second in range(60):
        node.shown = ((STATUS, f"theirs {second}"),)
        written += node.writes(ENROLLED, 1, heard=False)
    assert written <= 4


def test_a_pod_that_comes_and_goes_in_a_loop_is_written_once_a_minute() -> None:
    node = Node(StatusBook())
    written = [node.writes(ENROLLED if second // 7 % 2 else PENDING, 1) for second in range(1200)]
    assert sum(written[:60]) <= 5
    assert sum(written[600:]) <= 11
    node.writes(ENROLLED, 700)  # unless it stands there
    node.due(PENDING, 700)
    assert node.writes(PENDING, 6)
    assert node.writes(ENROLLED, 5.1)  # calm again: soon


def test_a_watch_that_is_late_costs_no_second_write() -> None:
    node = Node(StatusBook())
    assert node.writes(ENROLLED, heard=False)
    assert not any(node.due(ENROLLED, 10) for _ in range(360))  # an hour


def test_what_failed_is_tried_again_later_and_later_and_behind_all_others() -> None:
    book = StatusBook()
    other = PodRef("u-2", "default", "other")
    both = [Standing(POD, (), ENROLLED), Standing(other, (), ENROLLED)]
    assert [one.pod for one in book.due(both, 0.0)] == [POD, other]
    book.failed(both[0], 0.0, 0.0)
    assert [one.pod for one in book.due(both, 0.5)] == [other]
    assert [one.pod for one in book.due(both, 0.9)] == [other, POD]
    book.failed(both[0], 0.9, 0.0)
    assert [one.pod for one in book.due(both, 2.4)] == [other]
    book.failed(both[0], 2.6, 0.0, wanted_s=40.0)  # Retry-After
    assert [one.pod for one in book.due(both, 42.0)] == [other]
    assert [one.pod for one in book.due(both, 43.0)] == [other, POD]


def test_of_what_was_sent_something_may_stand_until_the_pod_is_gone() -> None:
    node = Node(StatusBook())
    node.due(ENROLLED)
    assert not node.book.has_tried(POD.uid)
    node.book.tries(Standing(POD, (), ENROLLED))
    assert node.book.has_tried(POD.uid)
    node.book.due([], 200.0)
    assert not node.book.has_tried(POD.uid)


def test_250_pods_of_a_node_that_starts_are_no_storm() -> None:
    bucket, now_s, begun = Bucket(20.0, 40), 1000.0, []
    for _ in range(250):
        now_s += bucket.take(now_s)
        begun.append(now_s - 1000.0)
    assert begun[39] == 0.0
    assert 10.0 < begun[-1] < 11.0
    assert bucket.take(now_s + 60.0) == 0.0
