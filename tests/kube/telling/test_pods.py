"""agent.telling.pod_teller: headgate.io/status on the pods of the node, whatever the API server does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.pods.told import REASON, STATUS
from agent.reconcile import State
from tests.kube.heard import until
from tests.kube.telling.scene import UIDS, Scene, node

WEB, CART, *_ = UIDS


def _on(tmp_path: Path, story: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with node(tmp_path) as scene:
            await story(scene)

    asyncio.run(whole())


def test_an_enrolled_pod_says_so_by_one_write_to_its_status_subresource(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB, State.INSTALLED)
        await scene.tell()
        scene.is_now("web", WEB, State.PROVED)
        await scene.tell(1)
        assert scene.stands("web") == {STATUS: "enrolled"}
        assert scene.patched() == ["/api/v1/namespaces/default/pods/web/status"]
        assert [life.pod.name for life in scene.enrolled] == ["web"]
        await scene.heard(WEB, "enrolled")
        for _ in range(5):
            await scene.tell(60)
        assert len(scene.patched()) == 1

    _on(tmp_path, story)


def test_its_own_annotations_are_no_wish_of_the_pods_and_change_nothing_for_the_agent(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB, metadata={"annotations": {"headgate.io/opaque-ports": "99"}})
        await scene.tell()
        await scene.heard(WEB, "enrolled")
        ((found, _),) = scene.cluster.source.of_node()
        assert found.ref.annotations == (("headgate.io/opaque-ports", "99"),)
        assert all(not key.startswith(STATUS) for key, _ in found.candidate.marks)

    _on(tmp_path, story)


def test_what_is_not_well_is_said_when_it_lasts_and_taken_back_when_it_is_over(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB)
        await scene.tell()
        await scene.heard(WEB, "enrolled")
        scene.is_now("web", WEB, State.FAILED, "port 15001 is taken by process 7 (x\x1b[2J)")
        await scene.tell(10)
        assert scene.stands("web") == {STATUS: "enrolled"}
        await scene.tell(6)
        assert scene.stands("web") == {STATUS: "failed", REASON: "port 15001 is taken by process 7 (x\\x1b[2J)"}
        await scene.heard(WEB, "failed")
        scene.is_now("web", WEB, State.PROVED)
        await scene.tell(10)
        assert scene.stands("web") == {STATUS: "enrolled"}

    _on(tmp_path, story)


def test_c1_a_lie_on_a_pod_that_is_none_of_ours_is_taken_away(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        lie = {"annotations": {STATUS: "enrolled", REASON: "believe me", "note": "stays"}}
        await scene.pod("web", WEB, labels={}, metadata=lie)
        del scene.lives[WEB]
        await scene.tell()
        await scene.tell(6)
        assert scene.stands("web") == {"note": "stays"}
        assert not scene.enrolled

    _on(tmp_path, story)


def test_another_pod_of_the_same_name_is_not_told_of_this_one(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB)
        # Made anew, and the watch has not told yet.
        scene.body("web")["metadata"]["uid"] = CART
        await scene.tell()
        assert scene.stands("web") == {}
        assert scene.counts.of == {("status", "conflict"): 1}
        assert scene.teller.problems == ()

    _on(tmp_path, story)


def test_a_pod_that_has_gone_meanwhile_is_no_problem(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB)
        del scene.cluster.pods.objects["default", "web"]
        await scene.pod("cart", CART)
        await scene.tell()
        assert scene.stands("cart") == {STATUS: "enrolled"}
        assert scene.counts.of == {("status", "absent"): 1, ("status", "done"): 1}
        assert scene.teller.problems == ()

    _on(tmp_path, story)


def test_an_hour_without_an_api_server_ends_with_what_is_so_then(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB)
        await scene.pod("cart", CART)
        await scene.server.down()
        attempts = 0
        for state in (State.PROVED, State.FAILED, State.PENDING, State.LEAVING) * 30:
            scene.is_now("web", WEB, state)
            before = scene.counts.of["status", "unreachable"]
            await scene.tell(30)
            attempts += scene.counts.of["status", "unreachable"] - before
        assert attempts <= 130  # one a minute or two, not one a pod
        (problem,) = scene.teller.problems
        assert problem.startswith("cannot write pods' status: http://127.0.0.1")
        scene.is_now("web", WEB, State.FAILED, "no address")
        await scene.tell(1)
        await scene.server.up()
        for _ in range(3):
            await scene.tell(61)
        assert scene.stands("web") == {STATUS: "failed", REASON: "no address"}
        assert scene.stands("cart") == {STATUS: "enrolled"}
        assert len(scene.patched()) == 2
        assert scene.teller.problems == ()

    _on(tmp_path, story)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_asks_for_patience_gets_it(tmp_path: Path, code: int) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB)
        await scene.pod("cart", CART)
        scene.server.faults.refuse["patch pods/status"] = code
        scene.server.faults.retry_after_s = 20
        began_s = scene.naps.now_s
        await scene.tell()
        assert len(scene.patched()) == 1
        assert scene.naps.now_s - began_s >= 20
        assert str(code) in scene.teller.problems[0]
        scene.server.faults.refuse.clear()
        await scene.tell(20)
        assert scene.stands("web") == scene.stands("cart") == {STATUS: "enrolled"}
        assert scene.teller.problems == ()

    _on(tmp_path, story)


def test_a_missing_rule_is_named_and_asked_for_once_a_minute(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB)
        await scene.pod("cart", CART)
        scene.server.faults.refuse["patch pods/status"] = 403
        began_s = scene.naps.now_s
        while scene.naps.now_s < began_s + 600:
            await scene.tell(1)
        assert len(scene.patched()) <= 12
        (problem,) = scene.teller.problems
        assert problem.startswith("may not write pods' status: 403 Forbidden: pods")
        assert problem.endswith("the role must permit patch of pods/status")

    _on(tmp_path, story)


def test_a_restarted_agent_patches_only_what_differs(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        said = {"metadata": {"annotations": {STATUS: "enrolled"}}}
        await scene.pod("web", WEB, State.SEEN, **said)
        await scene.pod("cart", CART, State.SEEN, **said)
        await scene.tell()
        scene.is_now("web", WEB, State.PROVED)
        scene.is_now("cart", CART, State.PENDING, "no proxy is connected")
        for _ in range(4):
            await scene.tell(2)
        assert scene.patched() == ["/api/v1/namespaces/default/pods/cart/status"]
        assert scene.stands("cart") == {STATUS: "pending", REASON: "no proxy is connected"}
        assert not scene.enrolled

    _on(tmp_path, story)


def test_an_agent_that_leaves_for_good_takes_its_words_along(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB, metadata={"annotations": {STATUS: "enrolled", "note": "stays"}})
        await scene.pod("cart", CART)
        await scene.pod("other", UIDS[2], labels={})
        del scene.lives[UIDS[2]]
        await scene.tell()  # of the cart the watch may not have told
        before = len(scene.patched())
        await scene.teller.leave()
        assert scene.stands("web") == {"note": "stays"}
        assert scene.stands("cart") == {}
        assert len(scene.patched()) - before == 2

    _on(tmp_path, story)


def test_what_a_policy_refuses_is_that_pods_own_problem_and_over_with_it(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        names = [f"web-{number}" for number in range(5)]
        for name, uid in zip(names, UIDS, strict=False):
            await scene.pod(name, uid)
        scene.server.faults.refuse["patch pods/status"] = 422
        await scene.tell()
        assert len(scene.patched()) == 5
        assert [one.partition(":")[0] for one in scene.teller.problems] == [
            "pod default/web-0", "pod default/web-1", "pod default/web-2", "and of 2 more pods",
        ]  # fmt: skip
        for uid in UIDS[:5]:
            del scene.lives[uid]
        await scene.tell(1)
        assert scene.teller.problems == ()

    _on(tmp_path, story)


def test_a_problem_ends_with_the_pods_that_it_was_about(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.pod("web", WEB)
        scene.server.faults.refuse["patch pods/status"] = 503
        await scene.tell()
        assert len(scene.teller.problems) == 1
        scene.cluster.server.delete(scene.cluster.pods, "web")
        await until(lambda: not list(scene.cluster.source.of_node()))
        await scene.tell(1)
        assert scene.teller.problems == ()

    _on(tmp_path, story)
