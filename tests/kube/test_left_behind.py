"""Pods that are none of ours are looked into once for rules of a former agent; those that hold some are told of."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.pods import NetnsId
from agent.pods.sandbox import Sandbox
from agent.sources.events import PodGone, PodSeen
from tests.kube.fake_proc import OTHER, UID, cgroup
from tests.kube.heard import until
from tests.kube.pods_of_a_node import ENABLED, cluster, pod


@dataclass
class Node:
    """`holding`: paths of namespaces that hold rules; `looked`: at which it was looked, one after the other."""

    holding: set[str] = field(default_factory=set)
    looked: list[str] = field(default_factory=list)

    def left_behind(self, sandboxes: Iterable[Sandbox]) -> frozenset[NetnsId]:
        there = tuple(sandboxes)
        self.looked += [Path(one.netns_path).parts[-3] for one in there]
        return frozenset(one.netns_id for one in there if Path(one.netns_path).parts[-3] in self.holding)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"labels": {}}, "neither the pod nor namespace default"),
        ({"status": {"phase": "Succeeded"}}, "has finished"),
    ],
)
def test_a_pod_that_holds_rules_and_is_none_of_ours_is_told_of_with_the_reason(
    tmp_path: Path, parts: dict[str, Any], reason: str
) -> None:
    node = Node({"77"})

    async def scenario() -> None:
        async with cluster(tmp_path, left_behind=node.left_behind) as here:
            here.apply(pod(**parts))
            here.apply(pod("other", labels={}), OTHER)
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.proc.process(78, cgroup("v2, cgroupfs", OTHER), here.proc.namespace("other"))
            (seen,) = await here.source.first()
            assert isinstance(seen, PodSeen) and seen.pod.uid == UID and seen.pod.left_out.startswith(reason)
            assert [one.name for one in here.source.skipped] == ["other"]
            here.server.delete(here.pods, "web")
            assert await here.next() == PodGone(UID)

    asyncio.run(scenario())


def test_each_is_looked_into_once_also_one_that_comes_later(tmp_path: Path) -> None:
    node = Node()

    async def scenario() -> None:
        async with cluster(tmp_path, left_behind=node.left_behind) as here:
            here.apply(pod(labels={}))
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            assert await here.source.first() == []
            here.apply(pod("other", labels={}), OTHER)
            here.proc.process(78, cgroup("v2, cgroupfs", OTHER), here.proc.namespace("other"))
            await until(lambda: node.looked == ["77", "78"])
            here.apply(pod(labels={"x": "y"}))
            await asyncio.sleep(0.1)
            assert node.looked == ["77", "78"]

    asyncio.run(scenario())


@pytest.mark.parametrize("parts", [{}, {"spec": {"hostNetwork": True}}], ids=["one of ours", "the host's network"])
def test_who_is_told_of_anyway_or_never_may_be_is_not_looked_into(tmp_path: Path, parts: dict[str, Any]) -> None:
    node = Node({"77"})

    async def scenario() -> None:
        async with cluster(tmp_path, left_behind=node.left_behind) as here:
            here.apply(pod(labels=ENABLED, **parts))
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            assert len(await here.source.first()) == (0 if parts else 1)
            assert node.looked == []

    asyncio.run(scenario())
