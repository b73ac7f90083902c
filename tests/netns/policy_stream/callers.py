"""Clients that connect all the time, one request a connection, and note who answered when, and what nobody did."""

import json
import threading
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final, Self

from agent.lab.figures import percentile
from agent.lab.node import LabPod
from agent.lab.tally import Loss
from tests.netns.faults.verdict import Death, Verdict, judge

PATIENCE_S: Final = 20.0
"""A connection may wait that long in a listener's queue for its pod's policy."""
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    at_s: float
    status: int
    pod: str
    """Whose application it was; "" for an answer that the proxy made."""


class Callers:
    """Two threads for each address; a context manager. `losses` are connections without a good answer: refused, or cut
    with the proxy that died, or answered by it with an error."""

    def __init__(self, pod: LabPod, addresses: tuple[str, ...]) -> None:
        self._pod = pod
        self._threads = [threading.Thread(target=self._call, args=(to,)) for to in addresses for _ in range(2)]
        self._ending = False
        self._connects_ns: list[int] = []
        self.answers: list[Answer] = []
        self.losses: list[Loss] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Returns when every call has ended. Stopping twice is harmless."""
        self._ending = True
        for thread in self._threads:
            thread.join(PATIENCE_S + 5)
            assert not thread.is_alive()

    def since(self, at_s: float) -> list[Answer]:
        return [answer for answer in self.answers if answer.at_s >= at_s]

    def verdict(self, *deaths: Death) -> Verdict:
        """Stops, and judges all calls."""
        self.stop()
        connects, good = sorted(self._connects_ns), sum(answer.status == 200 for answer in self.answers)
        return judge(
            {
                "sent": good + len(self.losses),
                "ok": good,
                "failed": len(self.losses),
                "losses": [asdict(loss) for loss in self.losses],
                "connected": len(connects),
                "connect_ns": {"p99": percentile(connects, 0.99), "p100": percentile(connects, 1.0)},
            },
            deaths,
        )

    def _call(self, address: str) -> None:
        while not self._ending:
            began_ns = time.monotonic_ns()
            reason = self._ask(address, began_ns)
            if reason:
                self.losses.append(Loss(reason, began_ns, began_ns, time.monotonic_ns(), reused=False))
            time.sleep(0.005)  # a pace: the machine has others to serve

    def _ask(self, address: str, began_ns: int) -> str:
        """Why there is no good answer; "" if there is one."""
        try:
            sock = self._pod.netns.connect(address, 80, timeout_s=PATIENCE_S)
        except OSError as error:
            return f"connect: {error.strerror or 'no answer'}"
        self._connects_ns.append(time.monotonic_ns() - began_ns)
        received = b""
        try:
            with sock:
                sock.sendall(REQUEST)
                while data := sock.recv(65536):
                    received += data
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return f"receive: {error.strerror}"
        answer = _answer(received)
        if answer is None:
            return "closed in the middle" if received else "closed unanswered"
        self.answers.append(answer)
        return "" if answer.status == 200 else f"status {answer.status}"


def _answer(received: bytes) -> Answer | None:
    """None for what is no whole answer."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return None
    try:
        status = int(head.split(b" ", 2)[1])
        return Answer(time.monotonic(), status, str(json.loads(body)["pod"]) if status == 200 else "")
    except (ValueError, IndexError):
        return None
