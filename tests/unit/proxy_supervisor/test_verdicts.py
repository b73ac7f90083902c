"""What was decided on routes: found on the policy thread, told to the agent once a connection and when it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.handoff.object_lines import ObjectLines
from agent.handoff.objects import ObjectsServer
from agent.handoff.verdicts import MAX_KEPT
from agent.handoff.verdicts import Verdicts as Kept
from proxy.api import stream
from proxy.api.stream import ObjectName, Verdict
from proxy.model.direction import Direction
from proxy.supervisor.agent_link import ProofReporter
from proxy.supervisor.object_stream import ObjectStream
from proxy.supervisor.verdicts import CHUNK, Verdicts
from proxy.workerlink import ProofSeen

GROUP = "gateway.networking.k8s.io"
CART = ObjectName(GROUP, "HTTPRoute", "shop", "cart")
UNSUPPORTED = Verdict(CART, 3, False, "kind", "HTTPRoute is not supported by this version")
SYNCED = stream.encode(stream.Synced())


def route(name: str = "cart", generation: Any = 3, kind: str = "HTTPRoute", group: str = GROUP) -> bytes:
    metadata = {"name": name, "namespace": "shop", "generation": generation}
    return stream.encode(stream.ObjectSeen({"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata}))


class Scene:
    """The proxy's end, whose policy thread is this one."""

    def __init__(self) -> None:
        self.objects = ObjectStream(lambda: None, lambda: True)
        self.objects.greeted(stream.Hello("stream"))

    async def hears(self, *lines: bytes) -> None:
        for line in lines:
            await self.objects.heard(line)
        self.objects.next()
        await asyncio.wait_for(self.objects.wait(), 1)

    @property
    def verdicts(self) -> Verdicts:
        return self.objects.verdicts


async def told(verdicts: Verdicts) -> list[Verdict]:
    """What waits now."""
    found = []
    with suppress(TimeoutError):
        while True:
            chunk = await asyncio.wait_for(verdicts.next_chunk(), 0.01)
            found += [message for line in chunk.splitlines() if isinstance(message := stream.decode(line), Verdict)]
    return found


def run(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        await story(Scene())

    asyncio.run(whole())


def test_a_route_that_is_not_understood_is_told_with_its_generation_and_why() -> None:
    async def story(scene: Scene) -> None:
        await scene.hears(route(), SYNCED)
        assert await told(scene.verdicts) == [UNSUPPORTED]

    run(story)


def test_the_same_is_not_told_again_and_another_generation_is() -> None:
    async def story(scene: Scene) -> None:
        await scene.hears(route(), SYNCED)
        await told(scene.verdicts)
        await scene.hears(route())
        assert await told(scene.verdicts) == []
        await scene.hears(route(generation=4), route(generation=5))
        assert [one.generation for one in await told(scene.verdicts)] == [5]

    run(story)


def test_kinds_without_a_status_for_it_are_not_told_of() -> None:
    async def story(scene: Scene) -> None:
        istio = route("a", kind="VirtualService", group="networking.istio.io")
        await scene.hears(istio, route("b", group="policy.linkerd.io"), route("c", group="example.com"), SYNCED)
        assert await told(scene.verdicts) == []

    run(story)


def test_an_agent_that_is_new_hears_of_all_that_there_is_and_of_nothing_that_has_gone() -> None:
    async def story(scene: Scene) -> None:
        await scene.hears(route("cart"), route("gone"), route("gone-meanwhile"), SYNCED)
        await told(scene.verdicts)
        await scene.hears(stream.encode(stream.ObjectGone(CART._replace(name="gone"))))
        scene.objects.greeted(stream.Hello("stream"))  # the next one's stream
        await scene.hears(route("cart"), SYNCED)
        scene.verdicts.begin()
        assert await told(scene.verdicts) == [UNSUPPORTED]

    run(story)


def test_a_generation_that_is_none_is_none() -> None:
    async def story(scene: Scene) -> None:
        for value in ("3", -1, True, None, 2.5, {}):
            await scene.hears(route(generation=9), route(generation=value))
            scene.verdicts.begin()
            assert [one.generation for one in await told(scene.verdicts)] == [0], value

    run(story)


def test_thousands_are_told_in_pieces() -> None:
    async def story(scene: Scene) -> None:
        await scene.hears(*(route(f"r-{number}") for number in range(3 * CHUNK)), SYNCED)
        first = await scene.verdicts.next_chunk()
        assert first.count(b"\n") == CHUNK
        assert len(await told(scene.verdicts)) == 2 * CHUNK

    run(story)


def test_what_an_object_says_of_itself_makes_no_line_too_long() -> None:
    line = stream.encode(Verdict(CART, 1, False, "f" * 100_000, "\U0001f600" * 100_000))
    assert len(line) < stream.MAX_LINE_BYTES
    assert json.loads(line)["field"] == "f" * stream.MAX_VERDICT_CHARACTERS


def test_the_agent_hears_them_beside_proofs_and_again_when_it_was_restarted(tmp_path: Path) -> None:
    """Both halves, over the socket: a proof is not held back by the many verdicts before it."""

    async def scenario() -> None:
        scene = Scene()
        await scene.hears(*(route(f"r-{number}") for number in range(2000)), route(), SYNCED)
        reporter = ProofReporter(tmp_path / "o.sock", scene.objects)
        running = asyncio.create_task(reporter.run())
        try:
            for _ in range(2):
                lines = ObjectLines()
                server = ObjectsServer(lines)
                await server.start(tmp_path / "o.sock")
                reporter.retry_now()
                async with asyncio.timeout(5):
                    while not server.connected:
                        await asyncio.sleep(0.005)
                waiting = asyncio.create_task(server.wait_for("0" * 32, 5))
                await asyncio.sleep(0)
                reporter.report(ProofSeen("0" * 32, 7, Direction.OUTBOUND, "10.0.0.9", 15002))
                assert await waiting is not None
                async with asyncio.timeout(5):
                    while server.verdicts.of(CART) != UNSUPPORTED:
                        await asyncio.sleep(0.005)
                assert server.verdicts.of(CART._replace(name="r-0")) is not None
                await server.close()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    asyncio.run(scenario())


def test_a_proxy_that_makes_names_up_fills_no_agent() -> None:
    kept = Kept()
    for number in range(MAX_KEPT + 10):
        kept.heard(Verdict(CART._replace(name=f"r-{number}"), 1, False))
    assert kept.of(CART._replace(name="r-9")) is None
    assert kept.of(CART._replace(name="r-10")) is not None
