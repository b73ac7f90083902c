"""The webhook itself, as `headgate install --webhook` sets it up, beside a stand-in that calls it."""

import asyncio
import contextlib
import copy
import io
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from agent.inject.template import Template
from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.webhook import injecting
from agent.webhook.certificates import Certificates
from agent.webhook.keeper import Names
from agent.webhook.review import Mutate
from agent.webhook.secret import held_in
from agent.webhook.service import WebhookSettings, run
from tests.kube.manifests.rendered import documents, of_kind
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store

NAMES = Names("headgate-system", "headgate-webhook", "headgate-webhook", "headgate-webhook.headgate-system.svc")
WAIT_S = 10.0
_LOOPBACK = "127.0.0.1"


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():
            await asyncio.sleep(0.01)


@dataclass
class Webhook:
    """One replica. `stopping`: as by SIGTERM."""

    port: int
    health_port: int
    stopping: asyncio.Event
    task: asyncio.Task[None]

    async def health(self, path: str) -> tuple[int, str]:
        url = f"http://{_LOOPBACK}:{self.health_port}{path}"
        async with aiohttp.ClientSession(trust_env=False) as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def is_ready(self) -> bool:
        try:
            return (await self.health("/healthz/ready"))[0] == 200
        except aiohttp.ClientConnectionError:
            return False


class Cluster:
    """`client`: of somebody who makes pods."""

    def __init__(self, server: StandIn, kinds: dict[str, Kept], client: ApiClient) -> None:
        self.server = server
        self.client = client
        self.kinds = kinds

    @property
    def held(self) -> Certificates:
        found = held_in(self.kinds["Secret"].objects["headgate-system", "headgate-webhook"])
        assert found is not None
        return found

    def namespace(self, name: str, **labels: str) -> None:
        self.server.apply(self.kinds["Namespace"], {"metadata": {"name": name, "labels": labels}})

    async def make(self, pod: Body, namespace: str = "shop", query: str = "") -> Any:
        return await self.client.create(f"/api/v1/namespaces/{namespace}/pods{query}", pod)

    @contextlib.asynccontextmanager
    async def webhook(self, mutate: Mutate | None = None, linger_s: float = 0.0) -> AsyncIterator[Webhook]:
        """Ready. Pods are asked about at the last one that came."""
        port, health_port = free_port(), free_port()
        access = Access(self.server.url, None)
        settings = WebhookSettings(access, NAMES, port, health_port, (_LOOPBACK,), linger_s)
        client, stopping = ApiClient(access, time.monotonic, time.time), asyncio.Event()
        task = asyncio.create_task(run(settings, client, mutate or injecting.by(Template()), stopping))
        replica = Webhook(port, health_port, stopping, task)
        self.server.admission.reaches = lambda namespace, name, number: (_LOOPBACK, port)
        try:
            await until(replica.is_ready)
            yield replica
        finally:
            stopping.set()
            await task
            await client.close()

    async def ask(self, replica: Webhook, body: bytes, content_type: str = "application/json") -> tuple[int, str, str]:
        """Past the API server: status, text, and the header Connection."""
        context = ssl.create_default_context(cadata=self.held.bundle)
        async with aiohttp.ClientSession(trust_env=False) as session:
            url, headers = f"https://{_LOOPBACK}:{replica.port}/mutate", {"Content-Type": content_type}
            async with session.post(
                url, data=io.BytesIO(body), headers=headers, ssl=context, server_hostname=NAMES.host
            ) as answer:
                return answer.status, await answer.text(), answer.headers.get("Connection", "")


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """With what is installed, and two namespaces: `shop`, whose pods are injected, and `bare`."""
    from tests.kube.beside import serves_all

    store = Store()
    kinds = serves_all(store)
    async with StandIn(store).serving() as server:
        client = ApiClient(Access(server.url, None), time.monotonic, time.time)
        made = Cluster(server, kinds, client)
        for kind in ("Secret", "MutatingWebhookConfiguration"):
            (body,) = of_kind(documents("webhook"), kind)
            server.apply(kinds[kind], copy.deepcopy(body), body["metadata"].get("namespace", ""))
        made.namespace("shop", **{"headgate.io/inject": "enabled"})
        for name in ("bare", "kube-system", "headgate-system"):
            made.namespace(name)
        try:
            yield made
        finally:
            await client.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
