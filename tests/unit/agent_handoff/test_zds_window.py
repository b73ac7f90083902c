"""Several requests under way to a proxy that takes them: told apart by their order, and only with such a proxy."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from agent.handoff.zds_connection import WINDOW, ConnectionGone, ZdsConnection
from proxy.api import zds

Scenario = Callable[[ZdsConnection, socket.socket], Awaitable[None]]


def run(scenario: Scenario, at_once: int = zds.AT_ONCE) -> None:
    async def inside() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        connection = ZdsConnection(ours, 5.0)
        with theirs:
            theirs.send(zds.encode_hello(zds.Hello(at_once)))
            await connection.hello()
            try:
                await scenario(connection, theirs)
            finally:
                connection.close("the test ends")

    asyncio.run(inside())


async def asked(theirs: socket.socket) -> list[zds.Request]:
    """What has arrived when nothing more is sent by itself."""
    for _ in range(10):
        await asyncio.sleep(0)
    requests = []
    with suppress(BlockingIOError):
        while True:
            requests.append(zds.decode_request(theirs.recv(4096)))
    return requests


def ask(connection: ZdsConnection, number: int) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(connection.request(zds.DeleteWorkload(f"uid-{n}"))) for n in range(number)]


def test_a_proxy_that_says_nothing_of_it_is_asked_one_thing_at_a_time() -> None:
    async def scenario(connection: ZdsConnection, theirs: socket.socket) -> None:
        tasks = ask(connection, 3)
        for number in range(3):
            assert await asked(theirs) == [zds.DeleteWorkload(f"uid-{number}")]
            theirs.send(zds.encode_ack(""))
        assert await asyncio.gather(*tasks) == ["", "", ""]

    run(scenario, at_once=1)


def test_answers_reach_their_askers_in_order_when_several_are_under_way() -> None:
    async def scenario(connection: ZdsConnection, theirs: socket.socket) -> None:
        tasks = ask(connection, WINDOW + 1)
        assert await asked(theirs) == [zds.DeleteWorkload(f"uid-{number}") for number in range(WINDOW)]
        for number in range(WINDOW + 1):
            theirs.send(zds.encode_ack(f"no {number}"))
            await asked(theirs)
        assert await asyncio.gather(*tasks) == [f"no {number}" for number in range(WINDOW + 1)]

    run(scenario)


def test_a_proxy_that_takes_a_million_is_asked_no_more_than_helps() -> None:
    async def scenario(connection: ZdsConnection, theirs: socket.socket) -> None:
        tasks = ask(connection, WINDOW + 3)
        assert len(await asked(theirs)) == WINDOW
        connection.close("the test ends")
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario, at_once=0xFFFFFFFF)


def test_the_answer_of_an_asker_that_was_cancelled_is_not_taken_for_the_next_ones() -> None:
    async def scenario(connection: ZdsConnection, theirs: socket.socket) -> None:
        first, second = ask(connection, 2)
        assert len(await asked(theirs)) == 2
        first.cancel()
        theirs.send(zds.encode_ack("of the first"))
        theirs.send(zds.encode_ack("of the second"))
        assert await second == "of the second"

    run(scenario)


def test_a_proxy_that_goes_is_told_to_all_who_wait() -> None:
    async def scenario(connection: ZdsConnection, theirs: socket.socket) -> None:
        tasks = ask(connection, WINDOW + 1)
        await asked(theirs)
        theirs.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionGone] * (WINDOW + 1)

    run(scenario)
