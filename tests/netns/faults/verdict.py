"""Which requests of a load were lost, and which of these nobody could have saved. Values in, values out.

A connection that a process had accepted ends with that process: its requests are `cut`, and told apart. All else is
`failed`: a new connection that is refused or reset, a request that nobody answers, a wrong status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_ENDED_WITHIN_NS: Final = 1_000_000_000
"""Between SIGKILL and the end of a process's last connection: exit closes some thousand sockets in a few ms; the rest
is a busy machine's."""
_RETRIED_WITHIN_NS: Final = 5_000_000_000
"""A request whose upstream connection was in the killed process is answered 503 by another one, after its retries."""
_SLACK_NS: Final = 2_000_000
"""A process that was told to die may finish one system call: an accept(2) among them."""

_KINDS: Final = (
    ("connect: Connection refused", "refused"),
    ("connect: Connection reset", "reset"),
    ("connect: no answer", "timeout"),
    ("no answer", "timeout"),
    ("connect: ", "unreachable"),
    ("receive: Connection reset", "reset"),
    ("send: ", "reset"),
    ("closed unanswered", "closed"),
    ("closed in the middle", "truncated"),
    ("status ", "status"),
)


@dataclass(frozen=True, slots=True)
class Death:
    """Of a process of ours and its children, CLOCK_MONOTONIC ns: it began at `began_ns` (killed or stopped), nothing
    was accepted after `at_ns`, and its connections had ended by `over_ns`."""

    began_ns: int
    at_ns: int
    over_ns: int

    @staticmethod
    def by_kill(began_ns: int, at_ns: int) -> Death:
        """Gone by `at_ns`."""
        return Death(began_ns, at_ns, at_ns + _ENDED_WITHIN_NS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failed` by kind: refused, reset, timeout, closed, truncated, status, …; times in ns."""

    sent: int
    ok: int
    cut: int
    failed: Mapping[str, int]
    connections: int
    connect_p99_ns: int
    connect_max_ns: int

    @property
    def lost(self) -> int:
        return sum(self.failed.values())


def judge(result: Mapping[str, Any], deaths: Sequence[Death] = ()) -> Verdict:
    """Of a load's `all` (agent/lab/tally.py)."""
    cut, failed = 0, Counter[str]()
    for loss in result["losses"]:
        if any(_was_cut(loss, death) for death in deaths):
            cut += 1
        else:
            failed[kind(loss["reason"])] += 1
    untold = result["failed"] - len(result["losses"])
    if untold:
        failed["not told apart"] = untold
    unanswered = result["sent"] - result["ok"] - result["failed"]
    if unanswered:
        failed["never ended"] = unanswered
    connect = result["connect_ns"]
    return Verdict(
        result["sent"], result["ok"], cut, dict(failed), result["connected"], connect["p99"], connect["p100"]
    )


def kind(reason: str) -> str:
    """The kind of failure that a reason in words is of."""
    bare = reason.removeprefix("after the answer: ")
    return next((name for beginning, name in _KINDS if bare.startswith(beginning)), "other")


def _was_cut(loss: Mapping[str, Any], death: Death) -> bool:
    reason, failed_ns = loss["reason"], loss["failed_ns"]
    if failed_ns < death.began_ns or reason.startswith("connect: "):
        return False
    if reason == "status 503":
        return bool(loss["sent_ns"] < death.at_ns + _SLACK_NS and failed_ns < death.over_ns + _RETRIED_WITHIN_NS)
    ended = kind(reason) in {"reset", "closed", "truncated"}
    return ended and bool(loss["opened_ns"] < death.at_ns + _SLACK_NS and failed_ns < death.over_ns)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The sum; of the connect times the worst."""
    failed = Counter[str]()
    for one in verdicts:
        failed.update(one.failed)
    return Verdict(
        sum(one.sent for one in verdicts),
        sum(one.ok for one in verdicts),
        sum(one.cut for one in verdicts),
        dict(failed),
        sum(one.connections for one in verdicts),
        max(one.connect_p99_ns for one in verdicts),
        max(one.connect_max_ns for one in verdicts),
    )
