"""The proxy's side: it takes a former proxy's listeners with their queues, and has the agent keep its own."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.lab.namespaces import Netns
from proxy.api import fd_box
from proxy.api.fd_box import make_box
from proxy.api.stream import BoxFrame, Deposit, Stored
from proxy.supervisor import listener_source
from proxy.supervisor.listeners import PortTaken
from tests.netns.fd_store.pods import (
    LISTENERS,
    Agent,
    Proxy,
    Stranger,
    box_of,
    clients_wait,
    inodes,
    listeners_in,
    until,
)

MakeNetns = Callable[[], Netns]


def test_a_killed_proxys_listeners_and_waiting_clients_are_the_next_ones(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            former = Proxy(agent.path)
            before = inodes(await former.serve("uid-1", netns))
            await until("the deposit", lambda: former.store.stored == 1)
            await former.die()
            with ExitStack() as stack:
                waiting = clients_wait(netns, 20, stack)
                async with Proxy(agent.path) as heir:
                    listeners = await heir.serve("uid-1", netns)
                    assert inodes(listeners) == before
                    assert heir.store.stored == 1
                    for client in waiting:
                        accepted, _ = listeners.sockets[0].accept()
                        accepted.close()
                        assert client.recv(1) == b""

    asyncio.run(scenario())


def test_listeners_of_a_proxy_that_dies_before_the_agent_has_answered_are_kept(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """They are on their way when the pod is acknowledged; this loop gives the agent its turn afterwards only."""

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            former = Proxy(agent.path)
            await former.serve("uid-2", make_netns())
            await until("the first deposit", lambda: former.store.stored == 1)
            before = inodes(await former.serve("uid-1", netns))
            assert agent.store.uids == {"uid-2"}
            await former.die()
            async with Proxy(agent.path) as heir:
                assert inodes(await heir.serve("uid-1", netns)) == before

    asyncio.run(scenario())


def test_two_proxies_hold_the_same_listeners_during_a_take_over(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent, Proxy(agent.path) as heir:
            async with Proxy(agent.path) as former:
                assert inodes(await former.serve("uid-1", netns)) == inodes(await heir.serve("uid-1", netns))
                former.store.leave()  # as it drains: the box stays the agent's and the heir's
            netns.connect("127.0.0.1", 15006).close()
            assert agent.store.uids == {"uid-1"}

    asyncio.run(scenario())


def test_what_is_missing_in_a_former_proxys_set_is_opened_and_all_is_kept(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """A kernel without IPv6 when that proxy was started; or one that knew fewer ports."""

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            stranger = await Stranger(agent.path).greet()
            with listeners_in(netns) as listeners:
                first = inodes(listeners)[0]
                cookie = listeners.netns_cookie
                box = make_box(BoxFrame("uid-1", cookie, LISTENERS[:1]), [listeners.sockets[0].fileno()])
            with box:
                assert await stranger.ask(Deposit("uid-1", cookie), box.fileno()) == Stored()
            stranger.close()
            former = Proxy(agent.path)
            listeners = await former.serve("uid-1", netns)
            assert len(listeners.kinds) == 4
            assert inodes(listeners)[0] == first
            complete = inodes(listeners)
            await former.die()
            async with Proxy(agent.path) as heir:
                assert inodes(await heir.serve("uid-1", netns)) == complete

    asyncio.run(scenario())


def test_listeners_of_another_namespace_are_not_taken_for_the_pods(tmp_path: Path, make_netns: MakeNetns) -> None:
    """A pod whose sandbox was made anew while no proxy was there: same uid, other namespace."""

    async def scenario() -> None:
        before, now = make_netns(), make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            former = Proxy(agent.path)
            await former.serve("uid-1", before)
            await former.die()
            async with Proxy(agent.path) as heir:
                listeners = await heir.serve("uid-1", now)
                assert len(listeners.kinds) == 4
                now.connect("127.0.0.1", 15001).close()
                await until("the deposit", lambda: heir.store.stored == 1)
                with pytest.raises(ConnectionRefusedError):
                    before.connect("127.0.0.1", 15001)

    asyncio.run(scenario())


def test_release_closes_what_the_agent_keeps_and_abandon_does_not(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns, other = make_netns(), make_netns()
        async with Agent(tmp_path / "fds.sock") as agent, Proxy(agent.path) as proxy:
            for uid, where in (("uid-1", netns), ("uid-2", other)):
                (await proxy.serve(uid, where)).close()
            proxy.source.release("uid-1")
            proxy.source.abandon("uid-2")
            with pytest.raises(ConnectionRefusedError):
                netns.connect("127.0.0.1", 15001)
            other.connect("127.0.0.1", 15001).close()

    asyncio.run(scenario())


# ── The agent comes and goes ───────────────────────────────────────────────────────────────────────────────────────
def test_a_restarted_agent_gets_every_pod_again(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        async with Proxy(tmp_path / "fds.sock") as proxy:
            async with Agent(tmp_path / "fds.sock") as agent:
                await proxy.serve("uid-1", make_netns())
                await proxy.serve("uid-2", make_netns())
                await until("the deposits", lambda: agent.store.uids == {"uid-1", "uid-2"})
            async with Agent(tmp_path / "fds.sock") as agent:
                await until("the deposits", lambda: agent.store.uids == {"uid-1", "uid-2"})
                assert proxy.reached == 2

    asyncio.run(scenario())


def test_an_agent_restarted_while_the_proxy_drains_gets_every_pod_again(tmp_path: Path, make_netns: MakeNetns) -> None:
    """Its own copies are closed by then: only the boxes are left."""

    async def scenario() -> None:
        netns = make_netns()
        async with Proxy(tmp_path / "fds.sock") as former:
            async with Agent(tmp_path / "fds.sock") as agent:
                listeners = await former.serve("uid-1", netns)
                before = inodes(listeners)
            former.store.leave()
            listeners.close()
            async with Agent(tmp_path / "fds.sock") as agent:
                await until("the deposit", lambda: agent.store.uids == {"uid-1"})
                await former.die()
                async with Proxy(agent.path) as heir:
                    assert inodes(await heir.serve("uid-1", netns)) == before

    asyncio.run(scenario())


def test_what_was_emptied_while_the_proxy_lived_is_deposited_in_a_new_box(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """The agent parked it: to it the proxy was away. Then it comes back."""

    async def scenario() -> None:
        netns = make_netns()
        async with Proxy(tmp_path / "fds.sock") as proxy:
            async with Agent(tmp_path / "fds.sock") as agent:
                before = inodes(await proxy.serve("uid-1", netns))
                agent.store.drop("uid-1")
            async with Agent(tmp_path / "fds.sock") as agent:
                await until("the deposit", lambda: agent.store.uids == {"uid-1"})
                await proxy.die()
                async with Proxy(agent.path) as heir:
                    assert inodes(await heir.serve("uid-1", netns)) == before

    asyncio.run(scenario())


def test_without_an_agents_store_pods_are_served_all_the_same_and_deposited_when_it_comes(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """istio-cni has no fds.sock; an agent of ours may come later."""

    async def scenario() -> None:
        async with Proxy(tmp_path / "fds.sock") as proxy:
            started_s = time.monotonic()
            assert len((await proxy.serve("uid-1", make_netns())).kinds) == 4
            assert time.monotonic() - started_s < 1.0
            assert (proxy.store.connected, proxy.store.stored) == (False, 0)
            async with Agent(tmp_path / "fds.sock") as agent:
                await until("the deposit", lambda: agent.store.uids == {"uid-1"})

    asyncio.run(scenario())


def test_an_agent_that_does_not_answer_delays_a_pod_by_the_time_out_and_no_more(
    tmp_path: Path, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.supervisor.fd_store.ANSWER_S", 0.2)

    async def scenario() -> None:
        path = tmp_path / "fds.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
            deaf.bind(str(path))
            deaf.listen()
            async with Proxy(path) as proxy:
                started_s = time.monotonic()
                assert len((await proxy.serve("uid-1", make_netns())).kinds) == 4
                assert time.monotonic() - started_s < 2.0

    asyncio.run(scenario())


def test_a_pod_that_the_agent_does_not_know_yet_is_offered_again(
    tmp_path: Path, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.supervisor.fd_store.OFFER_AGAIN_S", 0.05)

    async def scenario() -> None:
        async with Agent(tmp_path / "fds.sock", known=set()) as agent, Proxy(agent.path) as proxy:
            await proxy.serve("uid-1", make_netns())
            assert proxy.store.stored == 0
            agent.known.add("uid-1")
            await until("the deposit", lambda: agent.store.uids == {"uid-1"})

    asyncio.run(scenario())


def test_more_descriptors_in_flight_than_the_kernel_allows_is_said_and_the_pod_is_served(
    tmp_path: Path, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A user without CAP_SYS_RESOURCE may have RLIMIT_NOFILE of them (net/unix/af_unix.c, too_many_unix_fds)."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

    monkeypatch.setattr(fd_box, "make_box", refuse)

    async def scenario() -> None:
        async with Agent(tmp_path / "fds.sock") as agent, Proxy(agent.path) as proxy:
            assert len((await proxy.serve("uid-1", make_netns())).kinds) == 4
            assert proxy.store.stored == 0
            assert agent.store.uids == frozenset()
        assert "pod uid-1: its listeners cannot be put in a message: Too many references" in caplog.text
        assert "raise its limit of open files" in caplog.text

    asyncio.run(scenario())


# ── A taken port ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_former_proxy_that_deposits_late_is_waited_for(tmp_path: Path, make_netns: MakeNetns) -> None:
    """Agent restarted and take-over at once: the ports are the former proxy's, and the agent has not got them yet."""

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent, Proxy(agent.path) as heir:
            with listeners_in(netns) as listeners, box_of("uid-1", listeners) as box:
                taking = asyncio.create_task(heir.serve("uid-1", netns))
                await asyncio.sleep(0.2)  # it meets taken ports meanwhile
                assert not taking.done()
                stranger = await Stranger(agent.path).greet()
                assert await stranger.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno()) == Stored()
                assert inodes(await taking) == inodes(listeners)
                stranger.close()

    asyncio.run(scenario())


def test_an_applications_port_is_waited_for_2_s_and_then_named(
    tmp_path: Path, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_source, "FORMER_PROXY_S", 0.2)

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent, Proxy(agent.path) as proxy:
            with netns.listen("0.0.0.0", 15006), pytest.raises(PortTaken) as taken:
                await proxy.serve("uid-1", netns)
            assert (taken.value.port, taken.value.family) == (15006, 4)
            # Nothing is left half open.
            assert len((await proxy.serve("uid-1", netns)).kinds) == 4

    asyncio.run(scenario())


def test_250_pods_are_taken_one_after_the_other_within_2_s(tmp_path: Path, make_netns: MakeNetns) -> None:
    """What an upgrade pays before it is ready. All uids share one namespace here; the store keeps them apart."""
    uids = [f"uid-{number}" for number in range(250)]

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock", known=set(uids)) as agent:
            stranger = await Stranger(agent.path).greet()
            with listeners_in(netns) as listeners:
                for uid in uids:
                    with box_of(uid, listeners) as box:
                        assert await stranger.ask(Deposit(uid, listeners.netns_cookie), box.fileno()) == Stored()
            stranger.close()
            async with Proxy(agent.path) as heir:
                started_s = time.monotonic()
                for uid in uids:
                    await heir.serve(uid, netns)
                took_s = time.monotonic() - started_s
                assert heir.store.stored == 250
            assert took_s < 2.0

    asyncio.run(scenario())
