"""Objects from the API server: all kinds at first, then what changes; pods are made small on receipt."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from agent.kube.access import Access
from agent.kube.backoff import SPREAD_S
from agent.kube.client import ApiClient
from agent.sources.kinds import KINDS, pruned
from agent.sources.kubernetes_objects import KubernetesObjects
from agent.sources.objects import Changes
from proxy.api.stream import ObjectName
from tests.kube.heard import PODS, ROUTES, Naps, named, pods, routes, until
from tests.kube.standin import StandIn
from tests.kube.store import Store


@asynccontextmanager
async def source(server: StandIn, naps: Naps) -> AsyncIterator[KubernetesObjects]:
    client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
    objects = KubernetesObjects(client, naps.pace(), (PODS, ROUTES))
    task = asyncio.create_task(objects.watch())
    try:
        yield objects
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()


async def told(objects: KubernetesObjects) -> Changes:
    async with asyncio.timeout(5):
        return await objects.changes()


def test_nothing_is_told_before_every_kind_was_listed_and_half_a_policy_never() -> None:
    async def scenario() -> None:
        store = Store()
        store.create(pods(store), "shop", named("web"))
        store.create(routes(store), "shop", named("canary"))
        server = StandIn(store)
        server.faults.refuse["virtualservices"] = 403
        naps = Naps()
        async with server.serving(), source(server, naps) as objects:
            first = asyncio.create_task(told(objects))
            await until(lambda: len(objects.problems) == 1)
            assert "virtualservices.networking.istio.io: may not list them" in objects.problems[0]
            assert not first.done()
            server.faults.refuse.clear()
            changes = await first
            assert set(changes) == {
                ObjectName("", "Pod", "shop", "web"),
                ObjectName("networking.istio.io", "VirtualService", "shop", "canary"),
            }
            assert objects.problems == ()

    asyncio.run(scenario())


def test_then_each_change_and_what_is_gone() -> None:
    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        store.create(kept, "default", named("a"))
        async with StandIn(store).serving() as server, source(server, Naps()) as objects:
            await told(objects)
            await until(lambda: server.watchers == 1)
            server.apply(kept, named("b"))
            assert set(await told(objects)) == {ObjectName("", "Pod", "default", "b")}
            server.delete(kept, "a")
            assert await told(objects) == {ObjectName("", "Pod", "default", "a"): None}

    asyncio.run(scenario())


def test_first_lists_of_many_nodes_are_spread() -> None:
    async def scenario() -> None:
        naps = Naps()
        pace = naps.pace()
        async with StandIn(Store()).serving() as server:
            client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
            spread = type(pace)(pace.sleep, lambda: 0.5, pace.now_s)
            task = asyncio.create_task(KubernetesObjects(client, spread, (PODS,)).watch())
            await until(lambda: naps.asked_s != [])
            assert naps.asked_s[0] == SPREAD_S / 2
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await client.close()

    asyncio.run(scenario())


def test_of_a_pod_is_kept_who_it_is_and_where() -> None:
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "u",
            "generateName": "web-",
            "labels": {"app": "web"},
            "annotations": {"headgate.io/workers": "2", "kubectl.kubernetes.io/last-applied": "x" * 4000},
            "managedFields": [{"manager": "kubelet"}],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "controller": True}],
        },
        "spec": {"serviceAccountName": "web", "hostNetwork": False, "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}], "conditions": [{}]},
    }
    assert pruned(pod) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "u",
            "labels": {"app": "web"},
            "generateName": "web-",
            "annotations": {"headgate.io/workers": "2"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": True}],
        },
        "spec": {"serviceAccountName": "web", "hostNetwork": False},
        "status": {"phase": "Running", "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}]},
    }


def test_what_has_not_the_shape_of_an_object_goes_on_for_the_proxy_to_refuse() -> None:
    for body in (
        {"kind": "Service", "metadata": "none"},
        {"kind": "VirtualService", "metadata": {"name": "x"}, "spec": 3},
        {"kind": "Pod", "metadata": [], "spec": "none", "status": 1},
        {"kind": "Pod", "metadata": {"name": "x", "ownerReferences": [1], "annotations": 3}},
    ):
        assert json.dumps(pruned(body))


def test_every_kind_is_named_once() -> None:
    assert len({(kind.group, kind.plural) for kind in KINDS}) == len(KINDS)
