"""The agent's start: what is in its way is named, and nothing is left open."""

import asyncio
import socket
from pathlib import Path

import pytest

from agent.errors import CannotStart
from agent.handoff.listening import listen
from agent.kernel.backends import Backend
from agent.kernel.refused import KernelRefused
from agent.settings import AgentSettings
from agent.supervisor import serve, service


def settings(tmp_path: Path, **changes: object) -> AgentSettings:
    pods = tmp_path / "pods.yaml"
    pods.write_text("pods: []\n")
    fields: dict[str, object] = {"run_dir": tmp_path / "run", "pods_file": pods, "metrics_port": 0}
    return AgentSettings(**(fields | changes))  # type: ignore[arg-type]


def test_a_second_agent_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = listen(tmp_path / "run" / "admin.sock", socket.SOCK_STREAM)
    try:
        with pytest.raises(CannotStart, match="an agent listens there already"):
            asyncio.run(serve(settings(tmp_path)))
    finally:
        first.close()


def test_a_metrics_port_in_use_is_named_with_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"127.0.0.1 port {port}: Address already in use.*--metrics-port"):
            asyncio.run(serve(settings(tmp_path, metrics_port=port, bind=("127.0.0.1",))))
    assert not (tmp_path / "run" / "admin.sock").exists()


def test_no_backend_that_works_is_named_with_each_ones_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Backend | None] = []

    def none_works(wanted: Backend | None) -> None:
        asked.append(wanted)
        raise KernelRefused("choosing a backend", "iptables-legacy: not installed", "install iptables")

    monkeypatch.setattr(service, "in_scratch", lambda fn, *args: fn(*args))
    monkeypatch.setattr(service.backends, "choose", none_works)
    for backend in ("auto", "iptables-legacy"):
        with pytest.raises(CannotStart, match=r"iptables-legacy: not installed \(install iptables\)"):
            asyncio.run(serve(settings(tmp_path, backend=backend)))
    assert asked == [None, Backend.IPTABLES_LEGACY]
    assert not (tmp_path / "run" / "admin.sock").exists()


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match=r"run directory .*/file/run: Not a directory"):
        asyncio.run(serve(settings(tmp_path, run_dir=tmp_path / "file" / "run")))
