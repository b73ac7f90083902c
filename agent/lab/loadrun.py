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
from agent.lab.node import LabPod, headgate

ANSWER_TIMEOUT_S: Final = 10.0
"""For an announcement of the load: twice the time that it gives a request."""


class RunningLoad:
    """`headgate lab load --control` in a pod. A context manager: its end ends the process."""

    def __init__(self, pod: LabPod, urls: Sequence[str], *, connections: int, seconds: float) -> None:
        options = [word for url in urls for word in ("--url", url)]
        options += ["--connections", str(connections), "--requests", "10000000", "--seconds", f"{seconds:g}"]
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
            lambda event: event["event"] == "phase" and event["name"] == phase, f"phase {phase}", ANSWER_TIMEOUT_S
        )

    def until(self, requests: int, show: Callable[[Mapping[str, Any]], None], *, timeout_s: float) -> None:
        """Returns when the current phase has so many answers; `show` gets each progress event."""

        def enough(event: Mapping[str, Any]) -> bool:
            if event["event"] != "progress":
                return False
            show(event)
            return bool(event["ok"] + event["failed"] >= requests)

        self._await(enough, f"{requests} requests", timeout_s)

    def stop(self) -> dict[str, Any]:
        """Lets it finish what is in flight; returns its result (load.py)."""
        self._command("stop")
        return self._await(lambda event: event["event"] == "result", "the result", ANSWER_TIMEOUT_S)

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
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not self._selector.select(remaining_s):
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
