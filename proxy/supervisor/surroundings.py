"""What a proxy has around it: who names the pods that it serves, and who keeps their listeners beside it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from proxy.datapath.netns import Entry
from proxy.supervisor.handovers import PodKey
from proxy.supervisor.listener_source import Listeners
from proxy.supervisor.node_policy import NodePolicy
from proxy.supervisor.pods import Pods
from proxy.workerlink import ProofSeen

Parts = tuple[Callable[[], Coroutine[Any, Any, None]], ...]
"""What runs while the proxy does, each until it is cancelled or has nothing more to do."""


class Surroundings(Protocol):
    """`attend` is called once, before anything runs; `leave` when the drain begins; `close` at the very end."""

    @property
    def entry(self) -> Entry: ...

    @property
    def source(self) -> Listeners: ...

    @property
    def worker_options(self) -> tuple[str, ...]:
        """What workers are started with."""
        ...

    def attend(self, pods: Pods, policy: NodePolicy, on_change: Callable[[], None], in_force: asyncio.Event) -> None:
        """Serve `pods` from now on; `on_change` hears whatever may change `missing`. `in_force` is set once workers
        decide by a policy."""

    @property
    def to_the_end(self) -> Parts:
        """These run while the proxy drains, too: a pod that ends then must be let go of as fast as ever."""
        ...

    @property
    def until_then(self) -> Parts: ...

    @property
    def connected(self) -> bool:
        """An agent is there."""
        ...

    @property
    def missing(self) -> str:
        """What keeps the pods from being known; "" when they are."""
        ...

    def shares(self, asked: Mapping[PodKey, int]) -> Mapping[PodKey, int]:
        """How many workers serve a pod; `asked` is what policy says."""
        ...

    def pod_came(self) -> None: ...

    def note_proof(self, proof: ProofSeen) -> None: ...

    def leave(self) -> None: ...

    def close(self) -> None: ...
