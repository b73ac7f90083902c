"""objects.sock: the greeting, and the proofs that the proxy reports."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.handoff.objects import ObjectsServer
from proxy.api import stream
from tests.unit.agent_handoff.client import open_descriptors

NONCE = "0123456789abcdef0123456789abcdef"
PROOF = stream.Proof(NONCE, 4711, "outbound", ip_address("10.0.0.9"), 15002)

Scene = Callable[[ObjectsServer, Path], Awaitable[None]]


def play(path: Path, scene: Scene) -> None:
    async def run() -> None:
        before = open_descriptors()
        server = ObjectsServer()
        await server.start(path)
        try:
            await scene(server, path)
        finally:
            await server.close()
        async with asyncio.timeout(5):
            while open_descriptors() != before:
                await asyncio.sleep(0.005)

    asyncio.run(run())


async def greeted(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    assert stream.decode(await reader.readline()) == stream.Hello("none")
    return reader, writer


def test_proxy_is_greeted_and_its_report_reaches_who_waits(tmp_path: Path) -> None:
    async def scene(server: ObjectsServer, path: Path) -> None:
        assert not server.connected
        _, writer = await greeted(path)
        assert server.connected
        waiting = asyncio.create_task(server.wait_for(NONCE, 5))
        await asyncio.sleep(0)
        writer.write(stream.encode(PROOF))
        assert await waiting == PROOF
        writer.close()
        async with asyncio.timeout(5):
            while server.connected:
                await asyncio.sleep(0.005)

    play(tmp_path / "o.sock", scene)


def test_report_of_another_nonce_is_not_taken(tmp_path: Path) -> None:
    async def scene(server: ObjectsServer, path: Path) -> None:
        _, writer = await greeted(path)
        waiting = asyncio.create_task(server.wait_for("f" * 32, 0.1))
        writer.write(stream.encode(PROOF))
        assert await waiting is None
        assert server.reports.awaited == 0
        writer.close()

    play(tmp_path / "o.sock", scene)


def test_report_may_be_cut_into_pieces_and_follow_unknown_types(tmp_path: Path) -> None:
    async def scene(server: ObjectsServer, path: Path) -> None:
        _, writer = await greeted(path)
        waiting = asyncio.create_task(server.wait_for(NONCE, 5))
        await asyncio.sleep(0)
        line = b'{"type":"status"}\n' + stream.encode(PROOF)
        for byte in line:
            writer.write(bytes([byte]))
            await writer.drain()
        assert await waiting == PROOF
        writer.close()

    play(tmp_path / "o.sock", scene)


@pytest.mark.parametrize(
    "line",
    [b"x" * (stream.MAX_LINE_BYTES + 2), b"nonsense\n", b'{"type":"proof"}\n', b"[" * 60_000 + b"\n"],
    ids=["too long", "no JSON", "no fields", "too deep"],
)
def test_hostile_line_closes_that_connection_only(tmp_path: Path, line: bytes) -> None:
    async def scene(server: ObjectsServer, path: Path) -> None:
        _, good = await greeted(path)
        reader, bad = await greeted(path)
        bad.write(line)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        bad.close()
        waiting = asyncio.create_task(server.wait_for(NONCE, 5))
        await asyncio.sleep(0)
        good.write(stream.encode(PROOF))
        assert await waiting == PROOF
        good.close()

    play(tmp_path / "o.sock", scene)


def test_close_ends_open_connections(tmp_path: Path) -> None:
    async def run() -> None:
        server = ObjectsServer()
        await server.start(tmp_path / "o.sock")
        reader, writer = await greeted(tmp_path / "o.sock")
        await server.close()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert not (tmp_path / "o.sock").exists()

    asyncio.run(run())
