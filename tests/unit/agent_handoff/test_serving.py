"""Whether a proof would be answered: as the proxies that are connected say themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.handoff.objects import ObjectsServer
from agent.handoff.serving import Serving
from proxy.api import stream
from proxy.model.direction import Direction
from proxy.supervisor.agent_link import ProofReporter
from proxy.workerlink import ProofSeen

BOUND_S = 5.0
WAITS = stream.encode(stream.Serving(False))
SERVES = stream.encode(stream.Serving(True))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.001)


def waiting(*proxies: str) -> Serving:
    serving = Serving()
    for proxy in proxies:
        serving.came(proxy)
        serving.heard(proxy, False)
    return serving


def test_without_a_proxy_or_with_one_that_says_nothing_nobody_waits() -> None:
    serving = Serving()
    assert not serving.waits
    serving.came("older")
    assert not serving.waits


def test_it_is_waited_for_while_every_proxy_waits() -> None:
    serving = waiting("a")
    assert serving.waits
    serving.heard("a", True)
    assert not serving.waits


def test_of_two_that_are_connected_one_that_serves_suffices() -> None:
    """A take-over: the former serves until the new one could."""
    serving = Serving()
    serving.came("former")
    serving.came("new")
    serving.heard("new", False)
    assert not serving.waits
    serving.gone("former")
    assert serving.waits
    serving.heard("new", True)
    assert not serving.waits


def test_one_that_comes_beside_one_that_waits_is_asked_before_it_counts() -> None:
    serving = waiting("a")
    serving.came("b")
    assert serving.waits
    serving.heard("b", False)
    assert serving.waits
    serving.gone("a")
    assert serving.waits
    serving.gone("b")
    assert not serving.waits


def test_a_silent_one_that_is_left_serves() -> None:
    serving = waiting("a")
    serving.came("older")
    serving.gone("a")
    assert not serving.waits


@pytest.mark.parametrize("end", [lambda one: one.heard("a", True), lambda one: one.gone("a")], ids=["serves", "gone"])
def test_who_waits_goes_on_at_once(end: Callable[[Serving], None]) -> None:
    async def scenario() -> None:
        serving = waiting("a")
        tasks = [asyncio.create_task(serving.until(60.0)) for _ in range(3)]
        await asyncio.sleep(0)
        end(serving)
        await asyncio.wait_for(asyncio.gather(*tasks), BOUND_S)

    asyncio.run(scenario())


def test_one_that_begins_anew_before_anybody_went_on_is_waited_for() -> None:
    async def scenario() -> None:
        serving = waiting("a")
        task = asyncio.create_task(serving.until(60.0))
        await asyncio.sleep(0)
        serving.gone("a")
        serving.came("b")
        serving.heard("b", False)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        serving.heard("b", True)
        await asyncio.wait_for(task, BOUND_S)

    asyncio.run(scenario())


def test_patience_ends_and_a_wait_can_be_cancelled() -> None:
    async def scenario() -> None:
        serving = waiting("a")
        await asyncio.wait_for(serving.until(0.0), BOUND_S)
        task = asyncio.create_task(serving.until(60.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert serving.waits

    asyncio.run(scenario())


def test_a_connection_that_ends_takes_its_word_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = ObjectsServer()
        await server.start(tmp_path / "o.sock")
        writers = []
        for _ in range(2):
            _, writer = await asyncio.open_unix_connection(tmp_path / "o.sock")
            writer.write(WAITS)
            writers.append(writer)
        await until(lambda: server.serving.waits)
        writers[0].write(SERVES)
        await until(lambda: not server.serving.waits)
        writers[0].close()
        await until(lambda: server.serving.waits)
        writers[1].close()
        await until(lambda: not server.serving.waits)
        assert not server.connected
        await server.close()

    asyncio.run(scenario())


@asynccontextmanager
async def reporting(path: Path, in_force: asyncio.Event) -> AsyncIterator[ProofReporter]:
    reporter = ProofReporter(path, None, in_force)
    running = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def test_a_proxy_says_on_every_connection_that_it_waits_and_once_that_it_serves(tmp_path: Path) -> None:
    """Both halves, over the socket: the agent restarts while the proxy waits."""

    async def scenario() -> None:
        in_force = asyncio.Event()
        async with reporting(tmp_path / "o.sock", in_force) as reporter:
            first, second = ObjectsServer(), ObjectsServer()
            await first.start(tmp_path / "o.sock")
            reporter.retry_now()
            await until(lambda: first.serving.waits)
            await first.close()
            assert not first.serving.waits
            await second.start(tmp_path / "o.sock")
            reporter.retry_now()
            await until(lambda: second.serving.waits)
            in_force.set()
            await until(lambda: not second.serving.waits)
            assert second.connected
            await second.close()

    asyncio.run(scenario())


def test_a_proxy_that_has_its_policy_says_nothing_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        said: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(stream.encode(stream.Hello("none")))
            said.put_nowait(await reader.readline())
            writer.close()

        in_force = asyncio.Event()
        in_force.set()
        async with (
            await asyncio.start_unix_server(listen, tmp_path / "o.sock"),
            reporting(tmp_path / "o.sock", in_force) as reporter,
        ):
            reporter.report(ProofSeen("0" * 32, 7, Direction.OUTBOUND, "10.0.0.9", 15002))
            first = await asyncio.wait_for(said.get(), BOUND_S)
        assert isinstance(stream.decode(first), stream.Proof)

    asyncio.run(scenario())
