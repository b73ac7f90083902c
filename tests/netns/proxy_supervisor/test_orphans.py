"""A namespace that ends is let go of, whatever the agent says or does not say (DESIGN 5).

Here the agent is connected and silent, as a stopped one is. With real veths: tests/netns/fd_store/test_life_end.py.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from agent.lab import namespaces
from agent.lab.namespaces import Netns
from tests.netns.proxy_supervisor.conftest import running, until
from tests.netns.proxy_supervisor.test_pods import ask_listener, in_thread, pods_of

MakeNetns = Callable[[], Netns]


def test_a_namespace_that_ends_is_let_go_of_though_an_agent_is_connected(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        ending, living = make_netns(), make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            for uid, netns in (("uid-1", ending), ("uid-2", living)):
                assert await proxy.agent.add(uid, netns.path) == ""
            await in_thread(namespaces.delete, ending)
            await until("the end", lambda: proxy.supervisor.pods.held == {living.identity})
            assert set(await pods_of(proxy)) == {"uid-2"}

    asyncio.run(scenario())


def test_a_namespace_that_lost_its_name_is_kept_while_a_process_lives_in_it(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """Docker's pods have no name, only processes; and `ip netns del` of a used one takes only its name."""

    async def scenario() -> None:
        nameless, ending = make_netns(), make_netns()
        identity = nameless.identity
        # No child of the proxy's own process, which is this one: its children are its workers.
        process = nameless.popen(["unshare", "--fork", "--kill-child=KILL", "sleep", "600"])
        try:
            async with running(tmp_path) as proxy:
                await proxy.agent.connect()
                for uid, netns in (("uid-1", nameless), ("uid-2", ending)):
                    assert await proxy.agent.add(uid, netns.path) == ""
                await in_thread(namespaces.delete, nameless)
                await in_thread(namespaces.delete, ending)
                # The other one shows that it was looked at often enough.
                await until("the end of the other one", lambda: proxy.supervisor.pods.held == {identity})
                assert set(await pods_of(proxy)) == {"uid-1"}
                process.kill()
                process.wait()
                await until("the end", lambda: proxy.supervisor.pods.held == frozenset())
        finally:
            process.kill()
            process.wait()

    asyncio.run(scenario())


def test_the_former_namespace_of_a_pod_that_moved_ends_and_the_pod_is_served_on(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        before, now = make_netns(), make_netns()
        former, present = before.identity, now.identity
        async with running(tmp_path, "draining", drain_s=60.0) as proxy:
            await proxy.agent.connect()
            assert await proxy.agent.add("uid-1", before.path) == ""
            assert await proxy.agent.add("uid-1", now.path) == ""
            assert proxy.supervisor.pods.held == {former, present}
            await in_thread(namespaces.delete, before)
            await until("the end", lambda: proxy.supervisor.pods.held == {present})
            assert str(await in_thread(ask_listener, now, 15001)).startswith("worker ")

    asyncio.run(scenario())
