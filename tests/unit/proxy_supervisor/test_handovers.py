"""proxy.supervisor.handovers: a pod moves between workers that die, start and answer in any order."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model.direction import Direction
from proxy.supervisor.cuts import Cut, Why
from proxy.supervisor.handovers import Handovers, ServedPod, Stage
from proxy.supervisor.listeners import PodListeners
from proxy.supervisor.placement import place
from proxy.supervisor.workers import Worker
from proxy.telemetry.open_counts import OpenCounts, make_shared
from proxy.workerlink import (
    AskLease,
    CutConnection,
    ForgetPod,
    GrantLease,
    ListenerKind,
    PodForgotten,
    PodIdentity,
    PodServed,
    RecallLease,
    ReleasePod,
    ReturnLease,
    ServePod,
    ToWorker,
)

UID = "uid-1"
WORKERS = 3
HOME, NEXT, LAST = place(UID, range(WORKERS), WORKERS)
KEY = ("shop", "web-1")


def new_counts() -> OpenCounts:
    descriptor = make_shared()
    try:
        return OpenCounts(descriptor)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class Process:
    """A worker's place as hand-overs see it: whether a process runs, and what it was told."""

    index: int
    pid: int | None = 1
    usable: bool = True
    told: list[ToWorker] = field(default_factory=list)
    open_counts: OpenCounts = field(default_factory=new_counts)

    def send(self, message: ToWorker, fds: tuple[int, ...] = ()) -> None:
        if self.pid is not None:
            self.told.append(message)


class Scene:
    """Three workers and one pod; the test says what workers answer."""

    def __init__(self, listener: socket.socket) -> None:
        self.workers = [Process(index) for index in range(WORKERS)]
        self.cut: list[Cut] = []
        self.handovers = Handovers(lambda: cast(list[Worker], self.workers), self.cut.append)
        kinds = (ListenerKind(Direction.OUTBOUND, 4),)
        self.pod = ServedPod(PodIdentity(UID, *KEY, "default", 77), (1, 2), 0, PodListeners(kinds, (listener,), 77))

    def take(self, index: int) -> list[ToWorker]:
        told, self.workers[index].told = self.workers[index].told, []
        return told

    def settle(self) -> None:
        self.handovers.settle(self.pod)

    def answer(self, index: int) -> ServePod:
        """The worker serves what it was handed last."""
        message = next(one for one in reversed(self.take(index)) if isinstance(one, ServePod))
        self.handovers.note_served(index, self.pod, PodServed(UID, message.sequence))
        return message

    def die(self, index: int) -> None:
        self.workers[index].pid, self.workers[index].usable = None, False
        self.take(index)
        self.handovers.note_end(index, [self.pod])

    def start(self, index: int) -> None:
        self.workers[index].pid, self.workers[index].open_counts = 2, new_counts()
        self.settle()

    def holds(self, index: int, handed: ServePod, connections: int) -> None:
        """What the worker writes when a connection begins or ends."""
        self.workers[index].open_counts.cell(handed.count_slot)[0] = connections

    def becomes_usable(self, index: int) -> None:
        self.workers[index].usable = True
        self.settle()

    def forgotten(self, index: int, sequence: int, *cut: CutConnection) -> None:
        self.handovers.note_forgotten(index, self.pod, PodForgotten(UID, sequence, cut))


@pytest.fixture
def scene() -> Iterator[Scene]:
    with socket.socket() as listener:
        yield Scene(listener)


def test_a_pod_is_handed_to_its_home_alone(scene: Scene) -> None:
    scene.settle()
    assert not scene.pod.served.is_set()
    scene.answer(HOME)
    assert scene.pod.workers == [HOME]
    assert scene.pod.served.is_set()
    assert not scene.workers[NEXT].told and not scene.workers[LAST].told


def test_a_dead_worker_s_pod_goes_to_the_next_and_comes_home_when_its_successor_can_serve(scene: Scene) -> None:
    scene.settle()
    scene.answer(HOME)
    scene.die(HOME)
    assert not scene.pod.served.is_set()
    interim = scene.answer(NEXT)
    assert scene.pod.workers == [NEXT]
    scene.start(HOME)
    assert scene.take(HOME) == [], "it has no policy yet"
    scene.becomes_usable(HOME)
    assert ReleasePod(UID) not in scene.take(NEXT), "not before its home accepts"
    scene.answer(HOME)
    assert scene.take(NEXT) == [ReleasePod(UID)]
    assert scene.pod.workers == [HOME]
    scene.forgotten(NEXT, interim.sequence)
    assert set(scene.pod.tenures) == {HOME}


def test_without_another_worker_the_pod_waits_for_the_successor(scene: Scene) -> None:
    for index in range(WORKERS):
        scene.workers[index].pid, scene.workers[index].usable = None, False
    scene.settle()
    assert scene.pod.tenures == {}
    scene.start(LAST)
    assert [type(one) for one in scene.workers[LAST].told] == [ServePod], "whoever runs first"
    scene.answer(LAST)
    assert scene.pod.workers == [LAST]


def test_an_answer_to_an_earlier_hand_over_is_not_taken_for_this_one(scene: Scene) -> None:
    scene.settle()
    (first,) = scene.take(HOME)
    assert isinstance(first, ServePod)
    scene.die(HOME)
    scene.answer(NEXT)
    scene.start(HOME)
    scene.becomes_usable(HOME)
    scene.handovers.note_served(HOME, scene.pod, PodServed(UID, first.sequence))
    assert scene.pod.workers == [NEXT]


def test_more_workers_join_and_the_first_is_told_that_it_shares(scene: Scene) -> None:
    scene.settle()
    assert not scene.answer(HOME).shared
    assert scene.handovers.share_among({KEY: 2})
    scene.settle()
    assert scene.answer(NEXT).shared
    again = scene.take(HOME)
    assert [type(one) for one in again if not isinstance(one, RecallLease)] == [ServePod]
    assert sorted(scene.pod.workers) == sorted([HOME, NEXT])
    assert not scene.handovers.share_among({KEY: 2}), "nothing has changed"


def test_a_released_worker_that_is_needed_again_is_handed_the_pod_anew(scene: Scene) -> None:
    scene.handovers.share_among({KEY: 2})
    scene.settle()
    scene.answer(HOME)
    scene.answer(NEXT)
    scene.handovers.share_among({})
    scene.settle()
    assert ReleasePod(UID) in scene.take(NEXT)
    scene.handovers.share_among({KEY: 2})
    scene.settle()
    scene.answer(NEXT)
    assert sorted(scene.pod.workers) == sorted([HOME, NEXT])


def test_a_pod_that_leaves_is_gone_when_every_worker_that_held_it_says_so(scene: Scene) -> None:
    scene.handovers.share_among({KEY: 2})
    scene.settle()
    sequences = {index: scene.answer(index).sequence for index in (HOME, NEXT)}
    sequences[HOME] = scene.pod.tenures[HOME].sequence
    leaving = scene.handovers.leave(scene.pod, 0.0)
    for index, sequence in sequences.items():
        assert ForgetPod(UID, 0.0) in scene.take(index)
        assert not leaving.gone.is_set()
        scene.handovers.note_forgotten(index, None, PodForgotten(UID, sequence))
    assert leaving.gone.is_set()
    assert scene.handovers.leaving == []


def test_a_pod_whose_last_holder_dies_is_gone_too(scene: Scene) -> None:
    scene.settle()
    scene.answer(HOME)
    leaving = scene.handovers.leave(scene.pod, 20.0)
    scene.handovers.note_end(HOME, [])
    assert leaving.gone.is_set()


def test_cut_connections_are_counted_for_the_pod_that_left_and_told_with_the_oldest(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.settle()
    sequence = scene.answer(HOME).sequence
    scene.handovers.leave(scene.pod, 20.0)
    cut = (CutConnection(Direction.INBOUND, 3.0, "http"), CutConnection(Direction.OUTBOUND, 62.0, "tcp"))
    scene.handovers.note_forgotten(HOME, None, PodForgotten(UID, sequence, cut))
    assert scene.cut == [Cut(*KEY, Why.DRAIN_OVER, 2)]
    assert "pod shop/web-1: 2 connections cut" in caplog.text
    assert "the oldest, outbound tcp, was 62 s old" in caplog.text


def test_what_a_worker_held_when_it_died_is_cut_of_pods_that_are_served_released_and_leaving(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.handovers.share_among({KEY: 2})
    scene.settle()
    for index, connections in ((HOME, 5), (NEXT, 2)):
        scene.holds(index, scene.answer(index), connections)
    scene.handovers.share_among({})
    scene.settle()
    assert scene.pod.at(Stage.RELEASED) == [NEXT]
    scene.die(NEXT)
    assert scene.cut == [Cut(*KEY, Why.WORKER_ENDED, 2)]
    assert f"pod shop/web-1: 2 connections cut by the end of worker {NEXT}" in caplog.text
    scene.handovers.leave(scene.pod, 20.0)
    scene.pod.tenures.clear()  # as of a pod that is no longer served
    scene.die(HOME)
    assert scene.cut[1:] == [Cut(*KEY, Why.WORKER_ENDED, 5)]


def test_what_a_worker_has_told_before_it_died_is_not_counted_again(scene: Scene) -> None:
    scene.settle()
    handed = scene.answer(HOME)
    scene.holds(HOME, handed, 1)
    scene.handovers.leave(scene.pod, 20.0)
    scene.pod.tenures.clear()
    cut = (CutConnection(Direction.INBOUND, 3.0, "http"),)
    scene.handovers.note_forgotten(HOME, None, PodForgotten(UID, handed.sequence, cut))
    scene.die(HOME)
    assert scene.cut == [Cut(*KEY, Why.DRAIN_OVER, 1)]


def test_a_pod_that_is_handed_over_again_is_counted_where_it_was(scene: Scene) -> None:
    scene.settle()
    first = scene.answer(HOME)
    scene.holds(HOME, first, 4)
    scene.handovers.share_among({KEY: 2})
    scene.settle()
    again = scene.answer(HOME)
    assert again.sequence != first.sequence
    assert again.count_slot == first.count_slot
    scene.die(HOME)
    assert scene.cut == [Cut(*KEY, Why.WORKER_ENDED, 4)]


# ── Leases ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_second_worker_of_a_pod_gets_tokens_that_the_first_gives_back(scene: Scene) -> None:
    scene.settle()
    assert scene.answer(HOME).idle_tokens == 256
    scene.handovers.share_among({KEY: 2})
    scene.settle()
    (recall,) = [one for one in scene.take(HOME) if isinstance(one, RecallLease)]
    assert scene.answer(NEXT).idle_tokens == 0
    scene.handovers.note_lease(HOME, ReturnLease(recall.key, recall.tokens))
    assert scene.take(NEXT) == [GrantLease(recall.key, recall.tokens)]


def test_tokens_of_a_worker_that_dies_are_granted_to_who_asks(scene: Scene) -> None:
    scene.handovers.share_among({KEY: 2})
    scene.settle()
    (recall,) = [one for one in scene.workers[HOME].told if isinstance(one, RecallLease)]
    assert scene.answer(HOME).idle_tokens == 256
    assert scene.answer(NEXT).idle_tokens == 0
    scene.die(HOME)
    assert GrantLease(recall.key, 32) in scene.take(NEXT), "what it waited for"
    scene.handovers.note_lease(NEXT, AskLease(recall.key))
    assert scene.take(NEXT) == [GrantLease(recall.key, 32)]


# ── Any order ──────────────────────────────────────────────────────────────────────────────────────────────────────
@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("die", "start", "usable", "answer", "share")), st.integers(0, 2))))
def test_whatever_happens_the_pod_ends_with_the_workers_it_should_have(events: list[tuple[str, int]]) -> None:
    """And whoever serves it keeps on while another is awaited."""
    with socket.socket() as listener:
        scene = Scene(listener)
        scene.settle()
        for event, index in events:
            process, served = scene.workers[index], set(scene.pod.workers)
            if event == "die" and process.pid is not None:
                scene.die(index)
                served.discard(index)
            elif event == "start" and process.pid is None:
                scene.start(index)
            elif event == "usable" and process.pid is not None:
                scene.becomes_usable(index)
            elif event == "answer" and any(isinstance(one, ServePod) for one in process.told):
                scene.answer(index)
            elif event == "share":
                scene.handovers.share_among({KEY: index + 1})
                scene.settle()
            assert not served or scene.pod.workers, "somebody served, and nobody does"
            assert scene.pod.served.is_set() == bool(scene.pod.workers)
        for index in range(WORKERS):
            if scene.workers[index].pid is None:
                scene.start(index)
            scene.becomes_usable(index)
        for _ in range(2 * WORKERS):
            for index in range(WORKERS):
                if any(isinstance(one, ServePod) for one in scene.workers[index].told):
                    scene.answer(index)
        wanted = place(UID, range(WORKERS), scene.handovers._numbers.get(KEY, 1))
        assert sorted(scene.pod.workers) == sorted(wanted)
        shared = {tenure.shared for index, tenure in scene.pod.tenures.items() if index in wanted}
        assert shared == {len(wanted) > 1}
