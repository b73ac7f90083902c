"""Policy as a test describes it: subsets with their endpoints and weights, made into the worker's values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from proxy.model.address import SocketAddress
from proxy.model.routing import (
    DEFAULT_RETRY,
    Backend,
    Endpoint,
    HttpRule,
    MissingBackend,
    Protocol,
    RetryPolicy,
    ServiceName,
    ServicePort,
    WeightedBackend,
)
from proxy.model.workload import Workload
from tests.netns.proxy.wire import Server

PATIENT_RETRY = replace(DEFAULT_RETRY, back_off_s=0.2)
"""A pause of 100 ms on average before a second try: long enough for a test to act in it."""

Destinations = Sequence[Server | SocketAddress]


@dataclass(frozen=True, slots=True)
class Subset:
    """A backend: where, how much of the traffic, and why it is missing if it is."""

    endpoints: Destinations
    weight: int = 1
    missing: str = ""


def service_port(
    address: SocketAddress,
    subsets: Sequence[Subset],
    protocol: Protocol,
    refused: str,
    retry: RetryPolicy,
    workloads: Mapping[str, Workload],
) -> ServicePort:
    """What stands behind `address`: one rule that splits requests over the subsets, v1, v2 and so on."""
    name = f"svc{address.host.replace('.', '-')}"
    service = ServiceName("default", name, f"{name}.default.svc.cluster.local")

    def backend(number: int, subset: Subset) -> Backend | MissingBackend:
        if subset.missing:
            return MissingBackend(service, address.port, f"v{number}", subset.missing)
        places = [SocketAddress(place.host, place.port) for place in subset.endpoints]
        endpoints = tuple(Endpoint(place, workloads[place.host]) for place in places)
        return Backend(service, address.port, f"v{number}", endpoints)

    backends = [backend(number, subset) for number, subset in enumerate(subsets, 1)]
    weighted = tuple(WeightedBackend(one.weight, made) for one, made in zip(subsets, backends, strict=True))
    everything = tuple(end for made in backends if isinstance(made, Backend) for end in made.endpoints)
    return ServicePort(
        service,
        address.port,
        protocol,
        Backend(service, address.port, "", everything),
        (HttpRule("default", weighted, retry),),
        refused,
    )


def workload(name: str, addresses: tuple[str, ...]) -> Workload:
    return Workload("default", name, name, "default", name, "v1", name, "v1", (), addresses)
