"""`headgate init` as a container runs it: a process in a pod's namespace, and what the pod's packets do afterwards."""

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.cases.setups import holdings
from tests.netns.cases.wire import V4, V6, Family, assert_talk, own, peer

HEADGATE: Final = str(Path(sys.executable).with_name("headgate"))


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of the command ended with, and said."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod in which `headgate init` runs, and a neighbour that never holds rules."""

    pod: LabPod
    peer: LabPod

    def init(self, *words: str, check: bool = True, before: Sequence[str] = ()) -> Ran:
        """`headgate init WORDS` inside; with `before` as a process of its own, started by that command."""
        if before:
            process = self.pod.run([*before, HEADGATE, "init", *words], check=False)
            done = Ran(process.returncode, process.stdout, process.stderr)
        else:
            result = self.pod.call(CliRunner().invoke, main, ["init", *words])
            done = Ran(result.exit_code, result.stdout, result.stderr)
        assert not check or done.returncode == 0, done.stderr
        return done

    @contextmanager
    def steered(self, *words: str, before: Sequence[str] = ()) -> Iterator[Ran]:
        """With the rules in force meanwhile."""
        with ExitStack() as stack:
            stack.callback(self.init, "--cleanup")
            yield self.init(*words, before=before)


@pytest.fixture(scope="module")
def place() -> Iterator[Pod]:
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab:
        pod, peer = lab.pods
        before = holdings(pod), holdings(peer)
        yield Pod(pod, peer)
        assert (holdings(pod), holdings(peer)) == before, "cleaning up left something, or took something away"


@pytest.fixture(params=[V4, V6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


def assert_straight(client: socket.socket, served: socket.socket) -> None:
    """Nobody came between."""
    assert peer(served) == own(client)
    assert peer(client) == own(served)
    assert_talk(client, served)
