"""Pods of a node, from the API server and the node's processes: told of once both know them."""

import asyncio
from pathlib import Path

import pytest

from agent.sources.events import PodChanged, PodGone, PodSeen
from agent.sources.kube_pod import node_pod
from agent.sources.kubernetes_pods import LOOKED_EVERY_S, SOUGHT_EVERY_S
from tests.kube.fake_proc import OTHER, UID, cgroup
from tests.kube.pods_of_a_node import ENABLED, cluster, pod
from tests.kube.store import Body


def test_a_selected_pod_is_told_of_once_its_namespace_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.apply(pod())
            assert await here.source.first() == []
            assert here.source.skipped[0].reason.startswith("its network namespace is not found yet")
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            seen = await here.next()
            assert isinstance(seen, PodSeen)
            assert (seen.pod.uid, str(seen.pod), seen.pod.service_account) == (UID, "default/web", "web")
            assert list(map(str, seen.pod.addresses)) == ["10.0.0.5", "fd00::5"]
            assert seen.netns_path == str(here.proc.root / "77/ns/net")
            assert here.source.skipped == ()

    asyncio.run(scenario())


def test_only_this_nodes_pods_are_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            await here.source.first()
            assert here.server.lists_of("pods")[0]["fieldSelector"] == "spec.nodeName=node-1"

    asyncio.run(scenario())


def test_nothing_is_told_before_pods_and_namespaces_were_listed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod())
            here.server.faults.refuse["namespaces"] = 403
            first = asyncio.create_task(here.source.first())
            await asyncio.sleep(0.1)
            assert not first.done(), "a namespace's label decides, too"
            assert "namespaces: may not list them" in here.source.problems[0]
            here.server.faults.refuse.clear()
            assert len(await first) == 1

    asyncio.run(scenario())


def test_a_label_on_the_namespace_selects_its_pods_and_its_end_leaves_them_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod(labels={}))
            assert await here.source.first() == []
            assert "neither the pod nor namespace default has" in here.source.skipped[0].reason
            here.server.apply(here.namespaces, {"metadata": {"name": "default", "labels": ENABLED}})
            seen = await here.next()
            assert isinstance(seen, PodSeen)
            here.server.apply(here.namespaces, {"metadata": {"name": "default"}})
            changed = await here.next()
            assert isinstance(changed, PodChanged)
            assert changed.pod.left_out.startswith("neither the pod nor namespace default has")

    asyncio.run(scenario())


def test_a_pod_that_says_no_is_told_of_so_that_what_it_still_holds_of_ours_goes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod(labels={"headgate.io/mesh": "disabled"}))
            (seen,) = await here.source.first()
            assert isinstance(seen, PodSeen)
            assert seen.pod.left_out == "the pod says headgate.io/mesh: disabled"

    asyncio.run(scenario())


def test_b48_a_sandbox_made_anew_under_the_same_uid_is_another_namespace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod())
            (before,) = await here.source.first()
            here.proc.end(77)
            here.proc.process(78, cgroup("v2, cgroupfs"), here.proc.namespace("again"), started=200)
            after = await here.next()
            assert isinstance(before, PodSeen)
            assert isinstance(after, PodChanged)
            assert after.netns_id != before.netns_id

    asyncio.run(scenario())


def test_b48_with_drop_infra_ctr_a_pod_keeps_its_namespace_between_two_runs_of_its_only_container(
    tmp_path: Path,
) -> None:
    """Minutes may lie between them (CrashLoopBackOff), without any process: what it starts with next is steered."""

    async def scenario() -> None:
        async with cluster(tmp_path, mounts=(tmp_path / "proc/bound",)) as here:
            own = here.proc.namespace("pod")
            name = here.proc.bound(own, "c8c9f3f0")
            here.proc.process(77, cgroup("v2, systemd, cri-o"), own)
            here.apply(pod())
            (seen,) = await here.source.first()
            assert isinstance(seen, PodSeen)
            assert seen.netns_path == str(name)
            here.proc.end(77)
            await here.source._looked()
            assert here.source._events() == []
            here.proc.process(78, cgroup("v2, systemd, cri-o"), own, started=9000)
            await here.source._looked()
            assert here.source._events() == []
            here.proc.end(78)
            name.unlink()
            assert await here.next() == PodGone(UID)

    asyncio.run(scenario())


def test_b48_with_drop_infra_ctr_a_sandbox_that_its_runtime_takes_down_is_gone_at_once(tmp_path: Path) -> None:
    """Its name is still there then."""

    async def scenario() -> None:
        async with cluster(tmp_path, mounts=(tmp_path / "proc/bound",)) as here:
            own = here.proc.namespace("pod")
            here.proc.bound(own, "c8c9f3f0")
            here.proc.process(77, cgroup("v2, systemd, cri-o"), own)
            here.apply(pod())
            (seen,) = await here.source.first()
            assert isinstance(seen, PodSeen)
            here.proc.end(77)
            here.source.let_go("c1", seen.netns_id)
            assert await here.next() == PodGone(UID)
            for _ in range(3):
                await here.source._looked()
                assert here.source._events() == []

    asyncio.run(scenario())


def test_b52_a_finished_jobs_pod_is_gone_before_another_pod_has_its_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("job"))
            here.apply(pod("job"))
            await here.source.first()
            here.apply(pod("job", status={"phase": "Succeeded"}))
            assert await here.next() == PodGone(UID)
            here.proc.process(78, cgroup("v2, cgroupfs", OTHER), here.proc.namespace("next"))
            here.apply(pod("next"), OTHER)
            seen = await here.next()
            assert isinstance(seen, PodSeen)
            assert seen.pod.uid == OTHER
            here.server.delete(here.pods, "job")  # the late event is of a uid that nobody knows any more
            here.apply(pod("next", labels={**ENABLED, "more": "1"}), OTHER)
            assert isinstance(await here.next(), PodChanged)

    asyncio.run(scenario())


def test_a_deleted_pod_is_gone_and_one_of_the_same_name_is_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod())
            await here.source.first()
            here.server.delete(here.pods, "web")
            assert await here.next() == PodGone(UID)
            here.proc.process(78, cgroup("v2, cgroupfs", OTHER), here.proc.namespace("again"))
            here.apply(pod(), OTHER)
            seen = await here.next()
            assert isinstance(seen, PodSeen)
            assert seen.pod.uid == OTHER

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (pod(spec={"hostNetwork": True}), "is on the host's network"),
        (pod(status={"phase": "Failed"}), "has finished"),
        (pod(spec={"containers": [{"name": "app"}, {"name": "linkerd-proxy"}]}), "has a proxy of its own"),
        (pod(spec={"initContainers": [{"name": "istio-proxy"}]}), "has a proxy of its own"),
    ],
)
def test_who_is_none_of_ours_is_listed_with_the_reason(tmp_path: Path, body: Body, reason: str) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(body)
            assert await here.source.first() == [], "what a proxy of its own has installed there is not ours to remove"
            (skipped,) = here.source.skipped
            assert (skipped.namespace, skipped.name) == ("default", "web")
            assert skipped.reason.startswith(reason)

    asyncio.run(scenario())


def test_a_version_that_cannot_be_read_takes_nothing_away_and_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod())
            await here.source.first()
            here.apply(pod(status={"podIPs": [{"ip": "nowhere"}]}))
            await asyncio.sleep(0.2)
            here.proc.process(78, cgroup("v2, cgroupfs", OTHER), here.proc.namespace("next"))
            here.apply(pod("next"), OTHER)
            assert isinstance(await here.next(), PodSeen), "and nothing was gone before"
            assert here.source.problems == ("pod default/web: status.podIPs: 'nowhere' is no address",)

    asyncio.run(scenario())


def test_a_proc_that_cannot_be_read_is_told_and_takes_nothing_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod())
            await here.source.first()
            here.proc.root.rename(tmp_path / "away")
            while not here.source.problems:
                here.apply(pod(labels={**ENABLED, "n": "1"}))
                await asyncio.sleep(0.02)
            assert "processes cannot be looked over" in here.source.problems[0]
            assert set(here.source._told) == {UID}

    asyncio.run(scenario())


# ── What tells a pod from another ──────────────────────────────────────────────────────────────────────────────────
HASH = "0f8fad5bd9cb469fa16570867728950e"


def test_a_pod_that_writes_anothers_uid_into_its_annotations_gets_nothing_of_it(tmp_path: Path) -> None:
    """Else it had the other one steered under its own name and service account, or not at all."""

    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("victim"))
            claims = {"kubernetes.io/config.hash": UID, "kubernetes.io/config.mirror": UID}
            here.apply(pod("thief", metadata={"annotations": claims}), OTHER)
            assert await here.source.first() == []
            here.apply(pod())
            seen = await here.next()
            assert isinstance(seen, PodSeen)
            assert str(seen.pod) == "default/web"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("annotations", "known_as"),
    [
        ({"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}, HASH),
        ({"kubernetes.io/config.hash": HASH}, OTHER),
        ({"kubernetes.io/config.hash": UID, "kubernetes.io/config.mirror": UID}, OTHER),
    ],
)
def test_only_a_static_pods_mirror_is_known_by_another_uid(annotations: dict[str, str], known_as: str) -> None:
    body = pod(metadata={"annotations": annotations, "uid": OTHER, "namespace": "default"})
    assert node_pod(body).known_as == known_as


def test_without_an_address_processes_alone_do_not_tell_where_a_pod_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod(status={"podIPs": None}))
            assert await here.source.first() == []
            assert here.source.skipped[0].reason == "the API server does not know its address yet"
            here.apply(pod())
            assert isinstance(await here.next(), PodSeen)
            here.apply(pod(status={"podIPs": None}))
            changed = await here.next()
            assert isinstance(changed, PodChanged), "its status is written anew: nothing is taken away by that"

    asyncio.run(scenario())


def test_a_pod_whose_sandbox_never_comes_makes_no_other_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.apply(pod("stuck"), OTHER)
            await here.source.first()
            here.source._sought_since_s[OTHER] = -1000.0
            assert here.source._every_s() == LOOKED_EVERY_S
            here.apply(pod())
            while here.source._every_s() != SOUGHT_EVERY_S:
                await asyncio.sleep(0.01)
                here.source._events()

    asyncio.run(scenario())
