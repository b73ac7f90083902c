"""When a node counts as flat: thirds compared, each figure with its tolerance."""

from dataclasses import fields, replace

import pytest

from tests.bench.flatness import EXACT, IDLE_CONNECTIONS, Holding, grown, not_returned

STEADY = Holding(**{field.name: 100.0 for field in fields(Holding)})


def test_a_node_that_holds_the_same_is_flat() -> None:
    assert grown([STEADY] * 9) == []


def test_what_is_in_flight_for_a_moment_is_no_growth() -> None:
    samples = [STEADY] * 9
    samples[4] = samples[8] = replace(STEADY, links=500.0, agent_fds=900.0)
    assert grown(samples) == []


@pytest.mark.parametrize("name", [field.name for field in fields(Holding)])
def test_each_figure_that_grows_steadily_is_told(name: str) -> None:
    samples = [replace(STEADY, **{name: 100.0 + 50 * turn}) for turn in range(12)]
    (told,) = grown(samples)
    assert told.startswith(f"{name}: 175 in the first third, 575 in the last; ")


def test_memory_may_grow_by_what_an_allocator_keeps_and_no_more() -> None:
    assert grown([STEADY] * 3 + [replace(STEADY, agent_mb=107.9)] * 6) == []
    assert grown([STEADY] * 3 + [replace(STEADY, agent_mb=108.1)] * 6) != []


def test_one_rule_left_in_the_node_is_too_many() -> None:
    assert grown([STEADY] * 6 + [replace(STEADY, rules=101.0)] * 3) == [
        "rules: 100 in the first third, 101 in the last; 100 at most"
    ]


def test_two_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="2 samples have no thirds"):
        grown([STEADY] * 2)


@pytest.mark.parametrize("name", EXACT)
def test_a_node_at_rest_holds_exactly_what_it_held(name: str) -> None:
    assert not_returned(STEADY, STEADY) == []
    assert not_returned(STEADY, replace(STEADY, **{name: 101.0})) == [f"{name}: 100 before, 101 after"]


def test_connections_that_the_agent_keeps_for_a_while_are_nothing_left_behind() -> None:
    kept = replace(STEADY, agent_fds=100.0 + IDLE_CONNECTIONS)
    assert not_returned(STEADY, kept) == []
    assert not_returned(STEADY, replace(kept, agent_fds=kept.agent_fds + 1)) == ["agent_fds: 100 before, 117 after"]
