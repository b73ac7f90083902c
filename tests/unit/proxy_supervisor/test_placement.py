"""proxy.supervisor.placement: which workers serve a pod, and that it is never without one while it moves."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.supervisor.placement import Move, next_move, place

WORKERS = st.frozensets(st.integers(0, 15), min_size=1)
NUMBER = st.integers(1, 8)


@given(st.text(), WORKERS, NUMBER)
def test_a_pod_has_k_distinct_workers_always_the_same(uid: str, workers: frozenset[int], number: int) -> None:
    placed = place(uid, workers, number)
    assert placed == place(uid, sorted(workers), number)
    assert len(set(placed)) == len(placed) == min(number, len(workers))
    assert set(placed) <= workers


@given(st.text(), WORKERS, NUMBER, st.integers(16, 20))
def test_one_more_worker_takes_at_most_one_place_and_moves_none_between_the_others(
    uid: str, workers: frozenset[int], number: int, new: int
) -> None:
    before, after = set(place(uid, workers, number)), set(place(uid, {*workers, new}, number))
    assert after - before <= {new}
    assert len(before - after) <= 1


@given(st.text(), WORKERS, NUMBER, st.data())
def test_a_worker_that_dies_leaves_the_others_where_they_were(
    uid: str, workers: frozenset[int], number: int, data: st.DataObject
) -> None:
    dead = data.draw(st.sampled_from(sorted(workers)))
    before, after = place(uid, workers, number), place(uid, workers - {dead}, number)
    assert set(before) - {dead} <= set(after)
    if dead not in before:
        assert after == before


@given(st.text(), WORKERS, NUMBER)
def test_a_pod_that_gets_more_workers_keeps_those_it_has(uid: str, workers: frozenset[int], number: int) -> None:
    assert place(uid, workers, number + 1)[:number] == place(uid, workers, number)


def test_pods_spread_over_the_workers() -> None:
    counts = [0] * 4
    for index in range(4000):
        counts[place(f"uid-{index}", range(4))[0]] += 1
    assert min(counts) > 800


def test_whoever_serves_releases_only_when_the_new_one_accepts() -> None:
    assert next_move(wanted=(2,), asked=(1,), serving=(1,)) == Move(serve=(2,))
    assert next_move(wanted=(2,), asked=(1, 2), serving=(1,)) == Move()
    assert next_move(wanted=(2,), asked=(1, 2), serving=(1, 2)) == Move(release=(1,))
    assert next_move(wanted=(2,), asked=(2,), serving=(2,)) == Move()


INDICES = st.lists(st.integers(0, 5), unique=True)


@given(st.lists(st.integers(0, 5), unique=True, min_size=1), INDICES, st.data())
def test_a_move_ends_where_it_should_and_somebody_always_serves(
    wanted: list[int], asked_first: list[int], data: st.DataObject
) -> None:
    """Whatever was asked before, and in whatever order workers answer."""
    asked = set(asked_first)
    serving = set(data.draw(st.lists(st.sampled_from(asked_first), unique=True))) if asked_first else set()
    somebody = bool(serving)
    for _ in range(20):
        move = next_move(wanted, sorted(asked), serving)
        asked |= set(move.serve)
        asked -= set(move.release)
        serving -= set(move.release)
        assert not somebody or serving
        silent = sorted(asked - serving)
        if not silent and move == Move():
            break
        if silent:
            serving.add(data.draw(st.sampled_from(silent)))
        somebody = somebody or bool(serving)
    assert asked == serving == set(wanted)
