"""The node's rules for probes, as the agent reaches them: in the node's namespace, wherever the agent's own is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.errors import CannotStart
from agent.kernel import node_rules
from agent.kernel.netns import NetnsRefused, NetnsThreads, OpenNetns, open_netns
from agent.kernel.node_rules import Held
from agent.plan import ProbeSettings
from agent.plan.node_rules import Pods, wanted_pods


class Mechanism(Protocol):
    """What they are made of: agent.kernel.node_rules, or its like. Called inside the node's namespace."""

    def read(self, probes: ProbeSettings, /) -> Held: ...

    def put(self, probes: ProbeSettings, held: Held, wanted: Pods, /) -> None: ...

    def remove(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class NodeTable:
    """`netns`: the node's; kept open, for it ends with the node alone."""

    settings: ProbeSettings
    netns: OpenNetns
    threads: NetnsThreads
    mechanism: Mechanism = node_rules

    async def put_right(self, steered: Pods, settling: frozenset[str]) -> tuple[Held, Pods]:
        """What was found, and whose addresses are in force now. Raises KernelRefused, also where somebody changed it
        meanwhile; OSError."""
        return await self.threads.run(self.netns, self._put_right, steered, settling)

    async def remove(self) -> bool:
        """Whether there was something. Raises KernelRefused, OSError."""
        return await self.threads.run(self.netns, self.mechanism.remove)

    def _put_right(self, steered: Pods, settling: frozenset[str]) -> tuple[Held, Pods]:
        held = self.mechanism.read(self.settings)
        wanted = wanted_pods(held.pods, steered, settling)
        self.mechanism.put(self.settings, held, wanted)
        return held, wanted


def open_node(path: Path) -> OpenNetns:
    """The agent's own namespace is the node's where it is on the host's network. Raises CannotStart."""
    try:
        return open_netns(path, allow_own=True)
    except (NetnsRefused, OSError) as error:
        raise CannotStart(f"--node-netns {path}: {error}; give the node's, as /host/proc/1/ns/net") from error
