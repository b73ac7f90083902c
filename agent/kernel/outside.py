"""Which connections of a pod's network namespace live outside the mesh, as sockets and conntrack tell. Blocking."""

from collections.abc import Iterable

from agent.kernel import conntrack, sock_diag
from agent.plan import FlowKey, FlowTuple, OtherEnds, PlanSettings, opened_meanwhile, outside_the_mesh


def read(settings: PlanSettings) -> frozenset[FlowKey]:
    """All that live outside the mesh now. Raises OSError."""
    flows = sock_diag.established()
    return outside_the_mesh(flows, settings.steered_ports, other_ends(flows, settings))


def read_later(before: frozenset[FlowKey], settings: PlanSettings) -> frozenset[FlowKey]:
    """Those that opened between the reading `before` and the transaction that is done now. Raises OSError."""
    after = sock_diag.established()
    if not outside_the_mesh(after, settings.steered_ports) - before:
        return frozenset()
    again = sock_diag.established()
    return opened_meanwhile(before, after, again, settings.steered_ports, other_ends(again, settings))


def other_ends(flows: Iterable[FlowTuple], settings: PlanSettings) -> OtherEnds:
    """conntrack is asked only where something is steered: a fresh pod has nothing to tell, and is in a hurry."""
    return conntrack.other_ends() if any(flow.local_port in settings.steered_ports for flow in flows) else {}
