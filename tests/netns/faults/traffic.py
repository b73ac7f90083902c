"""The traffic that a fault meets: several loads at once from one pod, each in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from agent.lab import processes
from agent.lab.load import Ends, Shape
from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab, LabPod
from tests.netns.faults.verdict import Death, Verdict, judge, together

VIRTUAL: Final = ("http://10.96.0.10/", "http://[fd96::10]/")
PATIENCE_S: Final = 30.0
"""Of a client: longer than the longest gap here, so that a request that waited is told from one that was lost."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One load of the traffic."""

    connections: int
    shape: Shape


KEPT: Final = Kind(16, Shape(timeout_s=PATIENCE_S))
"""Keep-alive connections that are always busy."""
PAUSING: Final = Kind(32, Shape(per_s=100, timeout_s=PATIENCE_S))
"""Keep-alive connections between two requests most of the time: what a proxy may close, but not under a request."""
ARRIVING: Final = Kind(4000, Shape(Ends.SERVER, per_s=150, timeout_s=PATIENCE_S))
"""New connections at a steady rate, whether earlier ones are answered or not; as many as wait in a gap of 10 s."""
FRESH: Final = Kind(8, Shape(Ends.CLIENT, timeout_s=PATIENCE_S))
"""New connections one after the other, as fast as they are answered."""


def killed(lab: Lab, name: str) -> Death:
    """SIGKILL to the lab's `agent` or `proxy`; returns when it is gone, with the workers, which end after it."""
    family = [processes.identify(pid) for pid in processes.children(lab.pid(name))]
    began_ns = time.monotonic_ns()
    lab.kill(name)
    lab.wait(f"{name}'s children to end", lambda: not any(map(processes.alive, family)))
    return Death.by_kill(began_ns, time.monotonic_ns())


class Traffic:
    """Loads that run from `with` until `end`. Kills are told to it, so that it knows what they had to cut."""

    def __init__(
        self,
        lab: Lab,
        kinds: Sequence[Kind] = (KEPT, PAUSING, ARRIVING),
        *,
        urls: Sequence[str] = VIRTUAL,
        pod: str | LabPod = "client",
        seconds: float = 100.0,
    ) -> None:
        self._lab = lab
        self._kinds = kinds
        self._urls = urls
        self._pod = pod
        self._seconds = seconds
        self._open = ExitStack()
        self.loads: list[RunningLoad] = []
        self.deaths: list[Death] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for kind in self._kinds:
                load = RunningLoad(
                    self._pod if isinstance(self._pod, LabPod) else self._lab.pod(self._pod),
                    self._urls,
                    connections=kind.connections,
                    seconds=self._seconds,
                    shape=kind.shape,
                )
                self.loads.append(stack.enter_context(load))
            self._open = stack.pop_all()
        self.goes_on()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def goes_on(self, requests: int = 50, *, timeout_s: float = 20.0) -> None:
        """Returns when each load has had so many further answers. LabError when one stands still."""
        for load in self.loads:
            load.more(requests, timeout_s=timeout_s)

    def kill(self, pid: int) -> None:
        """SIGKILL to a process of ours."""
        began_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        self.deaths.append(Death.by_kill(began_ns, began_ns))

    def kill_named(self, name: str) -> None:
        """SIGKILL to the lab's `agent` or `proxy`; returns when it is gone."""
        self.deaths.append(killed(self._lab, name))

    @contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """SIGSTOP to a process of ours that somebody kills within the block: its connections end there."""
        began_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGSTOP)
        yield
        now_ns = time.monotonic_ns()
        self.deaths.append(Death(began_ns, began_ns, Death.by_kill(began_ns, now_ns).over_ns))

    def answered(self) -> int:
        """Requests answered so far, well or not, by all loads."""
        return sum(load.answered() for load in self.loads)

    def end(self) -> Verdict:
        """Lets the loads finish what is in flight, and judges them together."""
        self.results = [load.stop() for load in self.loads]
        return together([judge(result["all"], self.deaths) for result in self.results])

    @property
    def losses(self) -> list[dict[str, Any]]:
        """After `end`: the first requests that were lost, for the message of a test that fails."""
        return [loss for result in self.results for loss in result["all"]["losses"]][:20]
