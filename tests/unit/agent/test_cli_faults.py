"""Verbs of a cluster, used wrongly, or with an output that takes nothing: said in a line, and never a traceback."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main

_HEADGATE = [sys.executable, "-m", "agent"]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    """Of a server where nobody is: port 9 is discard's (RFC 863), which nobody runs."""
    named = {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}]}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({**named, "contexts": [{"name": "x", "context": {"cluster": "c"}}]}))
    return str(path)


@pytest.mark.parametrize("verb", [["install"], ["uninstall"], ["install", "--help"]])
def test_a_full_disk_is_said_and_nothing_of_the_output_counts(verb: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*_HEADGATE, *verb], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the output cannot be written: No space left on device; use none of it\n",
    )


def test_a_reader_that_goes_ends_it_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([*_HEADGATE, "install"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--namespace", "../secrets"],
        ["check", "--namespace", "a\x1b[2Jb"],
        ["check", "--namespace", "x" * 64],
        ["webhook", "--namespace", "a b"],
        ["webhook", "--service", "a.b"],
        ["webhook", "--secret", "../a"],
        ["webhook", "--secret", "a..b"],
        ["webhook", "--configuration", "A"],
    ],
)
def test_a_name_that_would_lead_elsewhere_in_the_api_is_refused(kubeconfig: str, words: list[str]) -> None:
    done = CliRunner().invoke(main, [words[0], "--kubeconfig", kubeconfig, "--context", "x", *words[1:]])
    assert done.exit_code == 2
    assert f"Invalid value for '{words[1]}': " in done.stderr and "RFC 1123" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_contexts_namespace_is_looked_at_too(tmp_path: Path, kubeconfig: str) -> None:
    config = json.loads(Path(kubeconfig).read_text())
    config["contexts"][0]["context"]["namespace"] = "../a"
    Path(kubeconfig).write_text(json.dumps(config))
    done = CliRunner().invoke(main, ["webhook", "--kubeconfig", kubeconfig, "--context", "x"])
    assert done.exit_code == 1
    assert "names no namespace; give --namespace" in done.stderr


def test_a_terminal_sees_what_it_is_about(kubeconfig: str) -> None:
    """The other tests' pipes see nothing of it."""
    ours, theirs = pty.openpty()
    try:
        words = ["check", "--kubeconfig", kubeconfig, "--context", "x"]
        done = subprocess.run([*_HEADGATE, *words], stdout=subprocess.PIPE, stderr=theirs, text=True, check=False)
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 1
    assert "asking the cluster" in shown
    assert shown.endswith("\r\x1b[K")
    assert "asking" not in done.stdout
