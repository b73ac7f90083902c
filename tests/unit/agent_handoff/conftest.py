"""Stage fixtures of the ZDS server's tests."""

from pathlib import Path

import pytest

from agent.handoff import zds as server_module
from tests.unit.agent_handoff.scene import SHORT_S, Agent


@pytest.fixture(autouse=True)
def no_waiting_between_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ACCEPT_INTERVAL_S", 0.001)


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "zds.sock")


@pytest.fixture
def impatient(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "zds.sock", timeout_s=SHORT_S)
