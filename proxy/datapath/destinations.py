"""Where a pod's connections to one original address go, under the policy in force.

Looked up once for each original address of a pod, then remembered; a new policy generation renews what it changed and
keeps the upstreams (idle connections, counts, series) of endpoints that stay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.api.constants import DEFAULT_OPAQUE_PORTS
from proxy.datapath.labels import PASSTHROUGH
from proxy.datapath.pod import Pod
from proxy.datapath.pools import Pool, PoolSet
from proxy.datapath.upstream import Upstream
from proxy.http1.request import NO_REQUEST, RequestHead
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.routing import (
    DEFAULT_RETRY,
    Backend,
    Endpoint,
    HttpRule,
    Protocol,
    RetryPolicy,
    ServiceName,
    ServicePort,
)
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import NOBODY, Workload
from proxy.policy.split import advance, cumulative_weights, index_at

MAX_REMEMBERED: Final = 4096
"""Destinations of a pod; beyond it those that nothing uses are dropped. A crawler calls more addresses than that."""

MAX_CLIENTS_REMEMBERED: Final = 1024
"""Inbound upstreams (one a client address) of a destination; beyond it the unused ones are dropped."""


@dataclass(slots=True)
class RuleState:
    """A rule and the place its split has reached."""

    pools: tuple[Pool, ...]
    cumulative: tuple[float, ...]
    retry: RetryPolicy
    point: float

    def next_pool(self) -> Pool:
        if len(self.pools) == 1:
            return self.pools[0]
        self.point = advance(self.point)
        return self.pools[index_at(self.cumulative, self.point)]


@dataclass(slots=True, eq=False)
class Destination:
    """`rules` serve requests, `opaque` connections that are not HTTP, `refused` answers every request 500 with it.

    Inbound has one upstream for each client address, made by `inbound_upstream`.
    """

    pod: Pod
    direction: Direction
    original: SocketAddress
    protocol: Protocol
    service: ServiceName
    pools: PoolSet
    rules: tuple[RuleState, ...]
    opaque: Pool
    refused: str
    generation: int
    """Of the policy that this is true under; the number, or an idle connection would keep the whole old snapshot."""
    service_port: ServicePort | None
    clients: dict[str, Upstream]
    nowhere: Upstream
    """Carries the series of requests that reached no endpoint."""

    last_head: bytes = b""
    last_request: RequestHead = NO_REQUEST
    """The request that was parsed last, for connections whose first is alike."""

    inbound: bool = field(init=False)

    def __post_init__(self) -> None:
        self.inbound = self.direction is Direction.INBOUND

    def inbound_upstream(self, client: str) -> Upstream:
        found = self.clients.get(client)
        if found is None:
            if len(self.clients) >= MAX_CLIENTS_REMEMBERED:
                self._forget_unused_clients()
            pod, policy = self.pod, self.pod.node.policy
            peer = NOBODY if policy is None else policy.workloads.get(client, NOBODY)
            source = pod.node.standing.source(client, self.original.host)
            found = Upstream(pod, self.direction, self.original, self.service, peer, pod.workload, source)
            self.clients[client] = found
        return found

    def upstreams(self) -> Iterator[Upstream]:
        """All that were used so far and are not retired."""
        yield from self.pools.upstreams()
        yield from self.clients.values()

    def retire(self) -> None:
        """The pod leaves, or is somebody else from now on: connections in use end with their requests."""
        self.pools.end()
        for upstream in self.upstreams():
            upstream.retire()

    def forget_strangers(self, workloads: Mapping[str, Workload]) -> None:
        """Clients whose address belongs to another workload now: their series carry the old one's name."""
        for client, upstream in list(self.clients.items()):
            if workloads.get(client, NOBODY) is not upstream.peer:
                self.clients.pop(client).retire()

    def _forget_unused_clients(self) -> None:
        self.clients = {c: u for c, u in self.clients.items() if u.active or u.idle}


def destination_of(pod: Pod, direction: Direction, original: SocketAddress, policy: PolicySnapshot) -> Destination:
    """What is remembered, renewed if `policy` is another than it was made under. What did not change from one
    generation to the next is the same object (proxy.policy.staging): compared by identity."""
    key = (direction, original.host, original.port)
    known = pod.destinations.get(key)
    if known is not None and known.generation == policy.generation:
        return known
    make = _outbound if direction is Direction.OUTBOUND else _inbound
    made = make(pod, original, policy, known)
    pod.destinations[key] = made
    if known is not None and known is not made:
        made.pools.replace(known.pools)
        for upstream in known.clients.values():
            upstream.retire()
    return made


def forget_unused(pod: Pod) -> None:
    """Called every tick."""
    if len(pod.destinations) <= MAX_REMEMBERED:
        return
    for key, destination in tuple(pod.destinations.items()):
        if not any(u.active or u.idle or u.callers for u in destination.upstreams()):
            del pod.destinations[key]


def _outbound(pod: Pod, original: SocketAddress, policy: PolicySnapshot, known: Destination | None) -> Destination:
    service_port = policy.services.get(original)
    if known is not None and known.service_port is service_port and service_port is not None:
        known.generation = policy.generation
        return known
    service = PASSTHROUGH if service_port is None else service_port.service
    workload = policy.workloads.get(original.host, NOBODY)
    still_unowned = known is not None and service_port is None and known.service_port is None
    if known is not None and still_unowned and known.opaque.endpoints[0].workload is workload:
        known.generation = policy.generation
        return known
    nowhere = Upstream(pod, Direction.OUTBOUND, original, service, pod.workload, NOBODY)
    pools = PoolSet(pod) if known is None else PoolSet(pod, known.pools.made)
    if service_port is None:
        pool = pools.of(Backend(service, original.port, "", (Endpoint(original, workload),)))
        rules: tuple[RuleState, ...] = (RuleState((pool,), (1.0,), DEFAULT_RETRY, 0.0),)
        protocol, refused = _undeclared(original.port), ""
    else:
        pool = pools.of(service_port.all_endpoints)
        rules = tuple(_rule(pools, rule) for rule in service_port.rules)
        protocol = service_port.protocol
        if protocol is Protocol.UNDECLARED:
            protocol = _undeclared(original.port)
        refused = service_port.refused
    return Destination(
        pod,
        Direction.OUTBOUND,
        original,
        protocol,
        service,
        pools,
        rules,
        pool,
        refused,
        policy.generation,
        service_port,
        {},
        nowhere,
    )


def _inbound(pod: Pod, original: SocketAddress, policy: PolicySnapshot, known: Destination | None) -> Destination:
    declared = policy.inbound.get(original)
    service = PASSTHROUGH if declared is None else declared.service
    protocol = Protocol.UNDECLARED if declared is None else declared.protocol
    if protocol is Protocol.UNDECLARED:
        protocol = _undeclared(original.port)
    if known is not None and known.service == service and known.protocol is protocol:
        known.generation = policy.generation
        known.forget_strangers(policy.workloads)
        return known
    nowhere = Upstream(pod, Direction.INBOUND, original, service, NOBODY, pod.workload)
    pools = PoolSet(pod)
    nothing = pools.of(Backend(service, original.port, "", ()))
    return Destination(
        pod,
        Direction.INBOUND,
        original,
        protocol,
        service,
        pools,
        (),
        nothing,
        "",
        policy.generation,
        None,
        {},
        nowhere,
    )


def _undeclared(port: int) -> Protocol:
    return Protocol.TCP if port in DEFAULT_OPAQUE_PORTS else Protocol.UNDECLARED


def _rule(pools: PoolSet, rule: HttpRule) -> RuleState:
    return RuleState(
        tuple(pools.of(weighted.backend) for weighted in rule.backends),
        cumulative_weights(tuple(weighted.weight for weighted in rule.backends)),
        rule.retry,
        pools.pod.node.chance.random(),
    )
