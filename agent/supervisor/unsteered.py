"""Connections that live outside the mesh, as the kernel tells inside a pod's network namespace. Blocking.

Which ones there are is read from sockets and conntrack; which ones are known, and why they are there, from the sets of
`inet headgate`: so an agent that begins knows what the one before it knew.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.kernel import conntrack, nft, sock_diag
from agent.kernel.refused import KernelRefused
from agent.plan import FlowKey, FlowTuple, OtherEnds, PlanSettings, outside_the_mesh
from agent.plan.render.nft import SLIPPED, forget_script, set_names


@dataclass(frozen=True, slots=True)
class Unsteered:
    """Living connections that go past the proxy. `grandfathered`: older than the rules; `slipped`: opened while the
    rules were missing."""

    grandfathered: frozenset[FlowKey] = frozenset()
    slipped: frozenset[FlowKey] = frozenset()

    @property
    def flows(self) -> frozenset[FlowKey]:
        return self.grandfathered | self.slipped

    def among(self, flows: frozenset[FlowKey]) -> "Unsteered":
        return Unsteered(self.grandfathered & flows, self.slipped & flows)

    def also(self, other: "Unsteered") -> "Unsteered":
        """Who is known here for one reason keeps it."""
        return Unsteered(
            self.grandfathered | (other.grandfathered - self.slipped),
            self.slipped | (other.slipped - self.grandfathered),
        )


def known() -> Unsteered:
    """What the sets in the kernel hold; nothing where there are none. Raises OSError."""
    grandfathered: set[FlowKey] = set()
    slipped: set[FlowKey] = set()
    for name in set_names():
        for flow, comment in (nft.connections(name) or {}).items():
            (slipped if comment == SLIPPED else grandfathered).add(flow)
    return Unsteered(frozenset(grandfathered), frozenset(slipped))


@dataclass(frozen=True, slots=True)
class Look:
    """`outside`: all that live outside the mesh. `cut`: application's ends of steered connections whose proxy's end is
    dead; they are not outside: what they send is translated, and reset."""

    outside: frozenset[FlowKey]
    cut: frozenset[FlowKey]


def look(settings: PlanSettings) -> Look:
    """By sockets and conntrack. Raises OSError."""
    flows = sock_diag.established()
    ends = conntrack.other_ends()
    outside = outside_the_mesh(flows, settings.steered_ports, ends)
    cut = frozenset(flow for flow in outside if flow in ends and ends[flow][1] in settings.steered_ports)
    return Look(outside - cut, cut)


def candidates(settings: PlanSettings) -> frozenset[FlowKey]:
    """All that may live outside the mesh, by the sockets alone: quick, and a few too many (B38). Raises OSError."""
    return outside_the_mesh(sock_diag.established(), settings.steered_ports)


def read(settings: PlanSettings) -> frozenset[FlowKey]:
    """All that live outside the mesh now. Raises OSError."""
    flows = sock_diag.established()
    return outside_the_mesh(flows, settings.steered_ports, other_ends(flows, settings))


def other_ends(flows: Iterable[FlowTuple], settings: PlanSettings) -> OtherEnds:
    """conntrack is asked only where something is steered: a fresh pod has nothing to tell, and is in a hurry."""
    return conntrack.other_ends() if any(flow.local_port in settings.steered_ports for flow in flows) else {}


def forget_ended(remembered: Unsteered, settings: PlanSettings) -> Unsteered:
    """Take connections that have ended out of the sets, and return those that live.

    A tuple that is used again belongs to a captured connection, which must not be let pass when conntrack forgets it.
    """
    living = remembered.among(read(settings))
    ended = remembered.flows - living.flows
    if ended:
        try:
            nft.apply(forget_script(ended))
        except KernelRefused:
            return known().among(living.flows)  # somebody emptied or replaced the sets: what they hold now counts
    return living


def end(flows: frozenset[FlowKey]) -> None:
    """Reset connections that are in the sets, where their resets can pass, and take them out. What this kernel cannot
    reset is forgotten by conntrack too: its next packet is dropped as a forgotten connection's. Raises OSError."""
    if not flows:
        return
    left = sock_diag.destroy(flows)
    try:
        nft.apply(forget_script(flows))
    except KernelRefused:
        return  # the sets were changed meanwhile; the sockets are gone, and what remains in a set is looked at later
    conntrack.forget(entry for flow in left for entry in _either_way(flow))


def _either_way(flow: FlowKey) -> tuple[conntrack.Tuple, conntrack.Tuple]:
    local, local_port, remote, remote_port = flow
    return (
        conntrack.Tuple(local, local_port, remote, remote_port),
        conntrack.Tuple(remote, remote_port, local, local_port),
    )
