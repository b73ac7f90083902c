"""The agent's start: what is in its way is named, and nothing is left open."""

import asyncio
import gc
import os
import signal
import socket
from pathlib import Path

import pytest

from agent.errors import CannotStart
from agent.handoff.listening import listen
from agent.kernel.backends import Backend
from agent.kernel.refused import KernelRefused
from agent.kube.access import Access
from agent.settings import AgentSettings, ClusterSettings
from agent.sources.kubernetes_pods import KubernetesPods
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


def in_a_cluster(tmp_path: Path, **changes: object) -> AgentSettings:
    """Nobody answers there."""
    cluster = ClusterSettings(Access("http://127.0.0.1:1", None), "node-1")
    bind = ("127.0.0.1",)
    return settings(tmp_path, pods_file=None, cluster=cluster, bind=bind, **changes)


def test_a_watch_that_fails_while_the_agent_waits_for_its_first_list_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be waited for, for ever."""

    async def broken(self: KubernetesPods) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(KubernetesPods, "watch", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        asyncio.run(asyncio.wait_for(serve(in_a_cluster(tmp_path)), 10))
    assert not (tmp_path / "run" / "admin.sock").exists()


def test_a_second_agent_of_a_node_is_refused_and_leaves_nothing_half_begun(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = listen(tmp_path / "run" / "admin.sock", socket.SOCK_STREAM)
    try:
        with pytest.raises(CannotStart, match="an agent listens there already"):
            asyncio.run(serve(in_a_cluster(tmp_path)))
        gc.collect()  # a coroutine that nobody awaited would be told here
    finally:
        first.close()


def test_who_is_asked_to_stop_while_the_api_server_is_away_leaves_no_connection_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        serving = asyncio.create_task(serve(in_a_cluster(tmp_path)))
        while "stays in force" not in caplog.text:
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert not (tmp_path / "run" / "admin.sock").exists()
