"""`rules trace POD` and `capture POD` where an agent serves the pod: found by its name, and no drift for the agent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.lab.node import Lab
from tests.unit.agent.capture.reader import read

SERVICE = "10.96.0.10"
POD = "default/client"


@dataclass(frozen=True, slots=True)
class Traced:
    """What the command said while the client asked for the service; the agent's log meanwhile."""

    said: dict[str, Any]
    log: str


@contextmanager
def _asking(lab: Lab) -> Iterator[None]:
    """The client asks for the service, ten times a second."""
    client, ended = lab.pod("client"), threading.Event()

    def ask() -> None:
        while not ended.wait(0.1):
            client.run(["curl", "-s", "-o", "/dev/null", "--max-time", "5", f"http://{SERVICE}/"], check=False)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


@pytest.fixture(scope="module")
def traced(web_lab: Lab) -> Traced:
    before = len(web_lab.log("agent"))
    words = ["rules", "trace", POD, "--run-dir", str(web_lab.paths.run), "--for", "20s", "--count", "20"]
    with _asking(web_lab):
        done = CliRunner().invoke(main, [*words, "--proto", "tcp", "-o", "json"])
    assert done.exit_code == 0, done.output
    # What the agent noticed of the table's going is in its log by now, too.
    web_lab.agent_get(f"/pods/{POD}/verify", method="POST", timeout_s=20)
    return Traced(json.loads(done.stdout), web_lab.log("agent")[before:])


def test_the_applications_connection_is_seen_steered_and_the_proxys_own_is_not(traced: Traced) -> None:
    ways = {
        (packet["connection"]["reply"]["source_port"], packet["mark"])
        for packet in traced.said["packets"]
        if packet["connection"] is not None and packet["direction"] == "outbound"
    }
    assert (15001, 0) in ways, "the application is steered to the proxy's outbound listener"
    assert {mark & 0xFFF for port, mark in ways if port != 15001} <= {0x539}, "who is not steered is the proxy"


def test_each_step_has_its_rule(traced: Traced) -> None:
    steps = [step for packet in traced.said["packets"] for step in packet["steps"] if step["kind"] == "rule"]
    assert steps
    assert {step["whose"] for step in steps} == {"headgate"}
    assert all(step["rule"]["meaning"] for step in steps)
    assert traced.said["notes"] == []


def test_the_agent_takes_the_traces_table_for_no_drift_and_no_conflict(web_lab: Lab, traced: Traced) -> None:
    assert [line for line in traced.log.splitlines() if "drift" in line.lower() or "others' rules" in line] == []
    pod = next(pod for pod in web_lab.agent_pods() if pod["name"] == "client")
    assert (pod["state"], pod["foreign_chains"]) == ("proved", [])
    assert pod["unsteered_connections"]["rules_changed"] == 0
    events = web_lab.agent_get(f"/events/{POD}")["items"]
    assert [event["reason"] for event in events if event["type"] != "Normal"] == []


def test_a_captured_packet_to_the_proxy_says_which_service_was_meant(web_lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "client.pcapng"
    words = ["capture", POD, "--run-dir", str(web_lab.paths.run), "-w", str(path), "--for", "20s", "--count", "40"]
    with _asking(web_lab):
        done = CliRunner().invoke(main, [*words, "--to", f"{SERVICE}:80"])
    assert done.exit_code == 0, done.output
    file = read(path.read_bytes())
    assert file.comment == f"pod {POD}"
    comments = {packet.comment for packet in file.packets if packet.interface == "lo"}
    assert f"to {SERVICE}:80 before translation (steered to 15001)" in comments
    assert {packet.interface for packet in file.packets} <= {"lo", "eth0"}
