"""Who is given up when no agent says that a pod has ended, and who is kept."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.supervisor import orphans
from proxy.supervisor.orphans import Inhabited, NetnsIdentity, Orphans

A, B = (4, 100), (4, 200)
NOBODY: frozenset[tuple[int, int]] = frozenset()


def test_namespace_that_is_missing_twice_after_it_was_seen_is_given_up() -> None:
    judge = Orphans()
    assert judge.judge([A, B], frozenset({A, B})) == NOBODY
    assert not judge.doubtful
    assert judge.judge([A, B], frozenset({B})) == NOBODY
    assert judge.doubtful
    assert judge.judge([A, B], frozenset({B})) == {A}
    assert judge.judge([B], frozenset({B})) == NOBODY
    assert not judge.doubtful


def test_namespace_that_comes_back_in_between_is_kept() -> None:
    judge = Orphans()
    judge.judge([A], frozenset({A}))
    for seen in (NOBODY, frozenset({A}), NOBODY):
        assert judge.judge([A], seen) == NOBODY


def test_namespace_that_was_never_seen_elsewhere_is_kept_for_ever() -> None:
    """A proxy that cannot see the node's processes and mounts sees nobody's."""
    judge = Orphans()
    assert [judge.judge([A], NOBODY) for _ in range(5)] == [NOBODY] * 5


def test_number_that_another_pod_got_afterwards_begins_anew() -> None:
    judge = Orphans()
    judge.judge([A], frozenset({A}))
    judge.judge([A], NOBODY)
    judge.judge([], NOBODY)  # let go of
    assert [judge.judge([A], NOBODY) for _ in range(3)] == [NOBODY] * 3


@given(st.lists(st.tuples(st.frozensets(st.sampled_from([A, B])), st.frozensets(st.sampled_from([A, B]))), max_size=12))
def test_nobody_is_given_up_who_is_in_use_or_is_not_held(looks: list[tuple[frozenset[tuple[int, int]], ...]]) -> None:
    judge = Orphans()
    for held, elsewhere in looks:
        gone = judge.judge(held, elsewhere)
        assert gone <= held
        assert not gone & elsewhere


@pytest.fixture
def inhabited() -> Iterator[Inhabited]:
    looking = Inhabited(own=0)  # what the tests start is somebody else's
    yield looking
    looking.close()


@pytest.fixture
def in_a_namespace() -> Iterator[Callable[[NetnsIdentity], subprocess.Popen[bytes]]]:
    """Starts a process and says that it lives in a namespace."""
    started: list[subprocess.Popen[bytes]] = []

    def start(netns: NetnsIdentity) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "600"]))
        lives_in[str(started[-1].pid)] = netns
        return started[-1]

    lives_in: dict[str, NetnsIdentity] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orphans, "_netns_of", lives_in.get)
        yield start
    for process in started:
        process.kill()
        process.wait()


Start = Callable[[NetnsIdentity], subprocess.Popen[bytes]]


def test_own_namespace_is_inhabited(inhabited: Inhabited) -> None:
    own = Path("/proc/self/ns/net").stat()
    here = (own.st_dev, own.st_ino)
    for step in range(3):
        assert inhabited.look(frozenset({here, A}), now_s=step * 0.4) == {here}


def test_namespace_is_inhabited_until_the_last_of_its_processes_has_ended(
    inhabited: Inhabited, in_a_namespace: Start
) -> None:
    processes = [in_a_namespace(A), in_a_namespace(A)]
    for process in processes:
        assert inhabited.look(frozenset({A}), now_s=0.0) == {A}
        process.kill()
        process.wait()
    assert inhabited.look(frozenset({A}), now_s=0.4) == NOBODY


def test_all_processes_are_asked_only_when_a_namespace_has_lost_its_own(
    inhabited: Inhabited, in_a_namespace: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = []
    walk = orphans._walk
    monkeypatch.setattr(orphans, "_walk", lambda wanted, own: walks.append(wanted) or walk(wanted, own))
    in_a_namespace(A)
    for step in range(20):  # A is inhabited; B never was, and its end cannot be noticed
        assert inhabited.look(frozenset({A, B}), now_s=step * 0.4) == {A}
    assert walks == [{A, B}, {B}]
    inhabited.look(frozenset({A, B}), now_s=2 * orphans.LOOK_AGAIN_S)
    assert walks == [{A, B}, {B}, {B}]


def test_process_that_only_passes_through_does_not_keep_a_namespace_that_has_ended(
    inhabited: Inhabited, in_a_namespace: Start
) -> None:
    """A worker that makes a socket there just when all processes are asked."""
    in_a_namespace(A)
    assert inhabited.look(frozenset({A}), now_s=0.0) == {A}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orphans, "_netns_of", lambda process: B)
        assert inhabited.look(frozenset({A}), now_s=orphans.LOOK_TWICE_S) == NOBODY


def test_process_that_moved_to_another_namespace_is_noticed(inhabited: Inhabited, in_a_namespace: Start) -> None:
    in_a_namespace(A)
    for step in range(2 * orphans.SURE_AFTER_LOOKS):
        assert inhabited.look(frozenset({A}), now_s=step * 0.3) == {A}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orphans, "_netns_of", lambda process: B)
        assert inhabited.look(frozenset({A}), now_s=orphans.LOOK_AGAIN_S) == NOBODY


def test_a_worker_of_our_own_that_makes_a_socket_there_is_nobody(in_a_namespace: Start) -> None:
    """In a container they are all that is seen: what ends when one of them leaves is no pod."""
    in_a_namespace(A)
    looking = Inhabited()
    try:
        assert looking.look(frozenset({A}), now_s=0.0) == NOBODY
    finally:
        looking.close()
