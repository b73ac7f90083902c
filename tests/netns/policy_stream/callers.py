"""Clients that connect all the time, one request a connection, and note who answered when."""

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from agent.lab.node import LabPod

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
    """Two threads for each address; a context manager."""

    def __init__(self, pod: LabPod, addresses: tuple[str, ...]) -> None:
        self._pod = pod
        self._threads = [threading.Thread(target=self._call, args=(to,)) for to in addresses for _ in range(2)]
        self._ending = False
        self.answers: list[Answer] = []
        self.tries = 0
        self.failed = 0
        """Connections without an answer: refused, or cut with the proxy that died."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending = True
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive()

    def since(self, at_s: float) -> list[Answer]:
        return [answer for answer in self.answers if answer.at_s >= at_s]

    def _call(self, address: str) -> None:
        while not self._ending:
            self.tries += 1
            answer = None
            with suppress(OSError, ValueError), self._pod.netns.connect(address, 80, timeout_s=PATIENCE_S) as sock:
                sock.sendall(REQUEST)
                received = b""
                while data := sock.recv(65536):
                    received += data
                answer = _answer(received)
            if answer is None:
                self.failed += 1
            else:
                self.answers.append(answer)
            time.sleep(0.005)  # a pace: the machine has others to serve


def _answer(received: bytes) -> Answer:
    """Raises ValueError for what is no whole answer."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        raise ValueError("no answer")
    status = int(head.split(b" ", 2)[1])
    return Answer(time.monotonic(), status, str(json.loads(body)["pod"]) if status == 200 else "")
