"""The object stream as a source of policy: what its connection tells, and when there is policy for it."""

import asyncio
import json

import pytest

from proxy.api.stream import Hello
from proxy.config.objects import ObjectSet
from proxy.supervisor import object_stream
from proxy.supervisor.object_stream import FOREIGN_AGENT_S, ObjectStream

SYNCED = b'{"type":"synced"}\n'


def pod(name: str) -> bytes:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    return json.dumps({"type": "object", "object": body}).encode() + b"\n"


class Scene:
    def __init__(self) -> None:
        self.without = 0
        self.connected = True
        self.now_s = 100.0
        self.stream = ObjectStream(self._without, lambda: self.connected, lambda: self.now_s)

    def _without(self) -> None:
        self.without += 1

    def refused_after(self, seconds: float) -> int:
        self.now_s += seconds
        self.stream.refused()
        return self.without


def names(objects: ObjectSet | None) -> list[str] | None:
    return None if objects is None else sorted(key.name for key in objects.admitted)


def test_nothing_is_in_force_before_everything_was_told() -> None:
    async def scenario() -> None:
        stream = Scene().stream
        assert stream.next() is None
        stream.greeted(Hello("stream"))
        await stream.heard(pod("a"))
        assert stream.next() is None
        await stream.heard(pod("b"))
        await stream.heard(SYNCED)
        assert names(stream.next()) == ["a", "b"]
        assert stream.next() is None, "nothing new"
        await stream.heard(pod("c"))
        assert names(stream.next()) == ["a", "b", "c"]

    asyncio.run(scenario())


def test_a_connection_that_begins_anew_holds_back_until_it_has_told_everything() -> None:
    async def scenario() -> None:
        stream = Scene().stream
        for line in (pod("a"), pod("b"), SYNCED):
            stream.greeted(Hello("stream")) if line == pod("a") else None
            await stream.heard(line)
        assert names(stream.next()) == ["a", "b"]
        stream.greeted(Hello("stream"))
        await stream.heard(pod("b"))
        assert stream.next() is None
        await stream.heard(SYNCED)
        assert names(stream.next()) == ["b"]

    asyncio.run(scenario())


def test_an_agent_without_objects_means_no_policy_at_once() -> None:
    scene = Scene()
    scene.stream.greeted(Hello("none"))
    assert (scene.without, scene.stream.streamed) == (1, False)


def test_an_agent_that_streams_no_more_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.stream.greeted(Hello("stream"))
    scene.stream.greeted(Hello("none"))
    assert scene.without == 0
    assert "the policy in force stays" in caplog.text


def test_an_agent_that_speaks_zds_and_has_no_object_stream_has_no_objects() -> None:
    scene = Scene()
    assert scene.refused_after(0) == 0
    assert scene.refused_after(FOREIGN_AGENT_S / 2) == 0
    assert scene.refused_after(FOREIGN_AGENT_S / 2) == 1


def test_an_agent_that_is_away_may_have_objects() -> None:
    scene = Scene()
    scene.connected = False
    assert scene.refused_after(0) == 0
    assert scene.refused_after(60) == 0
    scene.connected = True
    assert scene.refused_after(0) == 0, "counted from here"
    assert scene.refused_after(FOREIGN_AGENT_S / 2) == 0
    scene.connected = False
    scene.refused_after(0)
    scene.connected = True
    assert scene.refused_after(FOREIGN_AGENT_S) == 0, "another connection of the agent"


def test_an_agent_that_streamed_once_is_waited_for() -> None:
    scene = Scene()
    scene.stream.greeted(Hello("stream"))
    assert scene.refused_after(0) == 0
    assert scene.refused_after(60) == 0


def test_what_is_not_taken_in_holds_up_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_stream, "MAX_PENDING_BYTES", 3 * len(pod("a")))

    async def scenario() -> None:
        stream = Scene().stream
        stream.greeted(Hello("stream"))

        async def read() -> None:
            for number in range(20):
                await stream.heard(pod(f"p{number}"))
            await stream.heard(SYNCED)

        reading = asyncio.create_task(read())
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(stream._pending) <= 5
        async with asyncio.timeout(5):
            while (objects := stream.next()) is None:
                await stream.wait()
        await reading
        assert len(objects.admitted) == 20

    asyncio.run(scenario())


def test_a_line_that_cannot_be_understood_is_said_and_costs_that_line_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        stream = Scene().stream
        stream.greeted(Hello("stream"))
        for line in (b"nonsense\n", b'{"type":"object"}\n', b'{"type":"later"}\n', pod("a"), SYNCED):
            await stream.heard(line)
        assert names(stream.next()) == ["a"]

    asyncio.run(scenario())
    assert caplog.text.count("cannot be understood") == 2
