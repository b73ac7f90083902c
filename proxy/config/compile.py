"""Objects in force to the PolicySnapshot that the workers follow. No effect, no clock: the same objects give an equal
snapshot."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from proxy.config.endpoints import EndpointTable, Labels, Workloads, join_pods, usable
from proxy.config.istio import CLUSTER_DOMAIN
from proxy.config.objects import (
    Admitted,
    DeclaredPort,
    Destination,
    EndpointSlice,
    HttpRoute,
    ObjectSet,
    Pod,
    RefusedRoute,
    Service,
    VirtualService,
)
from proxy.config.routes import Route, RouteTable, SubsetTable, hint, route_table, subset_table
from proxy.model.address import SocketAddress
from proxy.model.routing import (
    DEFAULT_RETRY,
    Backend,
    Endpoint,
    HttpRule,
    InboundPort,
    MissingBackend,
    Protocol,
    ServiceName,
    ServicePort,
    WeightedBackend,
)
from proxy.model.snapshot import PolicySnapshot, Rejection
from proxy.model.workload import UNKNOWN

IMPLICIT_RULE: Final = "default"
"""Name of the rule of a Service without a route object (Istio's name for such a route in access logs)."""
_NO_HTTP: Final = frozenset({Protocol.TCP, Protocol.TLS})


def compile_policy(objects: ObjectSet, previous: PolicySnapshot | None) -> PolicySnapshot:
    """The policy that `objects` amount to, one generation after `previous`; `previous` itself if nothing changed.

    What did not change is the same object as in `previous`. Never raises: what is wrong is in `rejections`.
    """
    compiler = _Compiler.of(objects, previous)
    services = compiler.services()
    snapshot = PolicySnapshot(
        1 if previous is None else previous.generation + 1,
        services,
        compiler.workloads.by_address,
        compiler.workloads.pods,
        compiler.inbound(),
        (
            *objects.problems,
            *(admitted.rejection for admitted in objects.admitted.values() if admitted.rejection is not None),
            *compiler.routes.rejections,
            *compiler.subsets.rejections,
            *compiler.conflicts,
        ),
    )
    return previous if previous is not None and _same(snapshot, previous) else snapshot


def _same(one: PolicySnapshot, other: PolicySnapshot) -> bool:
    return (
        one.services == other.services
        and one.workloads == other.workloads
        and one.pods == other.pods
        and one.inbound == other.inbound
        and one.rejections == other.rejections
    )


@dataclass(slots=True)
class _Compiler:
    known: dict[str, Service]
    """Services by host, in order of (namespace, name): the first wins where two claim one address."""
    workloads: Workloads
    endpoints: EndpointTable
    routes: RouteTable
    subsets: SubsetTable
    previous: PolicySnapshot | None
    conflicts: list[Rejection] = field(default_factory=list)
    _backends: dict[tuple[str, int, str, bool], Backend] = field(default_factory=dict)
    _names: dict[str, ServiceName] = field(default_factory=dict)

    @classmethod
    def of(cls, objects: ObjectSet, previous: PolicySnapshot | None) -> "_Compiler":
        by_kind = _by_kind(objects.admitted.values())
        services = sorted(
            (a.value for a in by_kind.get("Service", []) if isinstance(a.value, Service)),
            key=lambda service: (service.namespace, service.name),
        )
        known = {f"{service.name}.{service.namespace}.{CLUSTER_DOMAIN}": service for service in services}
        workloads = join_pods((a.value for a in by_kind.get("Pod", []) if isinstance(a.value, Pod)), previous)
        endpoints = EndpointTable(workloads, dict(_endpoints_of(previous)))
        for admitted in by_kind.get("EndpointSlice", []):
            if isinstance(admitted.value, EndpointSlice):
                endpoints.add(admitted.value)
        routes: list[tuple[Route, str]] = [
            (a.value, a.raw.source)
            for a in by_kind.get("VirtualService", [])
            if isinstance(a.value, VirtualService | RefusedRoute)
        ]
        subsets = subset_table(by_kind.get("DestinationRule", []))
        return cls(known, workloads, endpoints, route_table(routes, frozenset(known)), subsets, previous)

    def services(self) -> dict[SocketAddress, ServicePort]:
        before: Mapping[SocketAddress, ServicePort] = {} if self.previous is None else self.previous.services
        compiled: dict[SocketAddress, ServicePort] = {}
        for host, service in self.known.items():
            for address in service.cluster_ips:
                for port in service.ports:
                    key = SocketAddress(address, port.port)
                    if key in compiled:
                        self.conflicts.append(_address_taken(service, key, compiled[key].service))
                        continue
                    compiled[key] = self._service_port(host, service, port, ":" in address, before.get(key))
        return compiled

    def inbound(self) -> dict[SocketAddress, InboundPort]:
        """Unready endpoints too: what a port speaks does not change with its readiness."""
        before: Mapping[SocketAddress, InboundPort] = {} if self.previous is None else self.previous.inbound
        declared: dict[SocketAddress, InboundPort] = {}
        for host, service in self.known.items():
            for port in service.ports:
                made = InboundPort(self._name(host), port.protocol)
                for candidate in self.endpoints.behind(service.namespace, service.name, port.name):
                    address = candidate.endpoint.address
                    if address not in declared:
                        old = before.get(address)
                        declared[address] = old if old == made and old is not None else made
        return declared

    def _service_port(
        self, host: str, service: Service, port: DeclaredPort, ipv6: bool, old: ServicePort | None
    ) -> ServicePort:
        everything = self._backend(host, service, port, "", (), ipv6)
        implicit = HttpRule(IMPLICIT_RULE, (WeightedBackend(1, everything),), DEFAULT_RETRY)
        rules: tuple[HttpRule, ...] = (implicit,)
        refused = ""
        route = None if port.protocol in _NO_HTTP else self.routes.rules(host)
        if isinstance(route, RefusedRoute):
            refused = route.reason
        elif route is not None:
            rules = tuple(self._rule(http, route, port.port, ipv6) for http in route.routes)
        made = ServicePort(self._name(host), port.port, port.protocol, everything, rules, refused)
        return made if old is None else _shared(made, old)

    def _rule(self, http: HttpRoute, route: VirtualService, called_port: int, ipv6: bool) -> HttpRule:
        # With several destinations one of weight 0 gets nothing; a single one gets everything whatever it has (Istio
        # pilot/pkg/networking/core/route, B.1 of the reference).
        chosen = [d for d in http.destinations if d.weight > 0] if len(http.destinations) > 1 else http.destinations
        backends = tuple(
            WeightedBackend(d.weight, self._destination(d, f"{route.key}", called_port, ipv6)) for d in chosen
        )
        return HttpRule(http.name, backends, DEFAULT_RETRY)

    def _destination(self, wanted: Destination, route: str, called_port: int, ipv6: bool) -> Backend | MissingBackend:
        service = self.known.get(wanted.host)
        number = wanted.port or called_port
        if service is None:
            reason = f"{route} routes to {wanted.host}, which no Service has: {hint(wanted.host)}"
            return MissingBackend(self._name(wanted.host), number, wanted.subset, reason)
        if not wanted.port and len(service.ports) == 1:
            number = service.ports[0].port
        port = next((port for port in service.ports if port.port == number), None)
        if service.external or port is None:
            return MissingBackend(
                self._name(wanted.host), number, wanted.subset, _no_port(route, service, wanted.host, number)
            )
        labels: Labels = ()
        if wanted.subset:
            found = self.subsets.labels.get(wanted.host, {}).get(wanted.subset)
            if found is None:
                return MissingBackend(self._name(wanted.host), number, wanted.subset, self._no_subset(route, wanted))
            labels = found
        return self._backend(wanted.host, service, port, wanted.subset, labels, ipv6)

    def _no_subset(self, route: str, wanted: Destination) -> str:
        reason = f"{route} routes to subset {wanted.subset} of {wanted.host}, which no DestinationRule defines: "
        if wanted.host in self.subsets.broken:
            return reason + f"{self.subsets.broken[wanted.host]} is rejected, correct it"
        return reason + f"add the subset to a DestinationRule for {wanted.host}"

    def _backend(
        self, host: str, service: Service, port: DeclaredPort, subset: str, labels: Labels, ipv6: bool
    ) -> Backend:
        key = (host, port.port, subset, ipv6)
        if key not in self._backends:
            candidates = self.endpoints.behind(service.namespace, service.name, port.name)
            self._backends[key] = Backend(self._name(host), port.port, subset, usable(candidates, labels, ipv6))
        return self._backends[key]

    def _name(self, host: str) -> ServiceName:
        if host not in self._names:
            service = self.known.get(host)
            namespace, name = (UNKNOWN, host) if service is None else (service.namespace, service.name)
            self._names[host] = ServiceName(namespace, name, host)
        return self._names[host]


def _by_kind(everything: Iterable[Admitted]) -> dict[str, list[Admitted]]:
    grouped: dict[str, list[Admitted]] = {}
    for admitted in everything:
        grouped.setdefault(admitted.raw.key.kind, []).append(admitted)
    return grouped


def _endpoints_of(previous: PolicySnapshot | None) -> Iterator[tuple[SocketAddress, Endpoint]]:
    for service_port in () if previous is None else previous.services.values():
        for endpoint in service_port.all_endpoints.endpoints:
            yield endpoint.address, endpoint
        for rule in service_port.rules:
            for weighted in rule.backends:
                if isinstance(weighted.backend, Backend):
                    for endpoint in weighted.backend.endpoints:
                        yield endpoint.address, endpoint


def _shared(made: ServicePort, old: ServicePort) -> ServicePort:
    """`made`, or as much of `old` as is equal to it: workers keep what they built for an object that stays."""
    if made == old:
        return old
    lent: list[Backend | MissingBackend] = [
        old.all_endpoints,
        *(weighted.backend for rule in old.rules for weighted in rule.backends),
    ]
    rules = []
    for rule in made.rules:
        backends = tuple(WeightedBackend(w.weight, _lend(w.backend, lent)) for w in rule.backends)
        renewed = replace(rule, backends=backends)
        rules.append(next((one for one in old.rules if one == renewed), renewed))
    everything = old.all_endpoints if old.all_endpoints == made.all_endpoints else made.all_endpoints
    return replace(made, all_endpoints=everything, rules=tuple(rules))


def _lend(made: Backend | MissingBackend, lent: list[Backend | MissingBackend]) -> Backend | MissingBackend:
    return next((old for old in lent if old == made), made)


def _no_port(route: str, service: Service, host: str, number: int) -> str:
    if service.external:
        return f"{route} routes to {host}, a Service of type ExternalName: not supported by this version"
    ports = ", ".join(str(port.port) for port in service.ports) or "none"
    return (
        f"{route} routes to port {number} of {host}, which has no such TCP port (it has {ports}): correct one of them"
    )


def _address_taken(service: Service, key: SocketAddress, owner: ServiceName) -> Rejection:
    return Rejection(
        f"Service {service.namespace}/{service.name}",
        "spec.clusterIPs",
        f"{key} belongs to Service {owner.namespace}/{owner.name}, which comes first by name",
        remedy="give each Service its own cluster address",
    )
