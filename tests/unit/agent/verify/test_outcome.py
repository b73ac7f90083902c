"""What was seen, judged beside what was expected."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.plan import IPFamily
from agent.plan.rules import Protocol
from agent.verify.expected import Expected
from agent.verify.matrix import Cell, Sender
from agent.verify.outcome import Report, Result, Seen, Untold, judged

CAPTURED = Cell(
    "elsewhere",
    IPFamily.IPV6,
    Sender.APPLICATION,
    Protocol.TCP,
    ip_address("fd00::77"),
    15002,
    1000,
    1000,
    0,
    Expected(15001, "out-capture"),
    ip_address("fd00::5"),
)
DIRECT = replace(CAPTURED, sender=Sender.PROXY, expected=Expected(None, "out-capture-skip-proxy"))


@pytest.mark.parametrize(
    ("cell", "seen", "result", "words"),
    [
        (CAPTURED, Seen(15001, "conntrack"), Result.OK, "conntrack"),
        (CAPTURED, Seen(None), Result.FAILED, "went past the proxy; rule out-capture should"),
        (CAPTURED, Seen(15006), Result.FAILED, "port 15006 instead of 15001"),
        (CAPTURED, Seen(lost="dropped by x"), Result.FAILED, "dropped by x"),
        (DIRECT, Seen(None, "accepted there"), Result.OK, "accepted there"),
        (DIRECT, Seen(15001), Result.FAILED, "rule out-capture-skip-proxy should have left it alone"),
        (DIRECT, Untold("needs CAP_SETUID"), Result.UNKNOWN, "needs CAP_SETUID"),
    ],
)
def test_each_cell_is_judged_and_told(cell: Cell, seen: Seen | Untold, result: Result, words: str) -> None:
    outcome = judged(cell, seen)
    assert outcome.result is result and words in outcome.reason


OK, PAST, UNTRIED = judged(CAPTURED, Seen(15001)), judged(CAPTURED, Seen(None)), judged(CAPTURED, Untold("no"))
FINE = judged(DIRECT, Seen(None))


def test_a_report_is_ok_when_nothing_failed_and_a_capture_was_seen() -> None:
    assert Report((OK, FINE), (), 0.1).ok
    assert Report((OK, UNTRIED), (), 0.1).ok
    assert not Report((OK, PAST), (), 0.1).ok
    assert Report((OK, PAST), (), 0.1).why_not == "application to elsewhere (ipv6)"


def test_what_proves_nothing_is_not_ok() -> None:
    assert not Report((), ("IPv4: no address",), 0.1).ok
    unproved = Report((FINE, UNTRIED), (), 0.1)
    assert not unproved.ok and unproved.why_not == "no connection that is to be captured could be tried"


def test_a_plan_that_captures_nothing_is_ok_when_everything_goes_direct() -> None:
    assert Report((FINE,), (), 0.1).ok


def test_rows_and_json_tell_the_same() -> None:
    report = Report((OK, PAST, UNTRIED), ("IPv4: none",), 0.12345)
    assert report.rows()[1][:7] == (
        "ipv6",
        "application",
        "elsewhere",
        "[fd00::77]:15002",
        "to 15001",
        "direct",
        "FAILED",
    )
    assert report.summary == "1 ok, 1 failed, 1 unknown"
    shown = report.as_json()
    assert (shown["ok"], shown["seconds"], shown["untried"]) == (False, 0.123, ["IPv4: none"])
    assert shown["cells"][1] == {
        "family": "ipv6",
        "protocol": "tcp",
        "sender": "application",
        "name": "elsewhere",
        "uid": 1000,
        "gid": 1000,
        "mark": 0,
        "source": "fd00::5",
        "destination": "fd00::77",
        "port": 15002,
        "expected": "to 15001",
        "rule": "out-capture",
        "seen": "direct",
        "result": "failed",
        "reason": PAST.reason,
    }
