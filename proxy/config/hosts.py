"""One Service with what stands behind it, and the Backends that are made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.config.endpoints import EndpointTable, Labels, usable
from proxy.config.objects import DeclaredPort, Service
from proxy.model.address import SocketAddress
from proxy.model.routing import Backend, InboundPort, ServiceName


@dataclass(slots=True, eq=False)
class Host:
    """A Service and its endpoints at one instant: made anew when either changes, so whoever used it sees by identity
    whether that still holds. `former` lends what is equal: its Backends and inbound ports."""

    name: ServiceName
    service: Service
    table: EndpointTable
    inbound: Mapping[SocketAddress, InboundPort]
    """The pods' own ports. Of unready endpoints too: what a port speaks does not change with its readiness."""
    _lent: dict[tuple[int, str, Labels, bool], Backend]
    _backends: dict[tuple[int, str, Labels, bool], Backend] = field(default_factory=dict)

    def backend(self, port: DeclaredPort, subset: str, labels: Labels, ipv6: bool) -> Backend:
        key = (port.port, subset, labels, ipv6)
        found = self._backends.get(key)
        if found is None:
            endpoints = usable(self.table.behind(port.name), labels, ipv6)
            made = Backend(self.name, port.port, subset, endpoints)
            old = self._lent.get(key)
            found = self._backends[key] = old if old is not None and old == made else made
        return found


def make_host(
    name: ServiceName,
    service: Service,
    table: EndpointTable,
    former: Host | None,
    lent: Mapping[SocketAddress, InboundPort],
) -> Host:
    """`lent` are inbound ports of a former snapshot, taken where they are equal."""
    inbound: dict[SocketAddress, InboundPort] = {}
    lent = lent if former is None else former.inbound
    for port in service.ports:
        made = InboundPort(name, port.protocol)
        for candidate in table.behind(port.name):
            address = candidate.endpoint.address
            if address not in inbound:
                old = lent.get(address)
                if old is not None and old == made:
                    made = old
                inbound[address] = made
    if former is not None and former.inbound == inbound:
        return Host(name, service, table, former.inbound, former._backends)
    return Host(name, service, table, inbound, {} if former is None else former._backends)
