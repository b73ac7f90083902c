"""What the stand-in is beside a server: counts, faults, what a test hands it. The rest is tests/apiserver's to hold."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from agent.kube.access import Access, Token
from agent.kube.client import ApiClient
from agent.kube.errors import ApiRefused
from tests.kube.heard import named, pods, until
from tests.kube.permissions import User
from tests.kube.standin import StandIn
from tests.kube.store import Kept, Store
from tests.kube.traffic import Count, What

LIST = "/api/v1/pods"


def at(scenario: Callable[[StandIn, Kept, ApiClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = Store()
        kept = pods(store)
        async with StandIn(store).serving() as server:
            server.users.knows("t", User("node-1"))
            client = ApiClient(Access(server.url, Token("t")), time.monotonic, time.time)
            try:
                await scenario(server, kept, client)
            finally:
                await client.close()

    asyncio.run(whole())


def test_requests_and_bytes_are_counted_by_client_verb_and_resource() -> None:
    async def scenario(server: StandIn, kept: Kept, client: ApiClient) -> None:
        for number in range(100):
            server.apply(kept, named(f"p{number}"))
        listed = What("node-1", "list", "pods")
        await client.get(LIST, {"limit": "1"})
        small = server.traffic.counts()[listed]
        whole = json.dumps(await client.get(LIST))
        both = server.traffic.counts()[listed]
        assert (small.requests, both.requests) == (1, 2)
        assert both.received > small.received > len("GET /api/v1/pods?limit=1 HTTP/1.1")
        assert len(whole) < both.sent - small.sent < len(whole) + 400, "with its headers"
        assert server.traffic.total("node-1") == both
        await client.patch("/api/v1/namespaces/default/pods/p1/status", {"metadata": {"annotations": {"a": "b"}}})
        assert server.traffic.counts()[What("node-1", "patch", "pods/status")].requests == 1
        server.traffic.forget()
        assert server.traffic.total() == Count()

    at(scenario)


def test_a_watch_counts_while_it_lasts() -> None:
    async def scenario(server: StandIn, kept: Kept, client: ApiClient) -> None:
        watched = What("node-1", "watch", "pods")
        async with client.streaming(LIST, {"watch": "true", "resourceVersion": "0"}):
            await until(lambda: server.watchers == 1)
            before = server.traffic.counts()[watched].sent
            server.apply(kept, named("p", "x" * 5000))
            await until(lambda: server.traffic.counts()[watched].sent > before + 5000)

    at(scenario)


@pytest.mark.parametrize(
    ("key", "refused"), [("pods", (True, True)), ("pods/status", (False, True)), ("patch pods/status", (False, True)),
                         ("list pods", (True, False)), ("delete pods", (False, False))],
)  # fmt: skip
def test_a_fault_is_of_a_resource_a_subresource_or_a_verb(key: str, refused: tuple[bool, bool]) -> None:
    async def scenario(server: StandIn, kept: Kept, client: ApiClient) -> None:
        server.apply(kept, named("p"))
        server.faults.refuse[key] = 403

        async def is_refused(asking: Awaitable[object]) -> bool:
            try:
                await asking
            except ApiRefused as error:
                assert 'User "node-1" cannot' in str(error)
                return True
            return False

        patch = client.patch("/api/v1/namespaces/default/pods/p/status", {"metadata": {"labels": {"a": "b"}}})
        assert (await is_refused(client.get(LIST)), await is_refused(patch)) == refused

    at(scenario)


def test_a_pod_answers_through_the_server_by_what_the_test_says() -> None:
    async def proxied(request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        return web.json_response([namespace, name, path, request.query_string])

    async def scenario(server: StandIn, kept: Kept, client: ApiClient) -> None:
        server.pod_proxy = proxied
        answer = await client.get("/api/v1/namespaces/mesh/pods/agent-1:15014/proxy/status/all", {"a": "b"})
        assert answer == ["mesh", "agent-1:15014", "status/all", "a=b"]

    at(scenario)


def test_what_has_cel_in_it_is_never_taken_for_met() -> None:
    async def scenario(server: StandIn, kept: Kept, client: ApiClient) -> None:
        kind = "MutatingWebhookConfiguration"
        hooks = server.store.serve(Kept("admissionregistration.k8s.io", "v1", kind, f"{kind.lower()}s", False))
        hook = {"name": "a.b.c", "matchConditions": [{"name": "x", "expression": "true"}]}
        server.apply(hooks, {"metadata": {"name": "a"}, "webhooks": [hook]}, "")
        with pytest.raises(ApiRefused, match="CEL is beyond the stand-in"):
            await client.create("/api/v1/namespaces/default/pods", {**named("p"), "spec": {"containers": [{}]}})

    at(scenario)


def test_a_token_holds_until_its_time() -> None:
    async def scenario(server: StandIn, kept: Kept, client: ApiClient) -> None:
        accounts = server.store.serve(Kept("", "v1", "ServiceAccount", "serviceaccounts"))
        server.apply(accounts, {"metadata": {"name": "a"}})
        given = await client.create("/api/v1/namespaces/default/serviceaccounts/a/token", {"spec": {}})
        server.users.strict = True
        own = ApiClient(Access(server.url, Token(given["status"]["token"])), time.monotonic, time.time)
        try:
            await own.get("/version")
            server.users.time_s = lambda: time.time() + 3601
            with pytest.raises(ApiRefused, match="401"):
                await own.get("/version")
        finally:
            await own.close()

    at(scenario)
