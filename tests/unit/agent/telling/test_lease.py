"""agent.telling.lease: who may write, by client-go's rules."""

from __future__ import annotations

from typing import Any

import pytest

from agent.telling.lease import DURATION_S, RENEW_WITHIN_S, Record, observed, record_of, released, taken

T = 1_700_000_000.5
NOW = "2023-11-14T22:13:20.500000Z"


def _lease(spec: Any, version: str = "7") -> dict[str, Any]:
    return {"metadata": {"name": "x", "resourceVersion": version}, "spec": spec}


def test_a_new_lease_names_its_holder_and_for_how_long() -> None:
    assert taken(None, "a", T) == {
        "holderIdentity": "a", "leaseDurationSeconds": 15, "acquireTime": NOW, "renewTime": NOW, "leaseTransitions": 0,
    }  # fmt: skip


def test_who_renews_keeps_the_time_of_taking_and_who_takes_over_is_counted() -> None:
    before = record_of(_lease(taken(None, "a", T - 100)))
    renewed, other = taken(before, "a", T), taken(before, "b", T)
    assert (renewed["acquireTime"], renewed["renewTime"], renewed["leaseTransitions"]) == (before.acquired, NOW, 0)
    assert (other["acquireTime"], other["leaseTransitions"]) == (NOW, 1)


def test_anothers_lease_is_free_when_it_was_seen_unchanged_for_its_duration() -> None:
    """Whatever its own times say: clocks are not compared."""
    held = _lease(taken(None, "a", T + 10_000))
    first = observed(held, None, 50.0)
    again = observed(held, first, 64.9)
    assert (again.since_s, again.version) == (50.0, "7")
    assert not again.is_free(65.0)
    assert again.is_free(65.1)
    renewed = observed(_lease(taken(first.record, "a", T - 10_000)), again, 64.9)
    assert not renewed.is_free(79.9)


def test_a_released_lease_is_free_at_once() -> None:
    spec = released(record_of(_lease(taken(None, "a", T))), T)
    assert observed(_lease(spec), None, 0.0).is_free(0.0)


def test_who_holds_it_stops_before_another_may_begin() -> None:
    assert RENEW_WITHIN_S < DURATION_S


@pytest.mark.parametrize(
    "lease",
    [None, [], {}, {"spec": None}, {"spec": []}, _lease({"holderIdentity": 7, "leaseDurationSeconds": "9"}),
     _lease({"leaseDurationSeconds": -1, "leaseTransitions": -4, "renewTime": {}}), {"metadata": 3, "spec": {}}],
)  # fmt: skip
def test_a_lease_of_nonsense_is_nobodys(lease: Any) -> None:
    assert record_of(lease) == Record()
    assert observed(lease, None, 0.0).is_free(0.0)


def test_nobody_can_hold_it_for_years() -> None:
    assert record_of(_lease({"holderIdentity": "a", "leaseDurationSeconds": 2**31})).duration_s == DURATION_S
