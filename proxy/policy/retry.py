"""May a failed request be tried again, and when."""

from enum import Enum
from typing import Final

from proxy.model.routing import RetryOn, RetryPolicy

MAX_BACK_OFF_FACTOR: Final = 10
"""Longest pause as a multiple of the base (Envoy, RetryPolicy.RetryBackOff.max_interval)."""
_DOUBLINGS: Final = 4
"""2**4 exceeds the factor: doubling more often changes nothing."""


class Failure(Enum):
    """How a try ended without a response to pass on."""

    CONNECT_FAILED = "connect-failure"
    """Refused, unreachable, or no answer to the SYN in time: nothing was sent, so any method may be tried again."""
    RESET_BEFORE_RESPONSE = "reset-before-response"
    """The endpoint closed after it may have seen the request: only `reset` would allow another try, and no policy of
    this version asks for it (istio#13851: repeating a POST that had connected is what users complain about)."""
    RESET_MID_RESPONSE = "reset-mid-response"
    """The client has bytes of the response: never."""


_ALLOWED_BY: Final = {Failure.CONNECT_FAILED: RetryOn.CONNECT_FAILURE}


def may_retry(policy: RetryPolicy, failure: Failure, retries: int) -> bool:
    """Whether one more try is due after `retries` of them (0 after the first failure)."""
    return retries < policy.attempts and _ALLOWED_BY.get(failure) in policy.retry_on


def exhausted(policy: RetryPolicy, failure: Failure, retries: int) -> bool:
    """Whether the policy would retry this failure but has no attempt left: response flag URX (Envoy RetryState,
    NoRetryLimitExceeded). A policy of no attempts never retries, so it is never exhausted."""
    return 0 < policy.attempts <= retries and _ALLOWED_BY.get(failure) in policy.retry_on


def may_reconnect(reused: bool, response_bytes: int, body_consumed: bool) -> bool:
    """Whether a request whose connection was reset goes once more over a new one, whatever the retry policy says.

    The keep-alive race: the server closed an idle connection while we wrote to it. Only on a `reused` connection,
    before any response byte, with nothing of the body taken from the client (it could not be sent again). And so only
    once: the new connection is not a reused one.
    """
    return reused and response_bytes == 0 and not body_consumed


def back_off_s(policy: RetryPolicy, retry: int, chance: float) -> float:
    """Pause before retry number `retry` (from 1): uniform in [0, min(base * 2**(retry - 1), 10 * base)), `chance` in
    [0, 1) deciding (Envoy source/common/common/backoff_strategy.cc, JitteredExponentialBackOffStrategy)."""
    return policy.back_off_s * chance * min(1 << min(retry - 1, _DOUBLINGS), MAX_BACK_OFF_FACTOR)
