"""Which of the connections outside the mesh are where their pod wishes them. Blocking; inside the pod's namespace.

What a plan leaves alone has not slipped past it, is not to be reset, and is no concern of the sets. What a plan asks of
a connection is judged by agent.plan.judging; here is found out what it wants to know: who opened it, whose it is, and
which interface it came by.
"""

import functools
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from agent.kernel import conntrack, sock_diag
from agent.kernel.iproute import read_interface_addresses
from agent.plan import Direction, FlowKey, PlanSettings, RedirectPlan, Steering, plan_of, steerable
from agent.plan.judging import Opened, judge
from agent.plan.rules import Capture, Exempt, Rule, Stage
from agent.pods import IPAddress

_PLANS = 64


def steered(plan: RedirectPlan, settings: PlanSettings, flows: frozenset[FlowKey]) -> frozenset[FlowKey]:
    """Those that the plan would have led to the proxy, for certain. Raises OSError."""
    able = frozenset(flow for flow in flows if steerable(flow))
    if not able or _is_plain(plan, settings):
        return able
    known = _Known.read(able)
    return frozenset(flow for flow in able if judge(plan, known.opened(flow)).steered)


def concerned(plan: RedirectPlan, settings: PlanSettings, flows: frozenset[FlowKey]) -> frozenset[FlowKey]:
    """All but those that the plan leaves alone whoever sends: what arrives has no owner, so that an answer to an
    excluded user needs the sets to pass when conntrack does not know it. Raises OSError."""
    if not flows or _is_plain(plan, settings):
        return flows
    known = _Known.read(flows)
    return frozenset(
        flow
        for flow in flows
        if not steerable(flow) or judge(plan, known.opened(flow, owned=False)).steered is not False
    )


@functools.lru_cache(maxsize=_PLANS)
def _is_plain(plan: RedirectPlan, settings: PlanSettings) -> bool:
    """Nothing is left alone but what never is steered (`steerable` tells), so that nothing need be found out."""
    return _deciding(plan) == _deciding(plan_of(Steering(), settings))


def _deciding(plan: RedirectPlan) -> tuple[Rule, ...]:
    return tuple(
        rule
        for rule in plan.rules
        if isinstance(rule, Capture) or (isinstance(rule, Exempt) and rule.stage is Stage.CAPTURE)
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """`opened`: connections by their first packets, as conntrack has them. `serving`: ports that are listened on here,
    for connections that conntrack does not know. `users`: by socket."""

    first: frozenset[FlowKey]
    serving: frozenset[int]
    users: Mapping[FlowKey, int | None]
    interfaces: Mapping[IPAddress, str]

    @classmethod
    def read(cls, flows: frozenset[FlowKey]) -> "_Known":
        return cls(
            conntrack.opened(),
            frozenset(listener.port for listener in sock_diag.listeners()),
            {flow.key: flow.uid for flow in sock_diag.established() if flow.key in flows},
            _interfaces(),
        )

    def opened(self, flow: FlowKey, *, owned: bool = True) -> Opened:
        local, local_port, remote, remote_port = flow
        inbound = (remote, remote_port, local, local_port) in self.first
        if not inbound and flow not in self.first:
            inbound = local_port in self.serving
        interface = self.interfaces.get(local)
        if inbound:
            return Opened(Direction.INBOUND, remote, remote_port, local, local_port, interface=interface)
        uid = self.users.get(flow) if owned else None
        return Opened(Direction.OUTBOUND, local, local_port, remote, remote_port, uid, interface=interface)


def _interfaces() -> dict[IPAddress, str]:
    names: dict[IPAddress, str] = {}
    for found in read_interface_addresses():
        try:
            names[found.address] = socket.if_indextoname(found.interface)
        except OSError:  # it went meanwhile
            continue
    return names
