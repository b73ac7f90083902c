"""Pods whose runtime asks for them before a process runs in them: told of at once, kept, let go."""

import asyncio
from pathlib import Path

import pytest

from agent.pods import NetnsId
from agent.sources import kubernetes_pods
from agent.sources.events import PodChanged, PodGone, PodSeen
from tests.kube.fake_proc import UID, cgroup
from tests.kube.pods_of_a_node import ENABLED, cluster, pod


def test_a_namespace_that_was_made_a_moment_ago_is_asked_for_before_its_pod_is_left_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            await here.source.first()
            here.apply(pod(labels={}))
            made = {"metadata": {"name": "default", "labels": ENABLED}}
            here.server.store.replace(here.namespaces, "", made)  # no watch tells of it yet
            here.source._namespaces.clear()
            known = await here.source.known("default", "web", "")
            assert here.source.none_of_ours(known) == ""

    asyncio.run(scenario())


def test_a_held_pod_whose_sandbox_has_gone_is_forgotten(tmp_path: Path) -> None:
    """Its runtime took it down while nobody was there to hear."""

    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.apply(pod(status={"podIPs": None}))
            await here.source.first()
            path = here.proc.namespace("pod")
            here.hold("c1", path)
            assert isinstance(await here.next(), PodSeen)
            path.unlink()
            assert await here.next() == PodGone(UID)

    asyncio.run(scenario())


def test_b48_processes_of_the_sandbox_before_do_not_count_where_the_runtime_told_of_another(tmp_path: Path) -> None:
    """Also with the same address, as some CNIs give it."""

    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("before"))
            here.apply(pod())
            await here.source.first()
            path = here.proc.namespace("after")
            netns_id = here.hold("c2", path)
            changed = await here.next()
            assert isinstance(changed, PodChanged)
            assert changed.netns_id == netns_id
            await here.source._looked()
            assert here.source._events() == []
            here.source.let_go("c1", NetnsId(1, 1))  # the late DEL of the former one
            assert here.source._events() == []
            here.proc.end(77)
            here.proc.process(78, cgroup("v2, cgroupfs"), path)
            found = await here.next()
            assert isinstance(found, PodChanged)
            assert (found.netns_id, found.netns_path) == (netns_id, str(here.proc.root / "78/ns/net"))

    asyncio.run(scenario())


def test_a_pod_that_a_runtime_holds_is_told_of_while_what_else_changes_is_still_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_pods, "_GATHERS", 1e9)  # after the first look over all pods none for a day

    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.apply(pod(status={"podIPs": None}))
            await here.source.first()
            here.hold("c1", here.proc.namespace("first"))
            assert isinstance(await here.next(), PodSeen)
            here.apply(pod("next", status={"podIPs": None}))
            here.pods.objects["default", "next"]["metadata"]["uid"] = "00000000-0000-4000-8000-000000000002"
            here.hold("c2", here.proc.namespace("next"), "10.0.0.6", name="next")
            seen = await here.next()
            assert isinstance(seen, PodSeen)
            assert seen.pod.name == "next"

    asyncio.run(scenario())


def test_what_a_runtime_lets_go_of_before_anybody_was_told_stays_let_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.apply(pod(status={"podIPs": None}))
            await here.source.first()
            netns_id = here.hold("c1", here.proc.namespace("pod"))
            here.source.let_go("c1", netns_id)
            assert here.source._events() == []
            here.hold("c2", here.proc.namespace("next"))
            here.source.keep_only(frozenset({"c2"}))
            assert isinstance(await here.next(), PodSeen)
            here.source.keep_only(frozenset())
            assert await here.next() == PodGone(UID)

    asyncio.run(scenario())
