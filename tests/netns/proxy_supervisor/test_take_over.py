"""In-place upgrade seen from the supervisors: one asks, the other one drains; and what goes wrong meanwhile.

With real workers and traffic: tests/netns/fd_store/test_replaced.py.
"""

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from agent.lab import namespaces
from proxy.api import zds
from proxy.errors import CannotStart
from proxy.settings import ProxySettings
from proxy.supervisor import take_over
from proxy.supervisor.service import Supervisor
from tests.netns.fd_store.pods import Agent
from tests.netns.proxy_supervisor.conftest import running, until
from tests.netns.proxy_supervisor.take_overs import (
    DRAIN_S,
    MakeNetns,
    draining,
    never,
    other_proxy,
    serving,
    successor,
)
from tests.netns.proxy_supervisor.test_pods import ask_listener, in_thread, refuses


# ── Being replaced ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_drain_is_answered_when_nobody_accepts_and_ports_and_path_are_free(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with draining(tmp_path, netns) as proxy:
            assert not (tmp_path / "proxy-admin.sock").exists()
            admin = proxy.supervisor.admin
            for port in (*admin.metrics_ports, *admin.ready_ports):
                with socket.create_server(("127.0.0.1", port)):
                    pass
            assert proxy.supervisor.pods.served == []
            assert "the proxy is ending" in proxy.supervisor.readiness.unready()

    asyncio.run(scenario())


def test_while_it_drains_a_proxy_takes_no_pod_and_lets_go_of_one_that_leaves(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with draining(tmp_path, netns) as proxy:
            assert "this proxy is ending" in await proxy.agent.add("uid-2", make_netns().path)
            pods = proxy.supervisor.pods
            assert pods.held == {netns.identity}
            assert await proxy.agent.ask(zds.DeleteWorkload("uid-1")) == ""
            assert pods.held == frozenset()
            assert await in_thread(refuses, netns, 15001)

    asyncio.run(scenario())


def test_while_it_drains_a_proxy_does_not_come_back_to_an_agent_that_was_restarted(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """The newest proxy gets the pods: that must be the other one."""

    async def scenario() -> None:
        async with draining(tmp_path, make_netns()) as proxy:
            await proxy.agent.close_sockets()
            await until("the end of the connection", lambda: not proxy.supervisor.surroundings.connected)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
                agent.bind(str(tmp_path / "zds.sock"))
                agent.listen()
                agent.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    await in_thread(agent.accept)

    asyncio.run(scenario())


def test_a_namespace_that_ends_during_the_drain_is_let_go_of_without_the_agent(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with draining(tmp_path, netns) as proxy:
            await proxy.agent.close_sockets()
            await in_thread(namespaces.delete, netns)
            await until("the worker to let go", lambda: proxy.supervisor.pods.held == frozenset())

    asyncio.run(scenario())


# ── Replacing ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_successor_serves_before_the_other_one_is_asked_and_has_its_ports_then(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock"), running(tmp_path, drain_s=DRAIN_S) as former:
            await former.agent.connect()
            assert await former.agent.add("uid-1", netns.path) == ""
            ports = (former.supervisor.admin.metrics_ports[0], former.supervisor.admin.ready_ports[0])
            heir = successor(tmp_path, ports)
            async with serving(heir):
                await former.agent.connect()
                await until("policy", lambda: heir.workers[0].policy_in_force is not None)
                assert any("has not handed over yet" in reason for reason in heir.readiness.unready())
                assert not former.stop.is_set(), "asked before the successor has its snapshot"
                await former.agent.ask(zds.SnapshotSent())
                await asyncio.sleep(0.2)  # what must not happen: uid-1 is served by the other one alone
                assert not former.stop.is_set()
                assert await former.agent.add("uid-1", netns.path) == ""
                await until("readiness", lambda: heir.readiness.unready() == [])
                assert former.stop.is_set()
                assert (heir.admin.metrics_ports, heir.admin.ready_ports) == ([ports[0]], [ports[1]])
                assert (tmp_path / "proxy-admin.sock").exists()

    asyncio.run(scenario())


def test_without_another_proxy_take_over_is_an_ordinary_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        heir = successor(tmp_path)
        async with serving(heir):
            await until("the admin socket", lambda: (tmp_path / "proxy-admin.sock").exists())
            assert not any("handed over" in reason for reason in heir.readiness.unready())

    asyncio.run(scenario())


def test_without_the_flag_a_second_proxy_is_told_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path):
            second = Supervisor(ProxySettings(tmp_path, None, 0, 0, ("127.0.0.1",), 0.0))
            with pytest.raises(CannotStart, match=r"another proxy answers on .*--take-over"):
                await second.serve(asyncio.Event())

    asyncio.run(scenario())


# ── What goes wrong ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_proxy_that_does_not_answer_is_left_as_it_is_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take_over, "ANSWER_S", 0.1)
    path = tmp_path / "admin.sock"

    async def scenario() -> None:
        async with other_proxy(path, never):
            with pytest.raises(CannotStart, match=r"not answered within 0.1 s: .* start without --take-over"):
                await take_over.ask_to_drain(path)

    asyncio.run(scenario())


def test_a_proxy_of_a_version_that_knows_no_drain_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"

    async def unknown(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404, text="what\x1b[31m")

    async def scenario() -> None:
        async with other_proxy(path, unknown):
            with pytest.raises(CannotStart, match=r"cannot hand over \(404: what\\x1b\[31m\): it is another version"):
                await take_over.ask_to_drain(path)

    asyncio.run(scenario())


def test_a_proxy_that_ends_in_the_middle_has_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"

    async def dies(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def scenario() -> None:
        async with other_proxy(path, dies):
            await take_over.ask_to_drain(path)
        await take_over.ask_to_drain(path)  # and so has one that has ended before

    asyncio.run(scenario())


def test_ports_that_fall_free_late_are_waited_for_and_others_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    async def start() -> None:
        attempts.append("start")
        if len(attempts) < 7:
            raise CannotStart("taken")

    async def close() -> None:
        attempts.append("close")

    async def scenario() -> None:
        await take_over.bind_when_free(start, close)
        assert attempts == ["start", "close"] * 3 + ["start"]
        monkeypatch.setattr(take_over, "PORTS_FREE_S", 0.0)
        attempts.clear()
        with pytest.raises(CannotStart, match="taken"):
            await take_over.bind_when_free(start, close)
        assert attempts == ["start", "close"]

    asyncio.run(scenario())


def test_pods_whose_listeners_cannot_be_had_stay_with_the_other_proxy(
    tmp_path: Path, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under istio-cni: nobody keeps listeners, and the ports are the other proxy's."""
    monkeypatch.setattr(take_over, "ALL_PODS_S", 0.5)

    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path, drain_s=DRAIN_S) as former:
            await former.agent.connect()
            assert await former.agent.add("uid-1", netns.path) == ""
            task = asyncio.create_task(successor(tmp_path).serve(asyncio.Event()))
            await former.agent.connect()
            assert "port 15001/tcp4 is already taken" in await former.agent.add("uid-1", netns.path)
            await former.agent.ask(zds.SnapshotSent())
            with pytest.raises(CannotStart, match=r"1 pods stay with .*port 15001/tcp4 is already taken.*fds.sock"):
                await task
            assert not former.stop.is_set()
            answer = str(await in_thread(ask_listener, netns, 15001))
            assert answer.startswith(f"worker {former.supervisor.workers[0].pid} ")

    asyncio.run(scenario())


def test_a_proxy_that_tells_its_pods_otherwise_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"

    async def scenario() -> None:
        for body in ("[1]", "{", '[{"uid": "a"}]', "7"):
            async with other_proxy(path, never, pods=body):
                with pytest.raises(CannotStart, match="it is another version"):
                    await take_over.served_by(path)
        assert await take_over.served_by(path) == frozenset()

    asyncio.run(scenario())


def test_a_successor_that_fails_leaves_the_other_one_serving(
    tmp_path: Path, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Path) -> None:
        raise CannotStart("the running proxy has not answered")

    monkeypatch.setattr("proxy.supervisor.service.ask_to_drain", refuse)

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock"), running(tmp_path, drain_s=DRAIN_S) as former:
            await former.agent.connect()
            assert await former.agent.add("uid-1", netns.path) == ""
            heir = successor(tmp_path)
            task = asyncio.create_task(heir.serve(asyncio.Event()))
            await former.agent.connect()
            assert await former.agent.add("uid-1", netns.path) == ""
            await former.agent.ask(zds.SnapshotSent())
            with pytest.raises(CannotStart, match="has not answered"):
                await task
            answer = str(await in_thread(ask_listener, netns, 15001))
            assert answer.startswith(f"worker {former.supervisor.workers[0].pid} ")
            assert (await former.get("/pods"))[0] == 200
            assert (tmp_path / "proxy-admin.sock").exists()

    asyncio.run(scenario())
