"""What somebody who listens to a watch knows, and time that passes when a test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.kube.resources import Resource
from agent.kube.watch import Hearing, Name, Pace, Watch
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store

PODS = Resource("", ("v1",), "Pod", "pods")
ROUTES = Resource("networking.istio.io", ("v1", "v1beta1"), "VirtualService", "virtualservices")
WAIT_S = 5.0


def pods(store: Store) -> Kept:
    return store.serve(Kept("", "v1", "Pod", "pods"))


def routes(store: Store, version: str = "v1") -> Kept:
    return store.serve(Kept("networking.istio.io", version, "VirtualService", "virtualservices"))


def named(name: str, value: str = "a") -> Body:
    return {"metadata": {"name": name}, "spec": {"value": value}}


class Naps:
    """Sleeps of the code under test: told, and over when the loop comes round; `chance` is none."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self.now_s = 0.0

    async def sleep(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0.005)

    def pace(self) -> Pace:
        return Pace(self.sleep, lambda: 0.0, lambda: self.now_s)


class Heard:
    """By name, the value of each object; `lists` counts how often all was told anew."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.bodies: dict[str, dict[str, Any]] = {}
        self.lists = 0
        self.gone: list[str] = []

    def hearing(self) -> Hearing[dict[str, Any]]:
        return Hearing(lambda body: body, self._listed, self._seen)

    def _listed(self, found: Mapping[Name, dict[str, Any]]) -> None:
        self.lists += 1
        self.bodies = {name.name: body for name, body in found.items()}
        self.values = {name: body["spec"]["value"] for name, body in self.bodies.items()}

    def _seen(self, name: Name, body: dict[str, Any] | None) -> None:
        if body is None:
            self.values.pop(name.name)
            self.gone.append(name.name)
        else:
            self.bodies[name.name], self.values[name.name] = body, body["spec"]["value"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def watching(
    server: StandIn, resource: Resource = PODS, naps: Naps | None = None
) -> AsyncIterator[tuple[Watch[dict[str, Any]], Heard, Naps]]:
    heard, naps = Heard(), naps or Naps()
    client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
    watch = Watch(client, resource, heard.hearing(), naps.pace())
    task = asyncio.create_task(watch.run())
    try:
        yield watch, heard, naps
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()
