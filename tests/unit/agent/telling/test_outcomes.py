"""agent.telling.outcomes: what a refusal means for the next write."""

from __future__ import annotations

import pytest

from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.telling.outcomes import AFTER_FORBIDDEN_S, Error, Outcome, Trouble, outcome_of

USER = 'User "system:serviceaccount:headgate-system:headgate-agent"'
BY_ROLE = ApiRefused(
    403, "Forbidden",
    f'pods "web" is forbidden: {USER} cannot patch resource "pods/status" in API group "" in the namespace "default"',
)  # fmt: skip
BY_POLICY = ApiRefused(
    403, "Forbidden", "pods \"web\" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: no"
)
BY_WEBHOOK = ApiRefused(500, "InternalError", 'Internal error occurred: failed calling webhook "x": timeout')


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CannotReach("away"), Outcome.UNREACHABLE),
        (InvalidAccess("no token"), Outcome.FORBIDDEN),
        (ApiRefused(401, "Unauthorized", "Unauthorized"), Outcome.FORBIDDEN),
        (BY_ROLE, Outcome.FORBIDDEN),
        (BY_POLICY, Outcome.REFUSED),
        (ApiRefused(404, "NotFound", 'pods "web" not found'), Outcome.ABSENT),
        (ApiRefused(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"),
         Outcome.CONFLICT),
        (ApiRefused(422, "Invalid", 'Pod "web" is invalid: metadata.uid: Invalid value: "b": field is immutable'),
         Outcome.CONFLICT),
        (ApiRefused(422, "Invalid", "metadata.annotations: Too long"), Outcome.REFUSED),
        (ApiRefused(429, "TooManyRequests", "slow down", 3.0), Outcome.LATER),
        (ApiRefused(503, "ServiceUnavailable", "etcd"), Outcome.LATER),
        (BY_WEBHOOK, Outcome.REFUSED),
    ],
)  # fmt: skip
def test_what_each_answer_means(error: Error, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


def test_a_missing_rule_is_named_and_not_hammered_at() -> None:
    trouble = Trouble("write pods' status", "patch of pods/status")
    assert trouble.met(BY_ROLE, 0.0) < 1.0  # a role may have been changed just now
    assert trouble.met(BY_ROLE, 0.0) == AFTER_FORBIDDEN_S
    assert "may not write pods' status: 403 Forbidden" in trouble.problem
    assert trouble.problem.endswith("the role must permit patch of pods/status")
    trouble.went_well()
    assert trouble.problem == ""


def test_a_server_that_is_away_is_asked_less_and_less_and_one_that_says_when_then() -> None:
    trouble = Trouble("write Events", "create of events")
    waits = [trouble.met(CannotReach("away"), 0.0) for _ in range(12)]
    assert waits == sorted(waits)
    assert waits[-1] == 30.0
    assert trouble.met(ApiRefused(429, "", "", 90.0), 0.5) == 135.0


@pytest.mark.parametrize("error", [BY_POLICY, BY_WEBHOOK, ApiRefused(404, "", ""), ApiRefused(409, "", "")])
def test_what_one_object_meets_keeps_no_other_waiting(error: Error) -> None:
    trouble = Trouble("write pods' status", "patch of pods/status")
    assert trouble.met(error, 0.9) == 0.0
    assert trouble.problem == ""
