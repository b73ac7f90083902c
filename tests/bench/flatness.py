"""What a node holds while pods come and go, and whether it grows. Pure but for `take`."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from tests.bench import meter
from tests.bench.cluster_node import ClusterNode


@dataclass(frozen=True, slots=True)
class Holding:
    """At one instant. `links`: of the node, a veth a namespace that is not free yet. `nsids`: namespaces that the
    node's has numbers for. `rules`: lines of nft's listing of the node. `files`: of the run directory."""

    agent_fds: float
    agent_mb: float
    agent_threads: float
    supervisor_fds: float
    supervisor_mb: float
    worker_fds: float
    worker_mb: float
    links: float
    nsids: float
    rules: float
    conntrack: float
    files: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the last third's median may be above the first third's: a share of it, and an amount."""

    share: float
    amount: float

    def bound(self, first: float) -> float:
        return first * (1 + self.share) + self.amount


_MEMORY: Final = Tolerance(0.05, 3.0)
"""Of an allocator that keeps what a burst took: a leak of 100 bytes a pod would be 1.2 MB in 12,000 pods."""
_IN_FLIGHT: Final = Tolerance(0.05, 32.0)
"""Pods that come or go just then: sixteen at once (tests.bench.churn: _HANDS), each as two where the kernel takes the
former's namespace down meanwhile."""
_DESCRIPTORS: Final = Tolerance(0.05, 160.0)
"""Of those, up to ten each; a leak of one in each pod would be thousands."""
TOLERANCES: Final = {
    "agent_mb": _MEMORY,
    "supervisor_mb": _MEMORY,
    "worker_mb": _MEMORY,
    "agent_threads": Tolerance(0.0, 4.0),
    "agent_fds": _DESCRIPTORS,
    "worker_fds": _DESCRIPTORS,
    "supervisor_fds": _DESCRIPTORS,
    "rules": Tolerance(0.0, 0.0),
    "conntrack": Tolerance(0.25, 200.0),
}
"""Others: as what is in flight. conntrack forgets by itself, after minutes."""


EXACT: Final = ("links", "nsids", "rules", "files", "supervisor_fds", "worker_fds")
"""What equal numbers of pods hold equally many of, once all is at rest."""
IDLE_CONNECTIONS: Final = 16
"""To the API server, which the agent keeps for some seconds: by so many its descriptors may differ (7 were seen)."""


def not_returned(before: Holding, after: Holding) -> list[str]:
    """What a node at rest holds more of than before, with as many pods, in words."""
    found = [
        f"{name}: {getattr(before, name):g} before, {getattr(after, name):g} after"
        for name in EXACT
        if getattr(after, name) > getattr(before, name)
    ]
    if after.agent_fds > before.agent_fds + IDLE_CONNECTIONS:
        found.append(f"agent_fds: {before.agent_fds:g} before, {after.agent_fds:g} after")
    return found


def take(node: ClusterNode) -> Holding:
    agent, (supervisor, *workers) = node.lab.pid("agent"), meter.family(node.lab.pid("proxy"))
    return Holding(
        agent_fds=meter.descriptors(agent),
        agent_mb=meter.memory_mb(agent),
        agent_threads=meter.threads(agent),
        supervisor_fds=meter.descriptors(supervisor),
        supervisor_mb=meter.memory_mb(supervisor),
        worker_fds=sum(meter.descriptors(worker) for worker in workers),
        worker_mb=sum(meter.memory_mb(worker) for worker in workers),
        links=_lines(node, "ip", "-o", "link"),
        nsids=_lines(node, "ip", "netns", "list-id"),
        rules=_lines(node, "nft", "list", "ruleset"),
        conntrack=float(node.lab.node.call(_conntrack_entries)),
        files=float(sum(1 for path in node.lab.run_directory.rglob("*"))),
    )


def grown(samples: Sequence[Holding]) -> list[str]:
    """What grew beyond its tolerance, in words. ValueError for fewer than three samples."""
    if len(samples) < 3:
        raise ValueError(f"{len(samples)} samples have no thirds")
    third = len(samples) // 3
    found = []
    for field in fields(Holding):
        first, last = (statistics.median(getattr(one, field.name) for one in part) for part in _ends(samples, third))
        bound = TOLERANCES.get(field.name, _IN_FLIGHT).bound(first)
        if last > bound:
            found.append(f"{field.name}: {first:g} in the first third, {last:g} in the last; {bound:g} at most")
    return found


def _ends(samples: Sequence[Holding], third: int) -> tuple[Sequence[Holding], Sequence[Holding]]:
    return samples[:third], samples[-third:]


def _lines(node: ClusterNode, *command: str) -> float:
    return float(len(node.lab.node.run(command).stdout.splitlines()))


def _conntrack_entries() -> int:
    with open("/proc/thread-self/net/stat/nf_conntrack", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().splitlines()[1].split()[0], 16)
