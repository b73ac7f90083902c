"""Where the proxy's objects come from when it has no directory: the agent tells, or shows that it has none."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.lab.namespaces import Netns
from proxy.api import stream, zds
from tests.netns.proxy_supervisor.conftest import Running, running, until
from tests.netns.proxy_supervisor.test_pods import ask_listener, in_thread

MakeNetns = Callable[[], Netns]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80}]},
}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}}


class Streaming:
    """An agent's object stream: `say` to the newest connection."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.connections += 1
        self.say(stream.Hello("stream"))
        await reader.read()
        writer.close()

    def say(self, message: stream.Message) -> None:
        assert self.writer is not None
        self.writer.write(stream.encode(message))


def test_an_agent_that_has_no_object_stream_means_no_policy(tmp_path: Path, make_netns: MakeNetns) -> None:
    """A foreign one: it speaks ZDS only."""

    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path, agents_objects=True) as proxy:
            await proxy.agent.connect()
            assert await proxy.agent.add("uid-1", netns.path) == ""
            await proxy.agent.ask(zds.SnapshotSent())
            await until("ready", proxy.ready)
            assert str(await in_thread(ask_listener, netns, 15001)).endswith("generation 1")

    asyncio.run(scenario())


def test_an_agent_that_says_that_it_has_no_objects_means_no_policy_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, agents_objects=True) as proxy:
            await proxy.agent.listen_for_proofs()
            await proxy.agent.connect()
            await proxy.agent.ask(zds.SnapshotSent())
            await until("ready", proxy.ready)

    asyncio.run(scenario())


@asynccontextmanager
async def waiting_for_its_object(
    run_dir: Path, netns: Netns, mode: str = "plain"
) -> AsyncIterator[tuple[Running, Streaming]]:
    """A proxy that lacks nothing but the object of the one pod that it serves: uid-1, shop/web."""
    streaming = Streaming()
    server = await asyncio.start_unix_server(streaming.serve, str(run_dir / "objects.sock"))
    async with server, running(run_dir, mode, agents_objects=True) as proxy:
        await proxy.agent.connect()
        await proxy.agent.add("uid-1", netns.path, "web")
        await proxy.agent.ask(zds.SnapshotSent())
        await until("the stream", lambda: streaming.writer is not None)
        streaming.say(stream.ObjectSeen(SERVICE))
        status, body = await proxy.get("/healthz/ready")
        assert (status, "has not told of all objects yet" in body) == (503, True)
        streaming.say(stream.Synced())

        async def waits() -> bool:
            return (await proxy.get("/healthz/ready"))[1] == (
                "not ready: 1 pods wait for their object, shop/web for one\n"
            )

        await until("the pod's object to be all that is missing", waits)
        yield proxy, streaming


def test_ready_only_when_all_objects_were_told_and_each_pod_is_known(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        async with waiting_for_its_object(tmp_path, make_netns()) as (proxy, streaming):
            assert json.loads((await proxy.get("/pods"))[1])[0]["state"] == "waiting for its object"
            streaming.say(stream.ObjectSeen(POD))
            await until("ready", proxy.ready)
            assert json.loads((await proxy.get("/pods"))[1])[0]["state"] == "served"

    asyncio.run(scenario())


def test_ready_that_was_answered_once_is_not_taken_back_by_a_later_pod(tmp_path: Path, make_netns: MakeNetns) -> None:
    """Other pods come, and their objects after them. The answer may come before any worker has told of the policy that
    it follows from: here none ever does."""

    async def scenario() -> None:
        async with waiting_for_its_object(tmp_path, make_netns(), "absorbed") as (proxy, streaming):
            streaming.say(stream.ObjectSeen(POD))
            await until("ready", proxy.ready)
            assert await proxy.agent.add("uid-2", make_netns().path, "later") == ""
            assert await proxy.ready()

    asyncio.run(scenario())


def test_the_end_of_the_last_pod_that_waits_for_its_object_makes_the_proxy_ready(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """A proxy that takes over waits for just that: nobody asks it meanwhile."""

    async def scenario() -> None:
        async with waiting_for_its_object(tmp_path, make_netns()) as (proxy, _):
            fit = asyncio.create_task(proxy.supervisor.readiness.until_fit())
            await asyncio.sleep(0)
            assert not fit.done()
            assert await proxy.agent.ask(zds.DeleteWorkload("uid-1")) == ""
            async with asyncio.timeout(5):
                await fit

    asyncio.run(scenario())


def test_policy_stays_while_the_stream_is_away_and_until_it_has_told_everything_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        streaming = Streaming()
        server = await asyncio.start_unix_server(streaming.serve, str(tmp_path / "objects.sock"))
        async with server, running(tmp_path, agents_objects=True) as proxy:

            async def generation_is(wanted: int) -> bool:
                return bool(json.loads((await proxy.get("/policy"))[1])["in_force"] == [wanted])

            await proxy.agent.connect()
            await until("the stream", lambda: streaming.writer is not None)
            streaming.say(stream.ObjectSeen(SERVICE))
            streaming.say(stream.Synced())
            await until("generation 1", lambda: generation_is(1))
            assert streaming.writer is not None
            streaming.writer.close()
            await until("another connection", lambda: streaming.connections == 2)
            assert proxy.supervisor.policy.current is not None
            assert len(proxy.supervisor.policy.current.services) == 1
            streaming.say(stream.Synced())
            await until("generation 2", lambda: generation_is(2))
            assert len(proxy.supervisor.policy.current.services) == 0

    asyncio.run(scenario())
