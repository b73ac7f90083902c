"""The source of a node's pods over the stand-in, with a /proc made up."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.kernel.pod_processes import sandboxes
from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.pods import NetnsId
from agent.pods.sandbox import Sandbox
from agent.pods.selection import Selection
from agent.sources.events import SourceEvent
from agent.sources.kube_pod import node_pod
from agent.sources.kubernetes_pods import KubernetesPods, LeftBehind
from tests.kube.fake_proc import UID, FakeProc
from tests.kube.heard import Naps, pods
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store

ENABLED = {"headgate.io/mesh": "enabled"}


def pod(name: str = "web", labels: dict[str, str] | None = None, **parts: Any) -> Body:
    return {
        "metadata": {"name": name, "labels": ENABLED if labels is None else labels, **parts.pop("metadata", {})},
        "spec": {"nodeName": "node-1", "serviceAccountName": "web", **parts.pop("spec", {})},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}], **parts.pop("status", {})},
    }


@dataclass
class Cluster:
    server: StandIn
    source: KubernetesPods
    proc: FakeProc
    pods: Kept
    namespaces: Kept
    events: AsyncIterator[SourceEvent]
    looks: list[Mapping[str, Sandbox]]
    """What was found each time that the node's processes were looked over."""

    def apply(self, body: Body, uid: str = UID) -> None:
        """The server gives uids; a test needs to know them."""
        self.server.apply(self.pods, body)
        made = self.pods.objects["default", body["metadata"]["name"]]
        made["metadata"]["uid"] = uid

    def hold(self, container_id: str, path: Path, addresses: str = "10.0.0.5", name: str = "web") -> NetnsId:
        """As the runtime asks for the pod."""
        body = self.pods.objects["default", name]
        status = path.stat()
        sandbox = Sandbox(str(path), NetnsId(status.st_dev, status.st_ino))
        self.source.hold(container_id, node_pod({**body, "status": {"podIP": addresses}}).ref, sandbox)
        return sandbox.netns_id

    async def next(self) -> SourceEvent:
        async with asyncio.timeout(5):
            return await anext(self.events)


@asynccontextmanager
async def cluster(
    tmp_path: Path,
    store: Store | None = None,
    left_behind: LeftBehind = lambda sandboxes: frozenset(),
    mounts: tuple[Path, ...] = (),
) -> AsyncIterator[Cluster]:
    """`store`: of the one before, whose agent has ended; `left_behind`: where it has left rules; `mounts`: where
    namespaces have names."""
    if store is None:
        store = Store()
        pods(store)
        made = store.serve(Kept("", "v1", "Namespace", "namespaces", namespaced=False))
        store.create(made, "", {"metadata": {"name": "default"}})
    kept, namespaces = store.resources["", "pods"], store.resources["", "namespaces"]
    proc = FakeProc(tmp_path / "proc")
    async with StandIn(store).serving() as server:
        client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
        looks: list[Mapping[str, Sandbox]] = []

        def scan() -> Mapping[str, Sandbox]:
            looks.append(sandboxes(proc.root, mounts))
            return looks[-1]

        source = KubernetesPods(client, Naps().pace(), "node-1", Selection(), scan, left_behind)
        task = asyncio.create_task(source.watch())
        try:
            yield Cluster(server, source, proc, kept, namespaces, aiter(source), looks)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await client.close()
