"""Pods that come and go at a node that stays full, while API server, agent and proxy have their accidents."""

import itertools
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from agent.lab.errors import LabError
from tests.bench import flatness
from tests.bench.cluster_node import PROVED, ClusterNode, Member
from tests.bench.flatness import Holding

_RETRIES: Final = 40
"""As kubelet, which makes a sandbox anew until it is told otherwise; an agent is away for a second or two."""
_RETRY_S: Final = 0.5
_REST_WITHIN_S: Final = 60.0
_FREE_WITHIN_S: Final = 150.0
"""The kernel keeps a namespace while a closed connection in it waits for an answer of a pod that has gone, too: some
100 s (tcp(7): tcp_orphan_retries, eight of them, the first after 0.2 s). What a process leaks it holds for longer."""
_OWN_LINKS: Final = 2
"""lo and the bridge."""
_HANDS: Final = 16
"""Pods that begin or end at once."""


class Accident(Enum):
    WATCHES_CUT = "watches cut"
    HISTORY_FORGOTTEN = "watches cut, and 410 for who comes back"
    PROXY_UPGRADED = "proxy upgraded"
    AGENT_KILLED = "agent killed"


OF_THE_SERVER: Final = (Accident.WATCHES_CUT, Accident.HISTORY_FORGOTTEN)
ALL: Final = tuple(Accident)


@dataclass(frozen=True, slots=True)
class Pace:
    """`pods` at any time; `a_second` of them end and as many begin."""

    pods: int
    a_second: float
    accidents_every_s: float
    samples_every_s: float


@dataclass(slots=True)
class Tally:
    """`adds_ms`: of each ADD that succeeded; `again`: ADDs that had to be tried again; `late`: how far behind its pace
    it was at most, in seconds."""

    adds_ms: list[float] = field(default_factory=list)
    ended: int = 0
    again: int = 0
    late_s: float = 0.0
    accidents: int = 0


class Churn:
    """Of one node. `run` may be called again."""

    def __init__(self, node: ClusterNode, pace: Pace) -> None:
        self._node = node
        self._pace = pace
        self._numbers = itertools.count()
        self._live: deque[Member] = deque()
        self._lock = threading.Condition()
        self._formers: list[subprocess.Popen[bytes]] = []
        self._hands = ThreadPoolExecutor(_HANDS)
        self._samples: list[Holding] = []
        self.tally = Tally()

    @property
    def names(self) -> set[str]:
        return {pod.name for pod in self._live}

    def close(self) -> None:
        self._hands.shutdown(wait=True, cancel_futures=True)

    def fill(self) -> None:
        """Up to the steady number, as fast as they come. Raises LabError."""
        for done in [self._hands.submit(self._begin) for _ in range(self._pace.pods)]:
            done.result()
        self._settle()

    def start_some(self, number: int) -> None:
        """So many begin, at that pace, and end when all have begun. Raises LabError as `run`."""
        for do, each_s in ((self._begin, 1 / self._pace.a_second), (self._end, 0.0)):
            pending = []
            for _ in range(number):
                pending.append(self._hands.submit(do))
                time.sleep(each_s)
            for one in pending:
                one.result()
        self.at_rest()

    def run(self, seconds: float, accidents: Sequence[Accident]) -> list[Holding]:
        """These, in turn; what the node held meanwhile. Raises LabError when a pod does not start or end."""
        self._samples = []
        following = itertools.cycle(accidents)
        pending: deque[Future[None]] = deque()
        began_s = time.monotonic()
        accident_s, sample_s = self._pace.accidents_every_s / 2, 0.0
        for turn in itertools.count():
            due_s = turn / self._pace.a_second
            if due_s >= seconds:
                break
            now_s = time.monotonic() - began_s
            self.tally.late_s = max(self.tally.late_s, now_s - due_s)
            time.sleep(max(0.0, due_s - now_s))
            pending += (self._hands.submit(self._begin), self._hands.submit(self._end))
            while pending and pending[0].done():
                pending.popleft().result()
            if accidents and due_s >= accident_s:
                accident_s += self._pace.accidents_every_s
                self._accident(next(following))
            if due_s >= sample_s:
                sample_s += self._pace.samples_every_s
                self._sample()
        for one in pending:
            one.result()
        return self._samples

    def at_rest(self, until: Callable[[Holding], bool] = lambda held: True) -> Holding:
        """What is held once every pod is proved, no other is known, the proxies before have ended, and the kernel has
        taken down the namespaces that have gone. Raises LabError when that takes longer than that. What passes by
        itself (a connection that closes, an allocator that tidies up) has another minute to be as `until` wants it."""
        self._settle()
        self._node.lab.wait("former proxies to end", self._alone, timeout_s=_REST_WITHIN_S)
        links = len(self._live) + _OWN_LINKS
        wait = self._node.lab.wait
        wait("free namespaces", lambda: flatness.take(self._node).links == links, timeout_s=_FREE_WITHIN_S)
        over_s = time.monotonic() + _REST_WITHIN_S
        while not until(held := flatness.take(self._node)) and time.monotonic() < over_s:
            time.sleep(_RETRY_S)
        return held

    def _alone(self) -> bool:
        self._formers = [former for former in self._formers if former.poll() is None]
        return not self._formers

    # ── One pod ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _begin(self) -> None:
        pod = self._node.make(next(self._numbers))
        for _ in range(_RETRIES):
            try:
                took_ms = self._node.add(pod)
            except LabError:
                with self._lock:
                    self.tally.again += 1
                time.sleep(_RETRY_S)
                continue
            with self._lock:
                self.tally.adds_ms.append(took_ms)
                self._live.append(pod)
                self._lock.notify()
            return
        raise LabError(f"{pod.name} did not start in {_RETRIES} tries\n{self._node.lab.log('agent')[-2000:]}")

    def _end(self) -> None:
        """The oldest; where none is there, since an agent that is away lets none begin, the next one."""
        with self._lock:
            if not self._lock.wait_for(lambda: self._live, _RETRIES * _RETRY_S):
                raise LabError(f"no pod to end: none began for {_RETRIES * _RETRY_S:g} s")
            pod = self._live.popleft()
        self._node.end(pod)
        with self._lock:
            self.tally.ended += 1

    def _settle(self) -> None:
        self._node.wait_all(self.names, PROVED, 60)

    # ── What happens beside ────────────────────────────────────────────────────────────────────────────────────────
    def _accident(self, which: Accident) -> None:
        self.tally.accidents += 1
        match which:
            case Accident.WATCHES_CUT:
                self._node.api.cut()
            case Accident.HISTORY_FORGOTTEN:
                self._node.api.forget_history()
            case Accident.PROXY_UPGRADED:
                self._upgrade()
            case Accident.AGENT_KILLED:
                self._node.lab.kill_agent()
                self._node.start_agent()

    def _upgrade(self) -> None:
        self._alone()  # those that have ended are buried
        self._formers.append(self._node.lab.take_over_proxy(own_objects=False))

    def _sample(self) -> None:
        # A process that was ended just now, or is being replaced: the next sample is soon enough.
        with suppress(OSError, KeyError, LabError, ValueError):
            self._samples.append(flatness.take(self._node))


@contextmanager
def churning(node: ClusterNode, pace: Pace) -> Iterator[Churn]:
    churn = Churn(node, pace)
    try:
        yield churn
    finally:
        churn.close()
