"""Where this agent's pods and objects come from, as its settings say."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from agent.kernel.pod_processes import sandboxes
from agent.kube.client import ApiClient
from agent.kube.watch import Pace
from agent.settings import AgentSettings
from agent.sources.events import Skipped, SourceEvent
from agent.sources.kubernetes_objects import KubernetesObjects
from agent.sources.kubernetes_pods import KubernetesPods
from agent.sources.netns import NetnsSource
from agent.sources.objects import Changes, ObjectsDirectory
from agent.supervisor.left_behind import left_behind

Work = Callable[[], Coroutine[Any, Any, None]]


class PodSource(Protocol):
    """Iterate over it for what happens after `first`. `place`: where its pods come from, in words; `skipped`: pods that
    it knows and does not tell of; `listed_at`: the path at which a pod's namespace is looked for, None for a pod that
    it does not know."""

    @property
    def place(self) -> str: ...

    @property
    def problems(self) -> tuple[str, ...]: ...

    @property
    def skipped(self) -> Sequence[Skipped]: ...

    def listed_at(self, namespace: str, name: str) -> str | None: ...

    async def first(self) -> list[SourceEvent]: ...

    def __aiter__(self) -> AsyncIterator[SourceEvent]: ...


class ObjectSource(Protocol):
    @property
    def problems(self) -> tuple[str, ...]: ...

    async def changes(self) -> Changes:
        """The next change; the first time, all objects."""


@dataclass(frozen=True, slots=True)
class Sources:
    """`works`, to be begun, run beside them and never return. `objects` None: the proxy has a source of its own.
    `client`: of the API server, None where none is asked."""

    pods: PodSource
    objects: ObjectSource | None
    works: tuple[Work, ...] = ()
    client: ApiClient | None = None


def sources_of(settings: AgentSettings, stack: AsyncExitStack) -> Sources:
    """What they hold open is given to the stack."""
    cluster, directory = settings.cluster, settings.objects_dir
    from_files = None if directory is None else ObjectsDirectory(directory)
    if cluster is None:
        return Sources(NetnsSource(settings.pods_file), from_files)
    client = ApiClient(cluster.access, time.monotonic, time.time)
    stack.push_async_callback(client.close)
    chance = random.Random()  # noqa: S311 - spreads load; nothing secret hangs on it
    pace = Pace(asyncio.sleep, chance.random, time.monotonic)
    works: list[Work] = []
    pods: PodSource = NetnsSource(settings.pods_file)
    if settings.pods_file is None:
        scan = partial(sandboxes, cluster.proc, cluster.netns_mounts, {})
        found = KubernetesPods(client, pace, cluster.node_name, cluster.selection, scan, left_behind)
        works.append(found.watch)
        pods = found
    if from_files is not None:
        return Sources(pods, from_files, tuple(works), client)
    objects = KubernetesObjects(client, pace, spread_s=cluster.spread_s)
    return Sources(pods, objects, (*works, objects.watch), client)
