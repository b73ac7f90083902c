"""`headgate lab`, as a person uses it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab import state
from agent.lab.state import LabPaths

HEADGATE = str(Path(sys.executable).with_name("headgate"))
NAME = f"e{os.getpid()}"


def headgate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HEADGATE, *words], capture_output=True, text=True, timeout=90)


@pytest.fixture
def lab() -> Iterator[None]:
    done = headgate("lab", "up", "--name", NAME)
    try:
        assert done.returncode == 0, done.stderr
        yield
    finally:
        state.remove(LabPaths(NAME))


def test_up_run_status_down(lab: None) -> None:
    called = headgate("lab", "run", "--name", NAME, "client", "--", "curl", "-sf", "http://10.96.0.10/")
    assert json.loads(called.stdout)["client"] == "10.77.0.2"
    loaded = headgate(
        *["lab", "run", "--name", NAME, "client", "--"],
        *[HEADGATE, "lab", "load", "--url", "http://[fd96::10]/", "--requests", "500"],
    )
    assert loaded.returncode == 0
    assert json.loads(loaded.stdout)["all"]["ok"] == 500

    labs = {facts["name"]: facts for facts in json.loads(headgate("lab", "status", "-o", "json").stdout)["labs"]}
    assert labs[NAME]["pods"] == ["client", "web-v1", "web-v2"]
    assert {process["name"] for process in labs[NAME]["processes"] if process["running"]} == {
        "agent",
        "proxy",
        "web-v1.web",
        "web-v2.web",
    }

    again = headgate("lab", "up", "--name", NAME)
    assert again.returncode == 1 and f"headgate lab down --name {NAME}" in again.stderr

    down = headgate("lab", "down", "--name", NAME)
    assert down.returncode == 0 and "is removed" in down.stderr
    assert not LabPaths(NAME).exists()
    assert "there is no lab" in headgate("lab", "down", "--name", NAME).stderr


def test_verbs_inside_the_lab_find_its_agent(lab: None) -> None:
    shown = headgate("lab", "run", "--name", NAME, "node", "--", "headgate", "pods", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    assert "web-v1" in shown.stdout


def test_run_passes_the_commands_exit_status_on(lab: None) -> None:
    assert headgate("lab", "run", "--name", NAME, "client", "--", "sh", "-c", "exit 7").returncode == 7
    assert headgate("lab", "run", "--name", NAME, "client", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert headgate("lab", "run", "--name", NAME, "client", "--", "no-such-command").returncode == 127


def test_a_pod_that_is_not_there_is_answered_with_those_that_are(lab: None) -> None:
    done = headgate("lab", "run", "--name", NAME, "nobody", "--", "true")
    assert done.returncode == 1
    assert "there are: client, web-v1, web-v2" in done.stderr


def test_a_wrong_lab_file_builds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("pods: [{name: a, labels: {version: 1}}]")
    done = headgate("lab", "up", "--name", NAME, "-f", str(file))
    assert done.returncode == 1
    assert f"{file}: pods[0].labels: a mapping of strings to strings is needed" in done.stderr
    assert not LabPaths(NAME).exists()
