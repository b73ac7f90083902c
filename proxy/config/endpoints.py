"""Joins a Service's EndpointSlices with the pods behind them: who may be called at each of its ports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.config.index import ServiceKey
from proxy.config.objects import EndpointSlice, SliceEndpoint
from proxy.model.address import SocketAddress
from proxy.model.routing import Endpoint
from proxy.model.workload import UNKNOWN, Workload

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of a Service port, with the conditions that decide whether it is called."""

    endpoint: Endpoint
    ready: bool
    lingering: bool
    """Terminating but still serving."""


@dataclass(frozen=True, slots=True, eq=False)
class EndpointTable:
    """The candidates of one Service, by port name; `mentions` are the pods and addresses whose workload it tells."""

    ports: Mapping[str, Mapping[SocketAddress, Candidate]]
    mentions: frozenset[ServiceKey | str]

    def behind(self, port_name: str) -> Iterable[Candidate]:
        candidates = self.ports.get(port_name)
        return () if candidates is None else candidates.values()


NO_ENDPOINTS = EndpointTable({}, frozenset())


@dataclass(frozen=True, slots=True)
class Join:
    """`lent` are endpoints of before and of other ports, taken where they are equal; those that are made join them."""

    pods: Mapping[ServiceKey, Workload]
    workloads: Mapping[str, Workload]
    lent: dict[SocketAddress, list[Endpoint]]

    def table(self, slices: Iterable[EndpointSlice]) -> EndpointTable:
        """In the order of the slices; an address that several hold (it moved between them) is ready if one says so."""
        ports: dict[str, dict[SocketAddress, Candidate]] = {}
        mentions: set[ServiceKey | str] = set()
        for one in slices:
            for item in one.endpoints:
                mentions.update(item.addresses)
                if item.pod is not None:
                    mentions.add(item.pod)
            for name, number in one.ports:
                candidates = ports.setdefault(name, {})
                for item in one.endpoints:
                    for host in item.addresses:
                        address = SocketAddress(host, number)
                        known = candidates.get(address)
                        if known is None or not known.ready:
                            candidates[address] = self._candidate(address, item)
        return EndpointTable(ports, frozenset(mentions))

    def _candidate(self, address: SocketAddress, item: SliceEndpoint) -> Candidate:
        workload = self._workload(address.host, item.pod)
        lent = self.lent.setdefault(address, [])
        endpoint = next((one for one in lent if one.workload == workload), None)
        if endpoint is None:
            endpoint = Endpoint(address, workload)
            lent.append(endpoint)
        return Candidate(endpoint, item.ready, item.serving and item.terminating)

    def _workload(self, host: str, pod: ServiceKey | None) -> Workload:
        if pod is not None and pod in self.pods:
            return self.pods[pod]
        if host in self.workloads:
            return self.workloads[host]
        namespace, name = pod or (UNKNOWN, UNKNOWN)
        return Workload(namespace, name, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, (), (host,))


def by_address(endpoints: Iterable[Endpoint]) -> dict[SocketAddress, list[Endpoint]]:
    """Several at one address only where they tell of different workloads."""
    found: dict[SocketAddress, list[Endpoint]] = {}
    for endpoint in endpoints:
        same = found.setdefault(endpoint.address, [])
        if endpoint not in same:
            same.append(endpoint)
    return found


def usable(candidates: Iterable[Candidate], labels: Labels, ipv6: bool) -> tuple[Endpoint, ...]:
    """The endpoints to call, of those whose pod has all `labels`.

    Of the family of the address that the client called, if there is any: a pod may have no route in the other. Ready
    ones; only where there is none, those that still serve while they terminate (kube-proxy does the same,
    pkg/proxy/topology.go, CategorizeEndpoints).
    """
    matching = [c for c in candidates if not labels or set(labels).issubset(c.endpoint.workload.labels)]
    for same_family in (True, False):
        group = [c for c in matching if ((":" in c.endpoint.address.host) is ipv6) is same_family]
        found = [c.endpoint for c in group if c.ready] or [c.endpoint for c in group if c.lingering]
        if found:
            return tuple(found)
    return ()
