"""Who is given up when no agent says that a pod has ended, and who is kept."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from proxy.supervisor.orphans import Orphans, in_use

A, B = (4, 100), (4, 200)
NOBODY: frozenset[tuple[int, int]] = frozenset()


def test_namespace_that_is_missing_twice_after_it_was_seen_is_given_up() -> None:
    orphans = Orphans()
    assert orphans.judge([A, B], frozenset({A, B})) == NOBODY
    assert orphans.judge([A, B], frozenset({B})) == NOBODY
    assert orphans.judge([A, B], frozenset({B})) == {A}


def test_namespace_that_comes_back_in_between_is_kept() -> None:
    orphans = Orphans()
    orphans.judge([A], frozenset({A}))
    for seen in (NOBODY, frozenset({A}), NOBODY):
        assert orphans.judge([A], seen) == NOBODY


def test_namespace_that_was_never_seen_elsewhere_is_kept_for_ever() -> None:
    """A proxy that cannot see the node's processes and mounts sees nobody's."""
    orphans = Orphans()
    assert [orphans.judge([A], NOBODY) for _ in range(5)] == [NOBODY] * 5


def test_number_that_another_pod_got_afterwards_begins_anew() -> None:
    orphans = Orphans()
    orphans.judge([A], frozenset({A}))
    orphans.judge([A], NOBODY)
    orphans.judge([], NOBODY)  # let go of
    assert [orphans.judge([A], NOBODY) for _ in range(3)] == [NOBODY] * 3


@given(st.lists(st.tuples(st.frozensets(st.sampled_from([A, B])), st.frozensets(st.sampled_from([A, B]))), max_size=12))
def test_nobody_is_given_up_who_is_in_use_or_is_not_held(looks: list[tuple[frozenset[tuple[int, int]], ...]]) -> None:
    orphans = Orphans()
    for held, elsewhere in looks:
        gone = orphans.judge(held, elsewhere)
        assert gone <= held
        assert not gone & elsewhere


def test_own_namespace_is_in_use() -> None:
    own = Path("/proc/self/ns/net").stat()
    assert (own.st_dev, own.st_ino) in in_use()
