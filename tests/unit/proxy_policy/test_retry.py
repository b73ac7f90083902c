"""Which failures are tried again, how often, and when."""

import pytest

from proxy.model.routing import DEFAULT_RETRY, RetryOn, RetryPolicy
from proxy.policy.retry import Failure, back_off_s, exhausted, may_reconnect, may_retry

NO_CONNECT = RetryPolicy(2, frozenset(RetryOn) - {RetryOn.CONNECT_FAILURE}, 0.025)
NEVER = RetryPolicy(0, DEFAULT_RETRY.retry_on, 0.025)


def test_istio_s_default_makes_three_tries_at_most() -> None:
    assert [may_retry(DEFAULT_RETRY, Failure.CONNECT_FAILED, retries) for retries in (0, 1, 2, 3)] == [
        True,
        True,
        False,
        False,
    ]


def test_only_the_last_failure_of_a_retriable_kind_is_flagged_urx() -> None:
    assert [exhausted(DEFAULT_RETRY, Failure.CONNECT_FAILED, retries) for retries in (0, 1, 2)] == [False, False, True]
    assert not exhausted(NEVER, Failure.CONNECT_FAILED, 0)
    assert not exhausted(NO_CONNECT, Failure.CONNECT_FAILED, 2)
    assert not exhausted(DEFAULT_RETRY, Failure.RESET_MID_RESPONSE, 2)


def test_no_attempts_or_another_condition_means_no_retry() -> None:
    assert not may_retry(NEVER, Failure.CONNECT_FAILED, 0)
    assert not may_retry(NO_CONNECT, Failure.CONNECT_FAILED, 0)


@pytest.mark.parametrize("failure", [Failure.RESET_BEFORE_RESPONSE, Failure.RESET_MID_RESPONSE])
def test_a_request_that_an_endpoint_may_have_seen_is_never_repeated_by_policy(failure: Failure) -> None:
    everything = RetryPolicy(5, frozenset(RetryOn), 0.025)
    assert not may_retry(everything, failure, 0)


@pytest.mark.parametrize(
    ("reused", "response_bytes", "body_consumed", "expected"),
    [(True, 0, False, True), (False, 0, False, False), (True, 1, False, False), (True, 0, True, False)],
)
def test_the_keep_alive_race_earns_one_new_connection(
    reused: bool, response_bytes: int, body_consumed: bool, expected: bool
) -> None:
    assert may_reconnect(reused, response_bytes, body_consumed) is expected


@pytest.mark.parametrize(
    ("retry", "longest_ms"), [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (6, 250), (10**6, 250)]
)
def test_back_off_doubles_up_to_ten_times_its_base(retry: int, longest_ms: int) -> None:
    assert back_off_s(DEFAULT_RETRY, retry, 0.0) == 0.0
    assert back_off_s(DEFAULT_RETRY, retry, 0.5) == pytest.approx(longest_ms / 2000)
    assert back_off_s(DEFAULT_RETRY, retry, 1 - 2**-53) < longest_ms / 1000 * (1 + 1e-12)
