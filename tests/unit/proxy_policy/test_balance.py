"""LEAST_REQUEST between two endpoints."""

import pytest

from proxy.policy.balance import less_loaded


@pytest.mark.parametrize(("one", "other", "first"), [(0, 1, True), (1, 0, False), (0, 0, True), (7, 7, True)])
def test_the_less_loaded_is_taken_and_a_tie_goes_to_the_first(one: int, other: int, first: bool) -> None:
    assert less_loaded(one, other) is first
