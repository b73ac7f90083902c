"""What the agent's own client makes of a server: watches, the node's pods, the objects for the proxies."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.pod_processes import sandboxes
from agent.kube import watch as watching
from agent.kube.access import Access
from agent.kube.resources import Resource, Selection
from agent.kube.watch import Pace, Watch
from agent.pods.selection import Selection as MeshSelection
from agent.sources.events import PodChanged, PodGone, PodSeen
from agent.sources.kubernetes_objects import KubernetesObjects
from agent.sources.kubernetes_pods import KubernetesPods
from proxy.api.stream import ObjectName
from tests.apiserver.bodies import Body, pod, pods
from tests.apiserver.caller import ANSWER_S
from tests.apiserver.clients import client_of, held, settled
from tests.apiserver.customs import Custom, custom
from tests.apiserver.servers import Server
from tests.kube.fake_proc import FakeProc, cgroup
from tests.kube.heard import Heard

_PACE = Pace(lambda seconds: asyncio.sleep(min(seconds, 0.1)), lambda: 0.0, time.monotonic)
"""Waits are asked for in full and kept short."""


def _resource(kind: Custom) -> Resource:
    return Resource(kind.group, (kind.version,), kind.kind, kind.plural)


def _thing(kind: Custom, name: str, value: str = "a") -> Body:
    own = {"apiVersion": f"{kind.group}/{kind.version}", "kind": kind.kind}
    return {**own, "metadata": {"name": name}, "spec": {"value": value}}


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _heard(
    access: Access, resource: Resource, namespace: str, prepare: Callable[[Watch[Body]], None] = lambda watch: None
) -> AsyncIterator[tuple[Watch[Body], Heard]]:
    heard = Heard()
    async with client_of(access) as client:
        watch = Watch(client, resource, heard.hearing(), _PACE, Selection(namespace=namespace))
        prepare(watch)
        async with _beside(watch.run()):
            yield watch, heard
            await settled([watch])


def _admin(server: Server) -> Access:
    return server.access(server.authority.sign("a-watcher", group="system:masters").client())


# ── A watch ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_list_then_every_change_over_cuts_and_without_another_list(server: Server) -> None:
    kind, namespace = custom(server, "Thing"), server.namespace()
    server.admin.made(kind.path(namespace), _thing(kind, "a"))

    async def scenario() -> None:
        async with _heard(_admin(server), _resource(kind), namespace) as (watch, heard):
            await held(lambda: watch.complete, "the list")
            assert heard.values == {"a": "a"}
            for number in range(3):
                server.admin.made(kind.path(namespace), _thing(kind, f"before-{number}"))
                server.cutter.cut()
                server.admin.made(kind.path(namespace), _thing(kind, f"meanwhile-{number}"))
                await held(lambda: len(heard.values) == 3 + 2 * number, "what came meanwhile")  # noqa: B023
            server.admin.patch(kind.path(namespace, "a"), {"spec": {"value": "b"}})
            server.admin.delete(kind.path(namespace, "before-0"))
            await held(lambda: heard.gone == ["before-0"], "the end of one")
            assert (heard.values["a"], heard.lists) == ("b", 1)
            await held(lambda: watch.problem == "", "peace")

    asyncio.run(scenario())


def test_a_version_that_the_server_forgot_is_followed_by_a_list(server: Server) -> None:
    kind, namespace = custom(server, "Thing"), server.namespace()
    server.admin.made(kind.path(namespace), _thing(kind, "a"))

    def slept_for_long(watch: Watch[Body]) -> None:
        watch._served, watch._version, watch._must_list = kind.version, "1", False

    async def scenario() -> None:
        async with _heard(_admin(server), _resource(kind), namespace, slept_for_long) as (watch, heard):
            await held(lambda: heard.values == {"a": "a"}, "a list")
            assert (heard.lists, watch.complete) == (1, True)
            server.admin.made(kind.path(namespace), _thing(kind, "b"))
            await held(lambda: heard.values == {"a": "a", "b": "a"}, "what came then")

    asyncio.run(scenario())


def test_a_list_asked_of_etcd_comes_in_pages_and_counts_as_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, namespace = custom(server, "Thing"), server.namespace()
    for number in range(5):
        server.admin.made(kind.path(namespace), _thing(kind, f"t-{number}"))
    monkeypatch.setattr(watching, "PAGE", 2)

    def of_etcd(watch: Watch[Body]) -> None:
        watch._list_from = ""

    async def scenario() -> None:
        async with _heard(_admin(server), _resource(kind), namespace, of_etcd) as (watch, heard):
            await held(lambda: watch.complete, "the list")
            assert (sorted(heard.values), heard.lists) == ([f"t-{number}" for number in range(5)], 1)

    asyncio.run(scenario())


def test_a_kind_that_is_not_there_counts_as_listed_and_comes_without_a_restart(server: Server) -> None:
    kind, namespace = Custom("gateway.networking.k8s.io", "httproutes", "HTTPRoute"), server.namespace()

    async def scenario() -> None:
        async with _heard(_admin(server), _resource(kind), namespace) as (watch, heard):
            await held(lambda: watch.complete, "the kind to be believed absent")
            assert (heard.values, watch.problem) == ({}, "")
            kind.define(server)
            server.admin.made(kind.path(namespace), _thing(kind, "canary"))
            await held(lambda: heard.values == {"canary": "a"}, "the first of its kind")
            assert heard.bodies["canary"]["kind"] == "HTTPRoute"

    try:
        asyncio.run(scenario())
    finally:
        kind.forget(server)


def test_who_may_not_list_says_which_rule_is_missing_until_there_is_one(server: Server) -> None:
    kind, namespace = custom(server, "Thing"), server.namespace()
    server.admin.made(kind.path(namespace), _thing(kind, "a"))
    access = server.access(token=server.token(namespace, "default"))

    async def scenario() -> None:
        async with _heard(access, _resource(kind), "") as (watch, heard):
            await held(lambda: watch.problem != "", "a refusal")
            assert watch.problem.startswith(f"{kind.name}: may not list them: 403 Forbidden: {kind.name} is forbidden:")
            assert f'User "system:serviceaccount:{namespace}:default" cannot list resource "things"' in watch.problem
            assert watch.problem.endswith("the ClusterRole must permit get, list and watch")
            verbs = ["get", "list", "watch"]
            server.permits(namespace, "default", [{"apiGroups": [kind.group], "resources": ["things"], "verbs": verbs}])
            await held(lambda: heard.values == {"a": "a"}, "the list")
            await held(lambda: watch.problem == "", "peace")

    asyncio.run(scenario())


# ── Objects for the proxies ────────────────────────────────────────────────────────────────────────────────────────
def test_objects_whole_at_first_then_each_change_and_a_broken_one_among_them(server: Server) -> None:
    things, broken, namespace = custom(server, "Thing"), custom(server, "Broken"), server.namespace()
    absent = Resource("nowhere.example.com", ("v1",), "No", "noes")
    server.admin.made(things.path(namespace), _thing(things, "a"))
    server.admin.made(broken.path(namespace), {**_thing(broken, "b"), "spec": ["no", {"object": None}]})

    def named(kind: Custom, name: str) -> ObjectName:
        return ObjectName(kind.group, kind.kind, namespace, name)

    async def scenario() -> None:
        async with client_of(_admin(server)) as client:
            source = KubernetesObjects(client, _PACE, (_resource(things), absent, _resource(broken)), 0.0)
            async with _beside(source.watch()), asyncio.timeout(ANSWER_S):
                first = await source.changes()
                assert set(first) == {named(things, "a"), named(broken, "b")}
                line = first[named(broken, "b")] or b""
                assert (b'"spec":["no",{"object":null}]' in line, b"managedFields" in line) == (True, False)
                server.admin.patch(things.path(namespace, "a"), {"spec": {"value": "b"}})
                while named(things, "a") not in (changed := await source.changes()):
                    assert changed == {}
                assert b'"value":"b"' in (changed[named(things, "a")] or b"")
                server.admin.delete(broken.path(namespace, "b"))
                while named(broken, "b") not in (changed := await source.changes()):
                    assert changed == {}
                assert changed == {named(broken, "b"): None}
                assert source.problems == ()

    asyncio.run(scenario())


# ── The node's pods ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_pods_life_on_a_node(server: Server, tmp_path: Path) -> None:
    namespace, proc, node = server.namespace(), FakeProc(tmp_path / "proc"), "node-of-one-test"
    enabled = {"headgate.io/mesh": "enabled"}
    status = {"status": {"phase": "Running", "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}]}}
    for name, where in (("elsewhere", "another-node"), ("web", node)):
        server.admin.made(pods(namespace), pod(name, where, enabled))
    uid = server.admin.get(pods(namespace, "web")).body["metadata"]["uid"]
    proc.process(77, cgroup("v2, systemd, containerd", uid), proc.namespace("web"))

    async def scenario() -> None:
        async with client_of(_admin(server)) as client:
            scan = partial(sandboxes, proc.root, ())
            source = KubernetesPods(client, _PACE, node, MeshSelection(), scan)
            async with _beside(source.watch()), asyncio.timeout(ANSWER_S):
                assert await source.first() == []
                assert [skipped.reason for skipped in source.skipped] == [
                    "the API server does not know its address yet"
                ]
                server.admin.patch(pods(namespace, "web", "status"), status)
                events = aiter(source)
                seen = await anext(events)
                assert isinstance(seen, PodSeen)
                assert (seen.pod.uid, str(seen.pod), seen.pod.service_account) == (uid, f"{namespace}/web", "default")
                server.admin.patch(pods(namespace, "web"), {"metadata": {"labels": {"headgate.io/mesh": "disabled"}}})
                changed = await anext(events)
                assert isinstance(changed, PodChanged)
                assert changed.pod.left_out == "the pod says headgate.io/mesh: disabled"
                server.admin.delete(pods(namespace, "web"), {"gracePeriodSeconds": 0})
                while (event := await anext(events)) != PodGone(uid):
                    assert isinstance(event, PodChanged)
                assert source.problems == ()

    asyncio.run(scenario())
