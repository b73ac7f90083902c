"""What an agent does to its node and pods at the API server beside telling, where an operator asked for it."""

import asyncio
import random
import time
from collections.abc import Callable

from agent.events import Events
from agent.kube.client import ApiClient
from agent.kube.watch import Pace
from agent.reconcile import Life
from agent.settings import ClusterSettings
from agent.supervisor.repair import Repair
from agent.supervisor.reports import PodFacts
from agent.supervisor.sources import Work
from agent.supervisor.untainting import Untainting


class ClusterDuties:
    """`works` run beside everything else and never return; to be begun once all pods are known."""

    def __init__(
        self,
        cluster: ClusterSettings | None,
        client: ApiClient | None,
        lives: Callable[[], tuple[Life, ...]],
        facts: Callable[[Life], PodFacts],
        events: Events,
        is_ready: Callable[[], bool],
    ) -> None:
        self._doing: list[Untainting | Repair] = []
        if cluster is None or client is None:
            return
        chance = random.Random()  # noqa: S311 - spreads load; nothing secret hangs on it
        pace = Pace(asyncio.sleep, chance.random, time.monotonic)
        if cluster.taint is not None:
            self._doing.append(Untainting(client, pace, cluster.node_name, cluster.taint, is_ready))
        if cluster.deletes_pods:
            self._doing.append(Repair(client, pace, lives, facts, events))

    @property
    def works(self) -> tuple[Work, ...]:
        return tuple(one.run for one in self._doing)

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(one.problem for one in self._doing if one.problem)
