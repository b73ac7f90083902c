"""What the agent says at the API server, put together: pods' status, their Events, the status of routes.

Where no API server is asked, or nothing is to be said there, nothing of it runs.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import Final

from agent.events import Events, EventType, Reason
from agent.handoff.object_lines import ObjectLines
from agent.handoff.verdicts import Verdicts
from agent.kube.watch import Pace
from agent.metrics import AgentMetrics
from agent.pods import ProofStatus
from agent.reconcile import Life
from agent.settings import AgentSettings, ClusterSettings
from agent.sources.kubernetes_objects import KubernetesObjects
from agent.sources.kubernetes_pods import KubernetesPods
from agent.supervisor.sources import Sources, Work
from agent.telling.event_teller import EventTeller
from agent.telling.lease_holder import LeaseHolder
from agent.telling.outcomes import Outcome
from agent.telling.pod_teller import PodTeller
from agent.telling.route_teller import RouteTeller
from agent.telling.settling import SettlingClient

_log: Final = logging.getLogger("headgate.telling")

LEAVE_S: Final = 5.0
"""With agent.supervisor.service.CLEANUP_S before, below the 60 s of terminationGracePeriodSeconds."""
RELEASE_S: Final = 1.0
"""A new agent waits for this one's end, and pods that start wait for that."""


class ClusterTelling:
    """`works` run beside everything else and never return; to be begun once the sources have told of all pods."""

    def __init__(
        self,
        settings: AgentSettings,
        sources: Sources,
        life: Callable[[str], Life | None],
        events: Events,
        metrics: AgentMetrics,
        lines: ObjectLines,
        verdicts: Verdicts,
    ) -> None:
        """`life`: the present one of a pod's uid."""
        self.works: tuple[Work, ...] = ()
        self._events = events
        self._metrics = metrics
        self._pods: PodTeller | None = None
        self._event_teller: EventTeller | None = None
        self._routes: RouteTeller | None = None
        self._lease: LeaseHolder | None = None
        self._writes: SettlingClient | None = None
        cluster, client = settings.cluster, sources.client
        if cluster is None or client is None or not cluster.tells:
            return
        self._writes = SettlingClient(client)
        chance = random.Random()  # noqa: S311 - spreads load; nothing secret hangs on it
        pace = Pace(asyncio.sleep, chance.random, time.monotonic)
        if isinstance(sources.pods, KubernetesPods):
            self._tell_of_pods(self._writes, cluster, sources.pods, life, pace)
        if isinstance(sources.objects, KubernetesObjects):
            self._tell_of_routes(self._writes, cluster, sources.objects, lines, verdicts, pace)

    def _tell_of_pods(
        self,
        client: SettlingClient,
        cluster: ClusterSettings,
        pods: KubernetesPods,
        life: Callable[[str], Life | None],
        pace: Pace,
    ) -> None:
        told = EventTeller(client, cluster.node_name, pace, time.time, self._count)
        self._events.follow(told.heard)
        self._event_teller = told
        self._pods = PodTeller(client, pods, life, pace, count=self._count, enrolled=self._enrolled)
        self.works += (told.run, self._pods.run)

    def _tell_of_routes(
        self,
        client: SettlingClient,
        cluster: ClusterSettings,
        objects: KubernetesObjects,
        lines: ObjectLines,
        verdicts: Verdicts,
        pace: Pace,
    ) -> None:
        lease = LeaseHolder(
            client,
            cluster.access.namespace,
            f"{cluster.node_name}_{secrets.token_hex(8)}",
            pace,
            time.time,
            wanted=lambda: routes.wanted,
            count=self._count,
            spread_s=cluster.spread_s,
        )
        routes = RouteTeller(
            client, objects, lines.lines, verdicts, pace, time.time, holds=lambda: lease.holds, count=self._count
        )
        self._lease, self._routes = lease, routes
        self.works += (lease.run, routes.run)

    @property
    def problems(self) -> tuple[str, ...]:
        tellers = (self._pods, self._event_teller, self._lease, self._routes)
        return tuple(problem for one in tellers if one is not None for problem in one.problems)

    async def leave(self, *, cleanup: bool) -> None:
        """After `works` have ended. With `cleanup` nothing of ours stays on an object."""
        within_s = LEAVE_S if cleanup else RELEASE_S
        try:
            async with asyncio.timeout(within_s):
                await self._settle()
                await asyncio.gather(
                    *(one.leave() for one in (self._pods,) if one is not None and cleanup),
                    *(one.leave() for one in (self._event_teller,) if one is not None),
                    self._leave_routes(cleanup=cleanup),
                )
        except TimeoutError:
            _log.warning("the API server has not taken the last of what was to be told within %g s", within_s)
        finally:
            if self._writes is not None:
                await self._writes.close()

    async def _settle(self) -> None:
        if self._writes is not None:
            await self._writes.settled()

    async def _leave_routes(self, *, cleanup: bool) -> None:
        """The Lease last: who has it next would begin again."""
        if self._lease is None or self._routes is None:
            return
        if cleanup and self._lease.holds:
            await self._routes.leave()
        await self._lease.release()

    def _enrolled(self, life: Life) -> None:
        proofs = () if life.proofs is None else life.proofs.items()
        proved = ", ".join(name for name, proof in proofs if proof.status is ProofStatus.OK)
        message = "new TCP connections of the pod go through the mesh's proxy"
        self._events.record(
            life.pod, EventType.NORMAL, Reason.ENROLLED, f"{message}; proved: {proved}" if proved else message
        )

    def _count(self, kind: str, outcome: Outcome) -> None:
        self._metrics.written(kind, outcome.value)
