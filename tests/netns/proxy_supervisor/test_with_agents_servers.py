"""The supervisor against the agent's own servers: both halves of the repository speak the same ZDS."""

import asyncio
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from agent.handoff.object_lines import ObjectLines
from agent.handoff.objects import ObjectsServer
from agent.handoff.zds import Acked, Enrolled, Nacked, NotLocated, SnapshotEntry, ZdsServer
from agent.lab.namespaces import Netns
from proxy.api.zds import WorkloadInfo
from tests.netns.proxy_supervisor.conftest import running, until
from tests.netns.proxy_supervisor.test_pods import ask_listener, in_thread, pods_of, refuses
from tests.unit.proxy_supervisor.fake_worker import NONCE

MakeNetns = Callable[[], Netns]
INFO = WorkloadInfo("web", "shop", "default")


async def add(server: ZdsServer, uid: str, netns: Netns) -> object:
    with netns.path.open() as opened:
        return await server.add(uid, INFO, opened.fileno())


def test_pods_come_go_and_survive_the_agents_restart(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        stays, located_later, goes = make_netns(), make_netns(), make_netns()
        snapshot: list[SnapshotEntry] = []
        first = ZdsServer(lambda: [])
        async with running(tmp_path) as proxy:
            await proxy.agent.close_sockets()
            await first.start(tmp_path / "zds.sock")
            await until("ready", proxy.ready)
            for uid, netns in (("stays", stays), ("later", located_later), ("goes", goes)):
                assert await add(first, uid, netns) == Acked()
            with closing(make_netns().listen("127.0.0.1", 15001)):
                assert await first.remove("never-heard-of") == Acked()
            await first.close()
            assert str(await in_thread(ask_listener, stays, 15001)).startswith("worker ")

            snapshot.append(Enrolled("stays", INFO, lambda: os.open(stays.path, os.O_RDONLY)))
            snapshot.append(NotLocated("later"))
            results: dict[str, object] = {}
            second = ZdsServer(lambda: snapshot, results.__setitem__)
            await second.start(tmp_path / "zds.sock")
            await until("the unnamed pod to leave", lambda: refuses(goes, 15001))
            assert set(await pods_of(proxy)) == {"stays", "later"}
            assert results["stays"] == Acked()
            assert await second.remove("stays") == Acked()
            assert await in_thread(refuses, stays, 15006)
            await second.close()

    asyncio.run(scenario())


def test_the_agent_hears_that_the_proxy_waits_for_its_policy_until_workers_have_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        lines = ObjectLines()
        server, objects = ZdsServer(lambda: []), ObjectsServer(lines)
        async with running(tmp_path, agents_objects=True) as proxy:
            await proxy.agent.close_sockets()
            await objects.start(tmp_path / "objects.sock")
            await server.start(tmp_path / "zds.sock")
            await until("the proxy's word", lambda: objects.serving.waits)
            assert not await proxy.ready()
            lines.update({})  # there are no objects, and that is all
            await until("its policy to be in force", lambda: not objects.serving.waits)
            await until("ready", proxy.ready)
            assert objects.connected
            await objects.close()
            await server.close()

    asyncio.run(scenario())


def test_a_refusal_and_a_proof_reach_the_agent(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        server, objects = ZdsServer(lambda: []), ObjectsServer()
        async with running(tmp_path) as proxy:
            await proxy.agent.close_sockets()
            await server.start(tmp_path / "zds.sock")
            await objects.start(tmp_path / "objects.sock")
            await until("ready", proxy.ready)
            with closing(netns.listen("127.0.0.1", 15001)):
                refused = await add(server, "uid-1", netns)
            assert isinstance(refused, Nacked)
            assert "port 15001/tcp4 is already taken" in refused.reason
            assert await add(server, "uid-1", netns) == Acked()
            waiting = asyncio.create_task(objects.wait_for(NONCE, 10.0))
            await in_thread(ask_listener, netns, 15001)
            proof = await waiting
            assert proof is not None
            assert (proof.direction, proof.port) == ("outbound", 15001)
            await objects.close()
            await server.close()

    asyncio.run(scenario())
