"""Pods come and go over ZDS: DESIGN "A pod's life", redirection.md E, and B31 (a port of ours taken)."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from agent.lab.namespaces import Netns
from proxy.api import zds
from proxy.supervisor import pods as pods_module
from tests.netns.proxy_supervisor.conftest import Running, running, until

MakeNetns = Callable[[], Netns]


def ask_listener(netns: Netns, port: int, host: str = "127.0.0.1") -> str:
    """What the worker behind a pod's listener answers."""
    with closing(netns.connect(host, port)) as sock:
        return sock.recv(200).decode()


def refuses(netns: Netns, port: int, host: str = "127.0.0.1") -> bool:
    try:
        netns.connect(host, port).close()
    except ConnectionRefusedError:
        return True
    return False


def own_descriptors() -> int:
    """Open ones, but for directories: the policy thread opens one whenever it looks for changed files."""
    number = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as the directory that is read here
            number += not stat.S_ISDIR(descriptor.stat().st_mode)
    return number


async def pods_of(proxy: Running) -> dict[str, dict[str, object]]:
    _, body = await proxy.get("/pods")
    return {pod["uid"]: pod for pod in json.loads(body)}


async def in_thread(function: Callable[..., object], *args: object) -> object:
    return await asyncio.to_thread(function, *args)


def test_an_acknowledged_pod_has_both_listeners_in_both_families(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            assert await proxy.agent.add("uid-1", netns.path) == ""
            for port in (15001, 15006):
                for host in ("127.0.0.1", "::1"):
                    assert str(await in_thread(ask_listener, netns, port, host)).startswith("worker ")
            pod = (await pods_of(proxy))["uid-1"]
            assert pod["state"] == "served"
            assert len(pod["listeners"]) == 4  # type: ignore[arg-type]

    asyncio.run(scenario())


def test_listeners_are_marked_and_their_backlog_is_4096(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)
            listening = netns.run(["ss", "-Hltn"]).stdout.splitlines()
            ours = [line.split() for line in listening if ":15001" in line or ":15006" in line]
            assert sorted(columns[3] for columns in ours) == [
                "0.0.0.0:15001",
                "0.0.0.0:15006",
                "[::]:15001",
                "[::]:15006",
            ]
            assert {columns[2] for columns in ours} == {"4096"}
            for listener in proxy.supervisor.pods.served[0].listeners.sockets:
                assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x539
                assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0

    asyncio.run(scenario())


def test_a_deleted_pod_refuses_and_its_namespace_is_let_go(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            before = own_descriptors()
            await proxy.agent.add("uid-1", netns.path)
            assert await proxy.agent.ask(zds.DeleteWorkload("uid-1")) == ""
            assert await in_thread(refuses, netns, 15001)
            assert own_descriptors() == before
            assert await pods_of(proxy) == {}
            assert await proxy.agent.ask(zds.DeleteWorkload("never-heard-of")) == ""

    asyncio.run(scenario())


def test_connections_of_a_deleted_pod_may_have_time_and_then_it_is_let_go(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path, "draining", drain_s=60.0) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)
            assert await proxy.agent.ask(zds.DeleteWorkload("uid-1", 30.0)) == "", "answered at once"
            assert await pods_of(proxy) == {}
            assert proxy.supervisor.pods.held == {netns.identity}, "its worker drains it"
            assert await in_thread(refuses, netns, 15001)
            assert await proxy.agent.ask(zds.DeleteWorkload("uid-1")) == ""
            assert proxy.supervisor.pods.held == frozenset()

    asyncio.run(scenario())


def test_an_agent_gives_connections_no_more_time_than_the_proxy_has(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        async with running(tmp_path, "draining", drain_s=0.0) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", make_netns().path)
            assert await proxy.agent.ask(zds.DeleteWorkload("uid-1", 4_000_000.0)) == ""
            assert proxy.supervisor.pods.held == frozenset()

    asyncio.run(scenario())


def test_b31_a_taken_port_is_refused_with_its_holder_and_nothing_stays_open(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            before = own_descriptors()
            taken = netns.listen("127.0.0.1", 15006)
            refusal = await proxy.agent.add("uid-1", netns.path, "web-1")
            assert "pod shop/web-1: port 15006/tcp4 is already taken" in refusal
            assert f"pid {os.getpid()} (" in refusal
            assert await in_thread(refuses, netns, 15001)
            pod = (await pods_of(proxy))["uid-1"]
            assert (pod["state"], pod["reason"]) == ("pending", refusal)
            taken.close()
            assert own_descriptors() == before
            assert await proxy.agent.add("uid-1", netns.path, "web-1") == ""
            assert (await pods_of(proxy))["uid-1"]["state"] == "served"

    asyncio.run(scenario())


def test_b31_a_port_taken_in_ipv6_only_is_refused_too(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            with closing(netns.listen("::1", 15001)):
                assert "port 15001/tcp6 is already taken" in await proxy.agent.add("uid-1", netns.path)
            assert await in_thread(refuses, netns, 15006)

    asyncio.run(scenario())


def test_a_namespace_with_ipv6_switched_off_is_served(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        netns.write_sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            assert await proxy.agent.add("uid-1", netns.path) == ""
            assert str(await in_thread(ask_listener, netns, 15006)).startswith("worker ")

    asyncio.run(scenario())


def test_the_same_pod_announced_again_changes_nothing(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)
            before, pod = own_descriptors(), proxy.supervisor.pods.served[0]
            assert await proxy.agent.add("uid-1", netns.path) == ""
            assert proxy.supervisor.pods.served == [pod]
            assert own_descriptors() == before

    asyncio.run(scenario())


def test_b48_a_pod_in_another_namespace_moves_there(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        old, new = make_netns(), make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", old.path)
            assert await proxy.agent.add("uid-1", new.path) == ""
            assert str(await in_thread(ask_listener, new, 15001)).startswith("worker ")
            assert await in_thread(refuses, old, 15001)

    asyncio.run(scenario())


def test_b47_the_proxys_own_namespace_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            refusal = await proxy.agent.add("uid-1", Path("/proc/self/ns/net"))
            assert "namespace announced is the proxy's own" in refusal

    asyncio.run(scenario())


def test_the_end_of_a_snapshot_drops_what_it_did_not_name(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        stays, kept, goes = make_netns(), make_netns(), make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            for uid, netns in (("stays", stays), ("kept", kept), ("goes", goes)):
                assert await proxy.agent.add(uid, netns.path) == ""
            await proxy.agent.ask(zds.SnapshotSent())
            await proxy.agent.connect()
            assert await proxy.agent.add("stays", stays.path) == ""
            assert await proxy.agent.ask(zds.KeepWorkload("kept")) == ""
            assert set(await pods_of(proxy)) == {"stays", "kept", "goes"}
            assert await proxy.agent.ask(zds.SnapshotSent()) == ""
            assert set(await pods_of(proxy)) == {"stays", "kept"}
            assert await in_thread(refuses, goes, 15001)
            assert str(await in_thread(ask_listener, kept, 15001)).startswith("worker ")

    asyncio.run(scenario())


def test_pods_are_served_on_while_the_agent_is_away(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)
            await proxy.agent.ask(zds.SnapshotSent())
            proxy.agent.disconnect()
            await until("the proxy to notice", lambda: not proxy.supervisor.surroundings.connected)
            assert str(await in_thread(ask_listener, netns, 15001)).startswith("worker ")
            assert await proxy.ready()
            await proxy.agent.connect()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("what", "descriptors"),
    [("missing", 0), ("two", 2), ("sixteen", 16), ("cut short", 40)],
)
def test_a_wrong_number_of_descriptors_closes_the_connection_and_all_of_them(
    tmp_path: Path, make_netns: MakeNetns, what: str, descriptors: int
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            before = own_descriptors()
            descriptor = os.open(netns.path, os.O_RDONLY)
            add = zds.encode_request(zds.AddWorkload("uid-1", zds.WorkloadInfo("a", "b", "c")))
            proxy.agent.say(add, *([descriptor] * descriptors))
            os.close(descriptor)
            assert await proxy.agent.receive() == b""
            await proxy.agent.connect()
            assert own_descriptors() == before
            assert await pods_of(proxy) == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("a descriptor with del", zds.encode_request(zds.DeleteWorkload("uid-1"))),
        ("no ZDS message", b"\xff\xff\xff\xff"),
        ("a message longer than the buffer", b"\x0a" * 2000),
    ],
)
def test_a_broken_message_closes_the_connection_and_its_descriptor(tmp_path: Path, what: str, data: bytes) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            before = own_descriptors()
            proxy.agent.say(data, 0)
            assert await proxy.agent.receive() == b""
            await proxy.agent.connect()
            assert own_descriptors() == before

    asyncio.run(scenario())


def test_a_descriptor_that_is_no_namespace_closes_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            add = zds.encode_request(zds.AddWorkload("uid-1", zds.WorkloadInfo("a", "b", "c")))
            proxy.agent.say(add, 0)
            assert await proxy.agent.receive() == b""
            await proxy.agent.connect()
            assert await pods_of(proxy) == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("request_again", [zds.KeepWorkload("uid-1"), zds.SnapshotSent()])
def test_keep_and_snapshot_sent_after_the_snapshot_break_the_protocol(
    tmp_path: Path, request_again: zds.Request
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            assert await proxy.agent.ask(zds.SnapshotSent()) == ""
            proxy.agent.say(zds.encode_request(request_again))
            assert await proxy.agent.receive() == b""

    asyncio.run(scenario())


def test_a_worker_that_does_not_answer_is_a_refusal_and_leaves_nothing_open(
    tmp_path: Path, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods_module, "SERVE_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path, "deaf") as proxy:
            await proxy.agent.connect()
            before = own_descriptors()
            assert "worker 0 did not take it" in await proxy.agent.add("uid-1", netns.path)
            assert own_descriptors() == before
            # The worker may close its copies only after it has read of the pod: in order, so soon.
            await until("the ports to be free", lambda: refuses(netns, 15001))

    asyncio.run(scenario())


def test_250_pods_are_taken_one_after_the_other_within_two_seconds(tmp_path: Path, make_netns: MakeNetns) -> None:
    """By the fastest of ten times 25: what the proxy waits for is in each of them, what the machine does meanwhile is
    not."""

    async def scenario() -> None:
        netns = [make_netns() for _ in range(25)]
        took_s = []
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            for turn in range(10):
                started_s = asyncio.get_running_loop().time()
                for index, one in enumerate(netns):
                    assert await proxy.agent.add(f"{turn}-{index}", one.path) == ""
                    assert await proxy.agent.ask(zds.DeleteWorkload(f"{turn}-{index}")) == ""
                took_s.append(asyncio.get_running_loop().time() - started_s)
        assert 10 * min(took_s) < 2, took_s

    asyncio.run(scenario())
