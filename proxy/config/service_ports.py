"""What one address and port of a Service amounts to: its rules, and the Backends that they name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from proxy.config.endpoints import Labels
from proxy.config.hosts import Host
from proxy.config.objects import DeclaredPort, Destination, HttpRoute, RefusedRoute, Service, VirtualService
from proxy.config.routes import Route, SubsetTable, hint
from proxy.model.routing import (
    DEFAULT_RETRY,
    Backend,
    HttpRule,
    MissingBackend,
    Protocol,
    ServiceName,
    ServicePort,
    WeightedBackend,
)

IMPLICIT_RULE: Final = "default"
"""Name of the rule of a Service without a route object (Istio's name for such a route in access logs)."""
_NO_HTTP: Final = frozenset({Protocol.TCP, Protocol.TLS})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a route may lead to: every Service by host, and the subsets."""

    hosts: Mapping[str, Host]
    subsets: SubsetTable
    name: Callable[[str], ServiceName]

    def used_by(self, host: Host, route: Route | None) -> tuple[object, ...]:
        """All that a Service's ports are made of, beside one another: while it is equal, so are they."""
        if not isinstance(route, VirtualService):
            return (host, route)
        used: list[object] = [host, route]
        for http in route.routes:
            for wanted in http.destinations:
                labels = self.subsets.labels.get(wanted.host, {}).get(wanted.subset)
                used += (self.hosts.get(wanted.host), labels, self.subsets.broken.get(wanted.host))
        return tuple(used)

    def service_port(
        self, host: Host, port: DeclaredPort, route: Route | None, ipv6: bool, old: ServicePort | None
    ) -> ServicePort:
        """`old` lends what is equal."""
        everything = host.backend(port, "", (), ipv6)
        implicit = HttpRule(IMPLICIT_RULE, (WeightedBackend(1, everything),), DEFAULT_RETRY)
        rules: tuple[HttpRule, ...] = (implicit,)
        refused = ""
        if port.protocol in _NO_HTTP:
            route = None
        if isinstance(route, RefusedRoute):
            refused = route.reason
        elif route is not None:
            rules = tuple(self._rule(http, route, port.port, ipv6) for http in route.routes)
        made = ServicePort(host.name, port.port, port.protocol, everything, rules, refused)
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
        host = self.hosts.get(wanted.host)
        service = None if host is None else host.service
        number = wanted.port or called_port
        if host is None or service is None:
            reason = f"{route} routes to {wanted.host}, which no Service has: {hint(wanted.host)}"
            return MissingBackend(self.name(wanted.host), number, wanted.subset, reason)
        if not wanted.port and len(service.ports) == 1:
            number = service.ports[0].port
        port = next((port for port in service.ports if port.port == number), None)
        if service.external or port is None:
            return MissingBackend(
                self.name(wanted.host), number, wanted.subset, _no_port(route, service, wanted.host, number)
            )
        labels: Labels = ()
        if wanted.subset:
            found = self.subsets.labels.get(wanted.host, {}).get(wanted.subset)
            if found is None:
                return MissingBackend(self.name(wanted.host), number, wanted.subset, self._no_subset(route, wanted))
            labels = found
        return host.backend(port, wanted.subset, labels, ipv6)

    def _no_subset(self, route: str, wanted: Destination) -> str:
        reason = f"{route} routes to subset {wanted.subset} of {wanted.host}, which no DestinationRule defines: "
        if wanted.host in self.subsets.broken:
            return reason + f"{self.subsets.broken[wanted.host]} is rejected, correct it"
        return reason + f"add the subset to a DestinationRule for {wanted.host}"


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
