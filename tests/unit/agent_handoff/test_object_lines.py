"""What each proxy is told of objects: all of them once, then what changes, and never more than it reads."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.handoff import object_lines
from agent.handoff.object_lines import CHUNK_BYTES, ObjectFeed, ObjectLines, ReaderTooSlow
from agent.handoff.objects import ObjectsServer
from proxy.api import stream
from proxy.api.stream import ObjectName


def name(number: int) -> ObjectName:
    return ObjectName("", "Pod", "default", f"p{number}")


def line(number: int, version: int = 1, size: int = 0) -> bytes:
    return stream.encode(stream.ObjectSeen({"name": f"p{number}", "version": version, "more": "x" * size}))


def of(*numbers: int, version: int = 1) -> dict[ObjectName, bytes | None]:
    return {name(number): line(number, version) for number in numbers}


def told(chunk: bytes) -> list[object]:
    """`p1` for its first version, `p1.2` for its second, `-p1` for its end, `synced`."""
    said: list[object] = []
    for one in chunk.splitlines():
        match stream.decode(one):
            case stream.ObjectSeen(body):
                said.append(f"{body['name']}" + (f".{body['version']}" if body["version"] != 1 else ""))
            case stream.ObjectGone(gone):
                said.append(f"-{gone.name}")
            case stream.Synced():
                said.append("synced")
    return said


async def all_of(feed: ObjectFeed) -> list[object]:
    said: list[object] = []
    try:
        while True:
            async with asyncio.timeout(0.02):
                said += told(await feed.next_chunk())
    except TimeoutError:
        return said


def test_everything_then_synced_then_what_changes() -> None:
    async def scenario() -> None:
        objects = ObjectLines()
        objects.update(of(1, 2))
        feed = objects.subscribe()
        assert await all_of(feed) == ["p1", "p2", "synced"]
        objects.update({**of(2, version=2), name(1): None, **of(3)})
        assert await all_of(feed) == ["p2.2", "-p1", "p3"]

    asyncio.run(scenario())


def test_nobody_hears_synced_before_all_objects_are_known() -> None:
    async def scenario() -> None:
        objects = ObjectLines()
        early = objects.subscribe()
        assert await all_of(early) == []
        objects.update({})
        assert await all_of(early) == ["synced"]
        objects.update(of(1))
        assert await all_of(early) == ["p1"]

    asyncio.run(scenario())


def test_a_slow_reader_hears_of_the_latest_version_only() -> None:
    async def scenario() -> None:
        objects = ObjectLines()
        objects.update(of(1, 2, 3))
        feed = objects.subscribe()
        for version in range(2, 100):
            objects.update(of(1, 2, version=version))
        objects.update({name(3): None})
        assert await all_of(feed) == ["p1.99", "p2.99", "-p3", "synced"]

    asyncio.run(scenario())


def test_a_chunk_is_bounded_whatever_there_is_to_tell() -> None:
    async def scenario() -> None:
        objects = ObjectLines()
        objects.update({name(number): line(number, size=1000) for number in range(500)})
        feed = objects.subscribe()
        sizes = []
        said: list[object] = []
        while "synced" not in said:
            chunk = await feed.next_chunk()
            sizes.append(len(chunk))
            said += told(chunk)
        assert len(said) == 501
        assert max(sizes) < CHUNK_BYTES + 2000

    asyncio.run(scenario())


def test_a_reader_that_stands_still_costs_bounded_memory_and_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_lines, "MAX_WAITING", 50)

    async def scenario() -> None:
        objects = ObjectLines()
        objects.update(of(1))
        feed = objects.subscribe()
        for number in range(2, 200):
            objects.update(of(number))
            objects.update({name(number): None})
            assert len(feed._waiting) <= 52
        with pytest.raises(ReaderTooSlow):
            await feed.next_chunk()

    asyncio.run(scenario())


async def lines_of(reader: asyncio.StreamReader, number: int) -> list[object]:
    async with asyncio.timeout(5):
        return [json.loads(await reader.readline()) for _ in range(number)]


def test_the_server_streams_to_each_proxy_and_anew_on_each_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        objects = ObjectLines()
        server = ObjectsServer(objects)
        await server.start(tmp_path / "o.sock")
        try:
            objects.update(of(1))
            for _ in range(2):
                reader, writer = await asyncio.open_unix_connection(tmp_path / "o.sock")
                hello, first, synced = await lines_of(reader, 3)
                assert hello == {"type": "hello", "objects": "stream"}
                assert isinstance(first, Mapping) and first["object"] == {"name": "p1", "version": 1, "more": ""}
                assert synced == {"type": "synced"}
                writer.close()
            reader, writer = await asyncio.open_unix_connection(tmp_path / "o.sock")
            await lines_of(reader, 3)
            objects.update({name(1): None})
            (gone,) = await lines_of(reader, 1)
            assert gone == {"type": "gone", "group": "", "kind": "Pod", "namespace": "default", "name": "p1"}
            writer.close()
            async with asyncio.timeout(5):
                while server.connected or objects._feeds:
                    await asyncio.sleep(0.005)
        finally:
            await server.close()

    asyncio.run(scenario())


def test_a_proxy_that_does_not_read_holds_up_nobody_and_the_agent_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        objects = ObjectLines()
        server = ObjectsServer(objects)
        await server.start(tmp_path / "o.sock")
        objects.update({name(number): line(number, size=10_000) for number in range(300)})
        _, silent = await asyncio.open_unix_connection(tmp_path / "o.sock")
        silent.transport.pause_reading()  # type: ignore[attr-defined]
        reader, good = await asyncio.open_unix_connection(tmp_path / "o.sock", limit=1 << 20)
        assert len(await lines_of(reader, 302)) == 302
        async with asyncio.timeout(5):
            await server.close()
        silent.close()
        good.close()

    asyncio.run(scenario())
