"""Joins EndpointSlices with Pods: who stands behind each Service port, and what each pod address is called."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from proxy.config.objects import EndpointSlice, Pod, SliceEndpoint
from proxy.model.address import SocketAddress
from proxy.model.routing import Endpoint
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import UNKNOWN, Workload

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of a Service port, with the conditions that decide whether it is called."""

    endpoint: Endpoint
    ready: bool
    lingering: bool
    """Terminating but still serving."""


@dataclass(frozen=True, slots=True)
class Workloads:
    """Pods by (namespace, name), and by the addresses that are theirs alone."""

    pods: dict[tuple[str, str], Workload]
    by_address: dict[str, Workload]


def join_pods(pods: Iterable[Pod], previous: PolicySnapshot | None) -> Workloads:
    """`previous` lends its Workload objects where they are equal. An address that two pods claim belongs to the
    younger: the other is on its way out."""
    before: Mapping[tuple[str, str], Workload] = {} if previous is None else previous.pods
    known: dict[tuple[str, str], Workload] = {}
    owners: dict[str, Pod] = {}
    for pod in pods:
        key = (pod.workload.namespace, pod.workload.pod)
        old = before.get(key)
        known[key] = old if old == pod.workload else pod.workload
        for address in pod.workload.addresses if pod.owns_addresses else ():
            if address not in owners or owners[address].created < pod.created:
                owners[address] = pod
    by_address = {address: known[(p.workload.namespace, p.workload.pod)] for address, p in owners.items()}
    return Workloads(known, by_address)


@dataclass(slots=True)
class EndpointTable:
    """Candidates by (namespace, Service), then port name, then address.

    `shared` are endpoints of the previous snapshot, lent where they are equal.
    """

    workloads: Workloads
    shared: dict[SocketAddress, Endpoint] = field(default_factory=dict)
    _services: dict[tuple[str, str], dict[str, dict[SocketAddress, Candidate]]] = field(default_factory=dict)

    def add(self, endpoint_slice: EndpointSlice) -> None:
        """Take in one slice; an address that several slices hold (it moved between them) is ready if one says so."""
        ports = self._services.setdefault((endpoint_slice.namespace, endpoint_slice.service), {})
        for name, number in endpoint_slice.ports:
            candidates = ports.setdefault(name, {})
            for item in endpoint_slice.endpoints:
                for host in item.addresses:
                    address = SocketAddress(host, number)
                    known = candidates.get(address)
                    if known is None or not known.ready:
                        candidates[address] = self._candidate(address, item)

    def behind(self, namespace: str, service: str, port_name: str) -> Iterable[Candidate]:
        return self._services.get((namespace, service), {}).get(port_name, {}).values()

    def _candidate(self, address: SocketAddress, item: SliceEndpoint) -> Candidate:
        endpoint = Endpoint(address, self._workload(address.host, item.pod))
        old = self.shared.get(address)
        return Candidate(old if old == endpoint else endpoint, item.ready, item.serving and item.terminating)

    def _workload(self, host: str, pod: tuple[str, str] | None) -> Workload:
        if pod is not None and pod in self.workloads.pods:
            return self.workloads.pods[pod]
        if host in self.workloads.by_address:
            return self.workloads.by_address[host]
        namespace, name = pod or (UNKNOWN, UNKNOWN)
        return Workload(namespace, name, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, (), (host,))


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
