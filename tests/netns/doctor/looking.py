"""The command line as a person uses it, and processes in a pod that do one thing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from click.testing import CliRunner

from agent.cli import main
from tests.netns.rules.here import Here


def doctor(*words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(main, ["doctor", "-o", "json", "--run-dir", "/nonexistent", *words])
    assert done.stdout, done.output
    return done.exit_code, json.loads(done.stdout)


def of(here: Here, *words: str) -> list[tuple[str, str]]:
    """Ids and severities of what is found in the namespace itself."""
    _, said = doctor("--netns", here.pod.path, *words)
    unseen = [one for one in said["unseen"] if one["where"] == f"netns {here.pod.path}"]
    assert unseen == []
    return [(f["id"], f["severity"]) for f in said["findings"] if f["where"] == f"netns {here.pod.path}"]


@contextmanager
def process_in(here: Here, code: str, *words: str) -> Iterator[int]:
    """A process in the namespace that says a line when it has done what it is for; its pid."""
    command = ["nsenter", f"--net={here.pod.path}", sys.executable, "-c", f"{code}\nprint(1, flush=True)\ninput()"]
    process = subprocess.Popen([*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()
