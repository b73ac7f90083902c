"""The way of the node's probes to a pod, tried as kubelet goes it: from the node's namespace, by the node's rules."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from agent.kernel.iproute import read_addresses
from agent.kernel.netns import NetnsThreads, OpenNetns, open_netns
from agent.kernel.nft import RuleCounter
from agent.kernel.probe_path import UNUSED_PORT, dial, way_back
from agent.plan import ProbeSettings, RedirectPlan
from agent.pods import IPAddress
from agent.pods.probe_path import Back, ProbePath, Tried, judged
from agent.reconcile import Life
from agent.settings import AgentSettings
from agent.supervisor.node_table import NodeTable, open_node
from agent.supervisor.probes import NodeProbes
from agent.supervisor.reports import PodReports
from proxy.api.constants import PROOF_PORT

_COUNTED: Final = "in-capture-skip-probes{}"
_EARLIER: Final = frozenset({"in-capture-skip-interfaces"})
"""Rules of the stage before it that may take a probe: what arrives there is not counted."""

Counters = Callable[[Life], Awaitable[tuple[RuleCounter, ...]]]
"""agent.supervisor.effects.Effects.counters."""


@dataclass(frozen=True, slots=True)
class ProbeWays:
    settings: ProbeSettings
    node: OpenNetns
    threads: NetnsThreads
    counters: Counters

    async def own(self, life: Life) -> frozenset[IPAddress]:
        """The addresses that the pod's namespace has. Raises NetnsRefused, OSError."""
        with open_netns(life.netns_path, life.netns_id) as netns:
            return frozenset(await self.threads.run(netns, read_addresses))

    async def tried(self, life: Life, addresses: tuple[IPAddress, ...]) -> tuple[ProbePath, ...]:
        """To addresses of the pod. What is wrong is tried a second time, beside a connection that the node's rules
        leave alone. Raises KernelRefused, NetnsRefused, OSError."""
        first = await self._try(life, addresses)
        wrong = [tried.address for tried in first if not (tried.answered and tried.arrived is not False)]
        if not wrong:
            return tuple(judged(tried) for tried in first)
        others = await self._answers(wrong, PROOF_PORT)
        again = {tried.address: tried for tried in await self._try(life, wrong)}
        final = []
        for tried in first:
            last = again.get(tried.address, tried)
            back = await self._way_back(life, last) if last.arrived and not last.answered else last.back
            final.append(Tried(last.address, last.source, last.answered, last.arrived, last.address in others, back))
        return tuple(judged(tried) for tried in final)

    async def _try(self, life: Life, addresses: Iterable[IPAddress]) -> list[Tried]:
        wanted = tuple(addresses)
        before = await self._seen(life)
        answered = await self._answers(wanted, UNUSED_PORT)
        after = await self._seen(life)
        return [
            Tried(address, self._source(address), address in answered, _grew(before, after, address.version))
            for address in wanted
        ]

    async def _answers(self, addresses: Iterable[IPAddress], port: int) -> frozenset[IPAddress]:
        dialled = await self.threads.run(self.node, dial, tuple(addresses), port)
        try:
            return await dialled.answers()
        finally:
            dialled.close()

    async def _seen(self, life: Life) -> dict[int, int]:
        """By IP version: how many probes the pod's rules have let pass; of none that cannot be counted."""
        plan = life.plan_in_force
        countable = _countable(plan) if plan is not None else frozenset()
        counted = {counter.rule_id: counter.packets for counter in await self.counters(life)} if countable else {}
        return {version: counted[rule_id] for version in (4, 6) if (rule_id := _COUNTED.format(version)) in counted}

    async def _way_back(self, life: Life, tried: Tried) -> Back:
        with open_netns(life.netns_path, life.netns_id) as netns:
            return await self.threads.run(netns, way_back, tried.address, tried.source)

    def _source(self, address: IPAddress) -> IPAddress:
        return self.settings.source4 if address.version == 4 else self.settings.source6


def node_probes(
    settings: AgentSettings, stack: AsyncExitStack, threads: NetnsThreads, counters: Counters, reports: PodReports
) -> NodeProbes | None:
    """None where probes are to meet the proxy like anybody's. Closed by the stack. Raises CannotStart."""
    wanted, cluster = settings.life.plan.probes, settings.cluster
    if wanted is None or cluster is None or cluster.node_netns is None:
        return None
    netns = open_node(cluster.node_netns)
    stack.callback(netns.close)
    ways = ProbeWays(wanted, netns, threads, counters)
    return NodeProbes(NodeTable(wanted, netns, threads), ways.own, ways.tried, reports)


def _countable(plan: RedirectPlan) -> frozenset[str]:
    there = {rule.rule_id for rule in plan.rules}
    return frozenset() if there & _EARLIER else frozenset(_COUNTED.format(version) for version in (4, 6)) & there


def _grew(before: dict[int, int], after: dict[int, int], version: int) -> bool | None:
    if version not in before or version not in after:
        return None
    return after[version] != before[version]
