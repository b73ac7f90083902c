"""A load in a process of its own inside a pod, steered from here phase by phase."""

from __future__ import annotations

import json
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from agent.lab.errors import LabError
from agent.lab.load import KEPT, Shape
from agent.lab.node import LabPod, headgate

ANSWER_TIMEOUT_S: Final = 10.0
"""For the end of a load that has failed."""


class RunningLoad:
    """`headgate lab load --control` in a pod. A context manager: its end ends the process."""

    def __init__(
        self,
        pod: LabPod,
        urls: Sequence[str],
        *,
        connections: int,
        seconds: float,
        requests: int = 10_000_000,
        shape: Shape = KEPT,
    ) -> None:
        self._timeout_s = 2 * shape.timeout_s
        options = [word for url in urls for word in ("--url", url)]
        options += ["--connections", str(connections), "--requests", str(requests), "--seconds", f"{seconds:g}"]
        options += ["--timeout-s", f"{shape.timeout_s:g}", "--ends", shape.ends.value]
        options += ["--per-s", f"{shape.per_s:g}"] if shape.per_s is not None else []
        self._process: subprocess.Popen[bytes] = pod.popen(
            [*headgate(), "lab", "load", *options, "--control"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._pending = b""
        self._answered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._selector.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def begin(self, phase: str) -> None:
        """Names what is sent from now on; returns when no request of an earlier phase is in flight."""
        self._command(f"phase {phase}")
        self._await(
            lambda event: event["event"] == "phase" and event["name"] == phase, f"phase {phase}", self._timeout_s
        )

    def until(self, requests: int, show: Callable[[Mapping[str, Any]], None], *, timeout_s: float) -> None:
        """Returns when the current phase has so many answers; `show` gets each progress event."""

        def enough(event: Mapping[str, Any]) -> bool:
            if event["event"] != "progress":
                return False
            show(event)
            self._answered = event["ok"] + event["failed"]
            return self._answered >= requests

        self._await(enough, f"{requests} requests", timeout_s)

    def answered(self) -> int:
        """Requests of the current phase that were answered, well or not, as last told."""
        while b"\n" in self._pending or self._selector.select(0):
            event = self._event(time.monotonic(), "its progress")
            if event["event"] == "progress":
                self._answered = event["ok"] + event["failed"]
        return self._answered

    def more(self, requests: int, *, timeout_s: float) -> None:
        """Returns when so many further requests of the current phase are answered, from now on."""
        self.until(self.answered() + requests, lambda _: None, timeout_s=timeout_s)

    def result(self, *, timeout_s: float) -> dict[str, Any]:
        """The result of a load that ends by itself: after its requests, or its seconds."""
        return self._await(lambda event: event["event"] == "result", "the result", timeout_s)

    def stop(self) -> dict[str, Any]:
        """Lets it finish what is in flight; returns its result (load.py)."""
        self._command("stop")
        return self._await(lambda event: event["event"] == "result", "the result", self._timeout_s)

    def _command(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError as error:
            raise LabError(f"the load has ended before {line!r}: {self._errors()}") from error

    def _await(self, wanted: Callable[[Mapping[str, Any]], bool], what: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            event = self._event(deadline, what)
            if wanted(event):
                return event

    def _event(self, deadline: float, what: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            remaining_s = max(0.0, deadline - time.monotonic())
            if not self._selector.select(remaining_s):
                raise LabError(f"the load: waited in vain for {what}")
            data = self._process.stdout.read(65536)
            if not data:
                raise LabError(f"the load has ended before {what}: {self._errors()}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def _errors(self) -> str:
        assert self._process.stderr is not None
        self._process.wait(timeout=ANSWER_TIMEOUT_S)
        return (self._process.stderr.read() or b"").decode("utf-8", "replace").strip()
