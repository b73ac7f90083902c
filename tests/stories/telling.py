"""A story as it is told: words, and commands that are really run on a lab's node, with what they printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec, ServerSpec
from tests.stories.normal import Normal

LIMIT_S: Final = 30.0
"""A command takes a second; a busy machine is slow."""
READY_S: Final = 60.0
APPLICATION: Final = str(Path(__file__).with_name("application.py"))
_WIDTH: Final = 120
_FENCE: Final = "```console\n"
_END: Final = "\n```"


class WrongTurn(AssertionError):
    """A story did not go as it is told: a command ended otherwise, or its output lacks what the words speak of."""


@dataclass(frozen=True, slots=True)
class Story:
    """What it is called, on which pods it happens, and how it goes; before `tell` nothing of headgate runs."""

    title: str
    pods: tuple[PodSpec, ...]
    tell: Callable[[Telling], None]
    objects: tuple[Path, ...] = ()

    def recorded(self) -> str:
        """It happens, on a lab of its own; as Markdown. WrongTurn."""
        with Telling(self.title, Lab(LabSpec(self.pods, self.objects))) as told:
            self.tell(told)
            return told.text()


@dataclass(slots=True)
class Telling:
    """One story on its lab. Commands run in the node's namespace, with headgate's sockets where a person has them:
    `/run/netns/POD` and `ip netns exec POD` mean the pod of the lab."""

    title: str
    lab: Lab
    page: list[str] = field(default_factory=list)
    _normal: Normal = field(default_factory=Normal)

    def __enter__(self) -> Self:
        self.lab.__enter__()
        self._normal.names(self.lab)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.lab.__exit__(kind, error, at)

    def begins(self) -> None:
        """Agent and proxy run, and all pods are proved."""
        self.serves()
        self.lab.wait_proved(timeout_s=READY_S)

    def serves(self) -> None:
        """Agent and proxy run; not every pod needs to be proved."""
        self.lab.start_proxy("--workers", "1")
        self.lab.start_agent()
        self.lab.wait_ready(timeout_s=READY_S)

    def reaches(self, pod: str, state: str) -> None:
        """Waits until the agent has it so."""
        self.lab.wait(f"{pod} to be {state}", lambda: self._states().get(pod) == state, timeout_s=READY_S)

    def _states(self) -> dict[str, str]:
        return {pod["name"]: pod["state"] for pod in self.lab.agent_pods()}

    def says(self, words: str) -> None:
        """A paragraph, or several with an empty line between."""
        paragraphs = (" ".join(one.split()) for one in words.strip().split("\n\n"))
        lines = (textwrap.fill(one, _WIDTH, break_long_words=False, break_on_hyphens=False) for one in paragraphs)
        self.page.append("\n\n".join(lines))

    def runs(self, command: str, *found: str, status: int = 0) -> str:
        """Runs and shows it; `found` must be in what it prints."""
        return self._shows(command, self.starts(command), found, status)

    def starts(self, command: str) -> subprocess.Popen[str]:
        """Begins a command, as a shell on the node does."""
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            "HEADGATE_RUN_DIR": str(self.lab.run_directory),
        }
        return self.lab.node.popen(
            ["bash", "-c", self._normal.real(command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            env=environment,
            cwd=self.lab.paths.directory,
        )

    @contextmanager
    def beside(self, command: str, *found: str, ready: str, ends: bool = False) -> Iterator[None]:
        """Runs it in the background from when it has printed `ready`; behind what is done meanwhile it is interrupted,
        or `ends` by itself, and what it printed is shown."""
        running = self.starts(command)
        assert running.stdout is not None
        try:
            begun = ""
            while ready not in begun:
                line = running.stdout.readline()
                if not line:
                    raise WrongTurn(f"{self.title}: {command} ended: {begun}")
                begun += line
            self._add(f"{command} &", begun)
            yield
            if not ends:
                running.send_signal(signal.SIGINT)
            self._shows("wait" if ends else "kill -INT %1", running, found, 0)
        finally:
            running.kill()
            running.wait()
            running.stdout.close()

    def _shows(self, command: str, running: subprocess.Popen[str], found: Sequence[str], status: int) -> str:
        """Waits for it and adds it to the page."""
        assert running.stdout is not None
        hung = threading.Timer(LIMIT_S, running.kill)
        hung.start()
        try:
            with running.stdout:
                printed = running.stdout.read()
            running.wait()
        finally:
            hung.cancel()
        told = self._add(command, printed)
        if running.returncode != status or any(text not in told for text in found):
            raise WrongTurn(
                f"{self.title}: {command}: exit {running.returncode}, not {status}, or lacks one of {found}:\n{told}"
            )
        return told

    def _add(self, command: str, printed: str) -> str:
        """To the block that is open, or to a new one."""
        told = self._normal.told(printed).rstrip("\n")
        text = f"$ {command}" + (f"\n{told}" if told else "")
        if self.page and self.page[-1].startswith(_FENCE):
            text = f"{self.page.pop()[len(_FENCE) : -len(_END)]}\n{text}"
        self.page.append(f"{_FENCE}{text}{_END}")
        return told

    def text(self) -> str:
        return "\n\n".join([f"## {self.title}", *self.page]) + "\n"


def application(name: str, *words: str, ports: Sequence[int] = ()) -> ServerSpec:
    """One of application.py's, called NAME as `ps` would show it."""
    return ServerSpec(name, (sys.executable, APPLICATION, name, *words), ports=tuple(ports))
