"""The agent's store: keeps what is a pod's listeners and nothing else, and lets go of it when it must."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from agent.lab.namespaces import Netns
from proxy.api.fd_box import make_box
from proxy.api.stream import (
    BoxFound,
    BoxFrame,
    Deposit,
    NoBox,
    Stored,
    StoreHello,
    Take,
)
from tests.netns.fd_store.pods import LISTENERS, Agent, Stranger, accepts, box_of, listeners_in, until

MakeNetns = Callable[[], Netns]


def test_deposited_listeners_outlive_their_owner_with_the_connections_in_their_queue(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(netns) as listeners, box_of("uid-1", listeners) as box:
                cookie = listeners.netns_cookie
                assert await proxy.ask(Deposit("uid-1", cookie), box.fileno()) == Stored()
                waiting = netns.connect("127.0.0.1", 15001)
            proxy.close()
            assert accepts(netns)
            heir = await Stranger(agent.path).greet()
            assert await heir.ask(Take("uid-1")) == BoxFound("uid-1", cookie)
            assert heir.box is not None
            with heir.box, waiting, ExitStack() as taken:
                listeners_again = _listeners_of(heir.box, taken)
                accepted, _ = listeners_again[0].accept()
                with accepted:
                    waiting.sendall(b"still here")
                    assert accepted.recv(100) == b"still here"
            heir.close()

    asyncio.run(scenario())


def _listeners_of(box: socket.socket, stack: ExitStack) -> list[socket.socket]:
    _, descriptors, _, _ = socket.recv_fds(box, 8192, 253)
    return [stack.enter_context(socket.socket(fileno=descriptor)) for descriptor in descriptors]


def test_a_box_that_was_taken_stays_in_the_store_for_the_next_one(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        async with Agent(tmp_path / "fds.sock") as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(make_netns()) as listeners, box_of("uid-1", listeners) as box:
                await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno())
                for _ in range(3):
                    assert await proxy.ask(Take("uid-1")) == BoxFound("uid-1", listeners.netns_cookie)
                    assert proxy.box is not None
                    proxy.box.close()
                assert await proxy.ask(Take("uid-2")) == NoBox()
            proxy.close()

    asyncio.run(scenario())


def test_drop_closes_the_listeners_though_another_holder_of_the_box_is_stopped(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    """The other holder is this test: it has the same box open and does nothing."""

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(netns) as listeners:
                box = box_of("uid-1", listeners)
                await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno())
            with box:
                assert accepts(netns)
                agent.store.drop("uid-1")
                assert not accepts(netns)
                assert await proxy.ask(Take("uid-1")) == NoBox()
            proxy.close()

    asyncio.run(scenario())


def test_a_box_that_another_holder_has_emptied_is_no_box_any_more(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        async with Agent(tmp_path / "fds.sock") as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(make_netns()) as listeners, box_of("uid-1", listeners) as box:
                await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno())
                with ExitStack() as taken:
                    _listeners_of(box, taken)
                assert await proxy.ask(Take("uid-1")) == NoBox()
                assert agent.store.uids == frozenset()
            proxy.close()

    asyncio.run(scenario())


def test_a_second_deposit_replaces_the_first_and_the_same_one_again_changes_nothing(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        old, new = make_netns(), make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(old) as listeners, box_of("uid-1", listeners) as box:
                for _ in range(2):
                    assert await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno()) == Stored()
            assert accepts(old)
            with listeners_in(new) as listeners, box_of("uid-1", listeners) as box:
                assert await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno()) == Stored()
            assert accepts(new)
            assert not accepts(old)
            proxy.close()

    asyncio.run(scenario())


# ── Without a proxy ────────────────────────────────────────────────────────────────────────────────────────────────
def test_listeners_are_closed_and_told_of_when_no_proxy_is_there_for_the_park_timeout(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock", park_timeout_s=0.2) as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(netns) as listeners, box_of("uid-1", listeners) as box:
                await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno())
            proxy.close()
            assert accepts(netns)
            await until("the end of the park time-out", lambda: agent.parked == [("uid-1",)])
            assert not accepts(netns)

    asyncio.run(scenario())


def test_a_proxy_that_comes_in_time_ends_the_wait_and_one_that_says_nothing_does_not(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock", park_timeout_s=0.2) as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(netns) as listeners, box_of("uid-1", listeners) as box:
                await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno())
            proxy.close()
            heir = await Stranger(agent.path).greet()
            await asyncio.sleep(0.4)  # twice the time-out: what must not happen
            assert agent.parked == []
            silent = Stranger(agent.path)
            heir.close()
            await until("the end of the park time-out", lambda: agent.parked == [("uid-1",)])
            silent.close()

    asyncio.run(scenario())


def test_a_proxy_that_is_ending_does_not_end_the_wait(tmp_path: Path, make_netns: MakeNetns) -> None:
    """It accepts nothing any more: what it deposits with an agent that was restarted is parked like the rest."""

    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock", park_timeout_s=0.2) as agent:
            ending = Stranger(agent.path)
            await ending.ask(StoreHello(serves=False))
            with listeners_in(netns) as listeners, box_of("uid-1", listeners) as box:
                assert await ending.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno()) == Stored()
            assert accepts(netns)
            await until("the end of the park time-out", lambda: agent.parked == [("uid-1",)])
            ending.close()

    asyncio.run(scenario())


def test_a_proxy_that_is_ending_does_not_replace_what_its_successor_has_deposited(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            serving, ending = await Stranger(agent.path).greet(), Stranger(agent.path)
            await ending.ask(StoreHello(serves=False))
            with listeners_in(netns) as listeners:
                cookie = listeners.netns_cookie
                complete = box_of("uid-1", listeners)
                fewer = make_box(BoxFrame("uid-1", cookie, LISTENERS[:1]), [listeners.sockets[0].fileno()])
            with complete, fewer:
                assert await serving.ask(Deposit("uid-1", cookie), complete.fileno()) == Stored()
                assert await ending.ask(Deposit("uid-1", cookie), fewer.fileno()) == Stored()
            assert await serving.ask(Take("uid-1")) == BoxFound("uid-1", cookie)
            assert serving.box is not None
            with serving.box, ExitStack() as taken:
                assert len(_listeners_of(serving.box, taken)) == 4
            serving.close()
            ending.close()

    asyncio.run(scenario())
