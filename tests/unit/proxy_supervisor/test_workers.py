"""proxy.supervisor.workers and waiting: which worker serves a pod, and pauses that grow."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.supervisor.waiting import BackOff
from proxy.supervisor.workers import worker_of


@given(st.text(), st.integers(min_value=1, max_value=64))
def test_a_pod_has_one_worker_always_the_same(uid: str, workers: int) -> None:
    assert worker_of(uid, workers) == worker_of(uid, workers) in range(workers)


@given(st.text(), st.integers(min_value=1, max_value=63))
def test_one_more_worker_only_takes_pods_and_moves_none_between_the_others(uid: str, workers: int) -> None:
    assert worker_of(uid, workers + 1) in {worker_of(uid, workers), workers}


def test_pods_spread_over_the_workers() -> None:
    counts = [0] * 4
    for index in range(4000):
        counts[worker_of(f"uid-{index}", 4)] += 1
    assert min(counts) > 800


def test_a_pause_doubles_up_to_its_bound_and_starts_over() -> None:
    back_off = BackOff(0.01, 15.0)
    pauses = [back_off.next_s() for _ in range(14)]
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]
    assert pauses[-2:] == [15.0, 15.0]
    back_off.reset()
    assert back_off.next_s() == 0.01
