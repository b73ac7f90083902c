"""Connections that live outside the mesh, as the kernel tells inside a pod's network namespace. Blocking.

Which ones there are is read from sockets and conntrack; which ones are known, and why they are there, from the sets of
`inet headgate`: so an agent that begins knows what the one before it knew.
"""

from dataclasses import dataclass

from agent.kernel import conntrack, nft, outside, sock_diag
from agent.kernel.refused import KernelRefused
from agent.plan import FlowKey, PlanSettings, outside_the_mesh
from agent.plan.render.nft import REPLANNED, SLIPPED, forget_script, set_names


@dataclass(frozen=True, slots=True)
class Unsteered:
    """Living connections that go past the proxy and would not, were they opened now. `grandfathered`: older than the
    rules; `slipped`: opened while the rules were missing; `replanned`: left alone by the rules that were in force."""

    grandfathered: frozenset[FlowKey] = frozenset()
    slipped: frozenset[FlowKey] = frozenset()
    replanned: frozenset[FlowKey] = frozenset()

    @property
    def flows(self) -> frozenset[FlowKey]:
        return self.grandfathered | self.slipped | self.replanned

    def among(self, flows: frozenset[FlowKey]) -> "Unsteered":
        return Unsteered(self.grandfathered & flows, self.slipped & flows, self.replanned & flows)

    def also(self, other: "Unsteered") -> "Unsteered":
        """Who is known here for one reason keeps it."""
        mine = self.flows
        return Unsteered(
            self.grandfathered | (other.grandfathered - mine),
            self.slipped | (other.slipped - mine),
            self.replanned | (other.replanned - mine),
        )


def known() -> Unsteered:
    """What the sets in the kernel hold; nothing where there are none. Raises OSError."""
    found: dict[str, set[FlowKey]] = {"": set(), SLIPPED: set(), REPLANNED: set()}
    for name in set_names():
        for flow, comment in (nft.connections(name) or {}).items():
            found.get(comment, found[""]).add(flow)
    return Unsteered(*(frozenset(found[comment]) for comment in ("", SLIPPED, REPLANNED)))


@dataclass(frozen=True, slots=True)
class Look:
    """`outside`: all that live outside the mesh. `cut`: application's ends of steered connections whose proxy's end is
    dead; they are not outside: what they send is translated, and reset."""

    outside: frozenset[FlowKey]
    cut: frozenset[FlowKey]


def look(settings: PlanSettings) -> Look:
    """By sockets and conntrack. Raises OSError."""
    flows = sock_diag.established()
    if not flows:  # as in a pod that is taken down; conntrack is dear
        return Look(frozenset(), frozenset())
    ends = conntrack.other_ends()
    past = outside_the_mesh(flows, settings.steered_ports, ends)
    cut = frozenset(flow for flow in past if flow in ends and ends[flow][1] in settings.steered_ports)
    return Look(past - cut, cut)


def candidates(settings: PlanSettings) -> frozenset[FlowKey]:
    """All that may live outside the mesh, by the sockets alone: quick, and a few too many (B38). Raises OSError."""
    return outside_the_mesh(sock_diag.established(), settings.steered_ports)


def forget_ended(remembered: Unsteered, settings: PlanSettings) -> Unsteered:
    """Take connections that have ended out of the sets, and return those that live.

    A tuple that is used again belongs to a captured connection, which must not be let pass when conntrack forgets it.
    """
    living = remembered.among(outside.read(settings))
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
