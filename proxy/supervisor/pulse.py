"""Is a worker's process still with us? Pure: pings, answers and process states come in, a verdict comes out.

A stopped process (SIGSTOP, a debugger, a frozen cgroup's ptrace stop) keeps its sockets and serves nobody: its pods
must move. A slow one on a loaded node must not be killed for it, that would cut its connections.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

PING_EVERY_S: Final = 0.5
STOPPED_AFTER_S: Final = 1.0
"""Unanswered for so long *and* seen stopped: with a ping each 0.5 s noticed within 2 s. A stop and continue of a
debugger or profiler (py-spy: milliseconds) is shorter."""
SILENT_AFTER_S: Final = 5.0
"""Unanswered for so long whatever the kernel says of it. The worker's longest stretch is one slice or one turn, tens of
milliseconds; a node that gives it no processor for 5 s serves nobody either way."""
START_AFTER_S: Final = 15.0
"""From the start of a process to its first word: 0.15 s on an idle machine, seconds when a whole node starts."""
LATE_S: Final = 1.0
"""The supervisor itself did not run for so long: what it missed says nothing of the workers."""

STOPPED_STATES: Final = frozenset("Tt")
"""State letters of proc(5) /proc/PID/stat: stopped, and stopped by a tracer."""


class Verdict(Enum):
    """Why a worker is given up; the values are labels of headgate_worker_restarts_total."""

    STOPPED = "stopped"
    UNRESPONSIVE = "unresponsive"


@dataclass(slots=True)
class Pulse:
    """Of one process, from its start. `now_s` is monotonic throughout."""

    started_s: float
    _last_judged_s: float = 0.0
    _unanswered_since_s: float | None = None
    _sent: int = 0
    _answered: int = 0
    _spoke: bool = False

    def ping(self, now_s: float) -> int:
        """The number of the ping that is sent now."""
        self._sent += 1
        if self._unanswered_since_s is None:
            self._unanswered_since_s = now_s
        return self._sent

    def pong(self, sequence: int, now_s: float) -> None:
        """An answer; what was sent after the ping that it answers is young still."""
        self._spoke = True
        self._answered = max(self._answered, sequence)
        self._unanswered_since_s = None if self._answered >= self._sent else now_s

    def spoke(self) -> None:
        """Its first word: it has started."""
        self._spoke = True

    def judge(self, now_s: float, state: str) -> Verdict | None:
        """Called each PING_EVERY_S before the next ping; `state` is the process's letter, "" if unknown."""
        late = self._last_judged_s and now_s - self._last_judged_s > PING_EVERY_S + LATE_S
        self._last_judged_s = now_s
        if late:
            self.started_s = now_s
            if self._unanswered_since_s is not None:
                self._unanswered_since_s = now_s
            return None
        since_s = self._unanswered_since_s
        silent_s = 0.0 if since_s is None else now_s - since_s
        if state in STOPPED_STATES and state and silent_s >= STOPPED_AFTER_S:
            return Verdict.STOPPED
        if not self._spoke:
            return Verdict.UNRESPONSIVE if now_s - self.started_s >= START_AFTER_S else None
        return Verdict.UNRESPONSIVE if silent_s >= SILENT_AFTER_S else None
