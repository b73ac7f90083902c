"""`headgate demo`, run as a person or a script runs it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab import machine, state
from agent.lab.figures import within_three_sigma

HEADGATE = str(Path(sys.executable).with_name("headgate"))
LIMIT_S = 90
"""Twice the 40 s that the demo is meant to take: a hang is an error, a slow machine is not."""


@pytest.fixture(autouse=True)
def untouched_machine() -> Iterator[None]:
    before = machine.read()
    yield
    after = machine.read()
    others = tuple(paths.prefix for paths in state.known())
    assert [name for name in after.namespaces - before.namespaces if not name.startswith(others)] == []
    assert machine.leftovers(before, after, "") == []


def test_demo_json_shows_that_all_of_the_main_job_held() -> None:
    done = subprocess.run([HEADGATE, "demo", "--output", "json"], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "progress belongs on a terminal only"
    shown = json.loads(done.stdout)
    proofs = {"out4": True, "out6": True, "in4": True, "in6": True}
    assert sorted(shown["pods"], key=lambda pod: pod["name"]) == [
        {"name": name, "state": "proved", "proofs": proofs} for name in ("client", "web-v1", "web-v2")
    ]
    requests, split = shown["requests"], shown["split"]
    assert requests["failed"] == 0 and requests["ok"] == requests["sent"] >= 4000
    assert sum(split["before"].values()) >= 2000 and within_three_sigma(split["before"], {"v1": 90, "v2": 10})
    assert sum(split["after"].values()) >= 2000 and within_three_sigma(split["after"], {"v1": 50, "v2": 50})
    assert 0 < shown["latency_ms"]["p50"] <= shown["latency_ms"]["p90"] <= shown["latency_ms"]["p99"]
    assert shown["client_address_preserved"] is True
    assert shown["leftovers"] == []


def test_demo_text_shows_pods_rules_split_latency_and_metrics() -> None:
    done = subprocess.run([HEADGATE, "demo"], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "  web-v1          proved      proved  proved  proved  proved",
        "Rules in pod client",
        "Rules in pod web-v1",
        "Split of the Service `web`",
        "p50 ",
        "http://10.77.0.1:15020/metrics",
        "nothing is left",
    ):
        assert told in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_removes_everything(number: signal.Signals) -> None:
    with subprocess.Popen([HEADGATE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        prefix = f"hg-demo{process.pid}-"
        deadline = time.monotonic() + LIMIT_S
        while not any(name.startswith(prefix) for name in machine.read().namespaces):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, errors
    assert "everything made is removed" in errors
