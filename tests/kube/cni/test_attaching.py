"""A pod that is about to start: held, waited for, read back, let go; over the real source of pods."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.held import Found
from agent.kernel.netns import NetnsRefused
from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.pods import NetnsId, PodRef
from agent.pods.sandbox import Sandbox
from agent.pods.selection import Selection
from agent.reconcile import Life, State
from agent.sources.cni_request import Attachment, CniCode, NotAttached
from agent.sources.events import PodGone, SourceEvent
from agent.sources.kubernetes_pods import KubernetesPods
from agent.supervisor import attaching
from agent.supervisor.attaching import Attaching
from tests.kube.heard import Naps, pods
from tests.kube.standin import StandIn
from tests.kube.store import Kept, Store

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
POD = PodRef(UID, "default", "web")


class Lives:
    """agent.supervisor.attaching.Lives, and the registry's part: what the source tells becomes a life in `state`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.known: dict[str, Life] = {}

    def life(self, uid: str, /) -> Life | None:
        return self.known.get(uid)

    def lives(self) -> tuple[Life, ...]:
        return tuple(self.known.values())

    def heard(self, event: SourceEvent) -> None:
        if isinstance(event, PodGone):
            self.known.pop(event.uid, None)
        else:
            self.known[event.pod.uid] = Life(event.pod, event.netns_path, event.netns_id, self.state)


class Node:
    def __init__(self, server: StandIn, source: KubernetesPods, kept: Kept, lives: Lives, tmp_path: Path) -> None:
        self.server, self.source, self.kept, self.lives = server, source, kept, lives
        self.root = tmp_path
        self.found = Found((), ())
        self.attaching = Attaching(source, lives, self._compare, lambda: True, (), tmp_path / "proc")

    async def _compare(self, life: Life) -> Found:
        return self.found

    def apply(self, uid: str = UID) -> None:
        labels = {"headgate.io/mesh": "enabled"}
        body = {"metadata": {"name": "web", "uid": uid, "labels": labels}, "spec": {"nodeName": "n"}, "status": {}}
        self.kept.objects.pop(("default", "web"), None)
        self.server.apply(self.kept, body)

    def netns(self, name: str) -> Path:
        path = self.root / name
        path.touch()
        return path

    def attachment(self, netns: str = "netns", container: str = "c1", uid: str = UID) -> Attachment:
        return Attachment(container, str(self.netns(netns)), "default", "web", uid, ())

    async def follow(self) -> None:
        async for event in self.source:
            self.lives.heard(event)
            if (life := self.lives.life(UID)) is not None:
                self.attaching.told(life)
            self.attaching.told(Life(POD, "", NetnsId(0, 0)))


class Opened:
    """agent.kernel.netns.OpenNetns, of a file."""

    def __init__(self, path: str) -> None:
        status = Path(path).stat()
        self.id = NetnsId(status.st_dev, status.st_ino)

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def on_a_node(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Callable[[Node], Coroutine[Any, Any, None]],
    state: State = State.INSTALLED,
) -> None:
    """Namespaces are files here: what tells a namespace from a file is tested with real ones."""

    monkeypatch.setattr(attaching, "open_netns", Opened)
    monkeypatch.setattr(attaching, "STEERED_S", 0.3)

    async def whole() -> None:
        store = Store()
        kept = pods(store)
        namespaces = store.serve(Kept("", "v1", "Namespace", "namespaces", namespaced=False))
        store.create(namespaces, "", {"metadata": {"name": "default"}})
        async with StandIn(store).serving() as server:
            client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
            source = KubernetesPods(client, Naps().pace(), "n", Selection(), dict[str, Sandbox])
            node = Node(server, source, kept, Lives(state), tmp_path)
            tasks = [asyncio.create_task(source.watch())]
            await source.first()
            tasks.append(asyncio.create_task(node.follow()))
            try:
                await scenario(node)
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                await client.close()

    asyncio.run(whole())


async def refused(doing: Coroutine[Any, Any, None]) -> NotAttached:
    with pytest.raises(NotAttached) as error:
        await doing
    return error.value


def test_add_holds_until_the_pod_is_steered_and_del_lets_it_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        node.apply()
        await node.attaching.add(node.attachment())
        assert node.lives.known[UID].netns_path == str(tmp_path / "netns")
        await node.attaching.check(node.attachment())
        await node.attaching.remove(node.attachment())
        assert node.lives.known == {}
        await node.attaching.remove(node.attachment())

    on_a_node(tmp_path, monkeypatch, scenario)


def test_a_del_that_comes_while_add_waits_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        node.apply()
        adding = asyncio.create_task(refused(node.attaching.add(node.attachment())))
        while UID not in node.lives.known:
            await asyncio.sleep(0.005)
        await node.attaching.remove(node.attachment())
        assert node.lives.known == {}
        assert (await adding).code is CniCode.TRY_AGAIN_LATER
        assert list(node.source._held) == []

    on_a_node(tmp_path, monkeypatch, scenario, State.ANNOUNCED)


def test_a_pod_that_is_deleted_while_add_waits_is_let_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node) -> None:
        node.apply()
        adding = asyncio.create_task(refused(node.attaching.add(node.attachment())))
        while UID not in node.lives.known:
            await asyncio.sleep(0.005)
        node.server.delete(node.kept, "web")
        assert "is announced; not steered within 0.3 s" in str(await adding)
        while node.lives.known:
            await asyncio.sleep(0.005)

    on_a_node(tmp_path, monkeypatch, scenario, State.ANNOUNCED)


def test_of_two_sandboxes_at_once_the_later_is_the_pods_and_the_formers_del_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node) -> None:
        node.apply()
        await node.attaching.add(node.attachment("one", "c1"))
        await node.attaching.add(node.attachment("two", "c2"))
        await node.attaching.remove(node.attachment("one", "c1"))
        await asyncio.sleep(0.05)
        assert node.lives.known[UID].netns_path == str(tmp_path / "two")
        wrong = await refused(node.attaching.check(node.attachment("one", "c1")))
        assert "steered in another network namespace" in str(wrong)
        await node.attaching.remove(node.attachment("two", "c2"))
        assert node.lives.known == {}

    on_a_node(tmp_path, monkeypatch, scenario)


def test_a_pod_made_anew_under_its_name_is_checked_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A StatefulSet's: the former one may be draining still."""

    async def scenario(node: Node) -> None:
        node.apply()
        await node.attaching.add(node.attachment())
        other = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
        node.apply(other)
        error = await refused(node.attaching.check(node.attachment(uid=other)))
        assert "the agent does not know it yet" in str(error)

    on_a_node(tmp_path, monkeypatch, scenario)


def test_rules_that_are_not_as_planned_start_no_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        node.apply()
        node.found = dataclasses.replace(node.found, changes=("a rule is missing",))
        assert (await refused(node.attaching.add(node.attachment()))).code is CniCode.RULES_DIFFER
        while node.lives.known:
            await asyncio.sleep(0.005)

    on_a_node(tmp_path, monkeypatch, scenario)


def test_an_api_server_that_does_not_answer_is_what_the_kubelet_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node) -> None:
        async def silent(*_: object) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(node.source, "known", silent)
        error = await refused(node.attaching.add(node.attachment()))
        assert str(error) == "pod default/web: the API server has not told of it within 0.3 s"
        monkeypatch.undo()
        await node.server.down()
        error = await refused(node.attaching.add(node.attachment()))
        assert error.code is CniCode.TRY_AGAIN_LATER
        assert "the API server does not tell of it: http://" in str(error)

    on_a_node(tmp_path, monkeypatch, scenario)


def test_a_processes_namespace_is_looked_for_where_the_nodes_proc_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc/PID of the agent's own would be another process, the agent's own maybe."""

    async def scenario(node: Node) -> None:
        node.apply()
        (tmp_path / "proc/77/ns").mkdir(parents=True)
        (tmp_path / "proc/77/ns/net").touch()
        asked = dataclasses.replace(node.attachment(), netns="/proc/77/ns/net")
        await node.attaching.add(asked)
        assert node.lives.known[UID].netns_path == str(tmp_path / "proc/77/ns/net")

    on_a_node(tmp_path, monkeypatch, scenario)


def test_a_namespace_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        def refuse(path: str) -> None:
            raise NetnsRefused(path, "is the node's")

        monkeypatch.setattr(attaching, "open_netns", refuse)
        node.apply()
        error = await refused(node.attaching.add(node.attachment()))
        assert (error.code, node.lives.known) == (CniCode.CANNOT_ENROL, {})

    on_a_node(tmp_path, monkeypatch, scenario)
