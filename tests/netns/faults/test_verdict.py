"""The judge of all tests here: what it excuses, and what it does not."""

from typing import Any

import pytest

from tests.netns.faults.verdict import Death, judge

MS = 1_000_000
AT = 10_000 * MS
KILL = Death.by_kill(AT, AT)


def _result(reason: str, opened_ms: int, sent_ms: int, failed_ms: int) -> dict[str, Any]:
    """One loss; times are relative to the kill."""
    loss = {
        "reason": reason,
        "opened_ns": AT + opened_ms * MS,
        "sent_ns": AT + sent_ms * MS,
        "failed_ns": AT + failed_ms * MS,
        "reused": False,
    }
    return {"sent": 5, "ok": 4, "failed": 1, "losses": [loss], "connected": 3, "connect_ns": {"p99": 7, "p100": 9}}


@pytest.mark.parametrize(
    ("reason", "opened_ms", "sent_ms", "failed_ms"),
    [
        ("receive: Connection reset by peer", -500, -3, 1),
        ("closed unanswered", -500, 1, 20),
        ("closed in the middle of an answer", -5, -5, 900),
        ("after the answer: receive: Connection reset by peer", -5, -5, 3),
        ("status 503", -500, -1, 40),
    ],
)
def test_what_a_killed_process_had_accepted_is_cut(reason: str, opened_ms: int, sent_ms: int, failed_ms: int) -> None:
    verdict = judge(_result(reason, opened_ms, sent_ms, failed_ms), [KILL])
    assert (verdict.cut, verdict.failed) == (1, {})


@pytest.mark.parametrize(
    ("reason", "opened_ms", "sent_ms", "failed_ms", "kind"),
    [
        ("connect: Connection refused", -1, -1, 1, "refused"),
        ("connect: Connection reset by peer", -1, -1, 1, "reset"),
        ("receive: Connection reset by peer", 5, 5, 20, "reset"),
        ("closed unanswered", 5, 5, 20, "closed"),
        ("closed unanswered", -500, 1500, 1501, "closed"),
        ("receive: Connection reset by peer", -500, -50, -1, "reset"),
        ("status 503", -500, 5, 40, "status"),
        ("status 404", -500, -1, 40, "status"),
        ("no answer in 30 s", -500, -1, 40, "timeout"),
        ("bytes after the answer", -500, -1, 40, "other"),
    ],
)
def test_what_is_new_or_wrong_or_of_another_time_has_failed(
    reason: str, opened_ms: int, sent_ms: int, failed_ms: int, kind: str
) -> None:
    verdict = judge(_result(reason, opened_ms, sent_ms, failed_ms), [KILL])
    assert (verdict.cut, verdict.failed) == (0, {kind: 1})


def test_without_a_death_nothing_is_excused() -> None:
    assert judge(_result("closed unanswered", -5, -5, 1)).failed == {"closed": 1}


def test_losses_that_were_not_told_and_requests_that_never_ended_are_failures() -> None:
    result = _result("closed unanswered", -5, -5, 1) | {"sent": 10, "failed": 3}
    assert judge(result, [KILL]).failed == {"not told apart": 2, "never ended": 3}
