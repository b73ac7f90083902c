"""A node whose agent tells what is so, over the stand-in: its clock, its lives, and what stands at the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.pods import PodRef
from agent.reconcile import Life, State
from agent.telling.outcomes import Outcome
from agent.telling.pod_teller import PodTeller
from tests.kube.beside import serves_all
from tests.kube.heard import Naps, until
from tests.kube.pods_of_a_node import Cluster, cluster, pod
from tests.kube.standin import StandIn
from tests.kube.store import Body, Store
from tests.unit.agent.lives import enrolled

UIDS = tuple(f"0000000{number}-0000-4000-8000-000000000000" for number in range(1, 8))


@dataclass
class Counts:
    """As the metric has them."""

    of: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __call__(self, kind: str, outcome: Outcome) -> None:
        self.of[kind, outcome.value] += 1


@dataclass
class Scene:
    cluster: Cluster
    client: ApiClient
    naps: Naps
    counts: Counts
    lives: dict[str, Life]
    enrolled: list[Life]
    teller: PodTeller

    @property
    def server(self) -> StandIn:
        return self.cluster.server

    async def pod(self, name: str, uid: str, state: State = State.PROVED, **parts: Body) -> None:
        """At the server, heard of, and with a life."""
        self.cluster.apply(pod(name, **parts), uid)
        self.cluster.server.apply(self.cluster.pods, self.body(name))
        await until(lambda: uid in {one.ref.uid for one, _ in self.cluster.source.of_node()})
        self.is_now(name, uid, state)

    def is_now(self, name: str, uid: str, state: State, reason: str = "") -> None:
        life = enrolled().life
        self.lives[uid] = replace(life, pod=PodRef(uid, "default", name), state=state, reason=reason)

    def body(self, name: str) -> Body:
        return self.cluster.pods.objects["default", name]

    def stands(self, name: str) -> dict[str, str]:
        return dict(self.body(name)["metadata"].get("annotations") or {})

    async def heard(self, uid: str, status: str | None) -> None:
        """The watch has told of it."""
        wanted = [] if status is None else [status]

        def shown() -> bool:
            return any(
                [value for key, value in one.told if key.endswith("/status")] == wanted
                for one, _ in self.cluster.source.of_node()
                if one.ref.uid == uid
            )

        await until(shown)

    async def tell(self, after_s: float = 0.0) -> None:
        self.naps.now_s += after_s
        await self.teller.tell()

    def patched(self) -> list[str]:
        return [path for method, path, _ in self.server.asked if method == "PATCH"]


@asynccontextmanager
async def node(tmp_path: Path) -> AsyncIterator[Scene]:
    store = Store()
    namespace = serves_all(store)["Namespace"]
    store.create(namespace, "", {"metadata": {"name": "default"}})
    async with cluster(tmp_path, store) as made:
        client = ApiClient(Access(made.server.url, None), lambda: 0.0, lambda: 0.0)
        try:
            naps, counts, lives, proved = Naps(), Counts(), dict[str, Life](), list[Life]()
            naps.now_s = 1000.0
            teller = PodTeller(client, made.source, lives.get, naps.pace(), count=counts, enrolled=proved.append)
            await made.source.first()
            yield Scene(made, client, naps, counts, lives, proved, teller)
        finally:
            await client.close()
