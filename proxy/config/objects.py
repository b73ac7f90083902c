"""Kubernetes objects as headgate understands them: decoded, validated, not yet joined with one another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from proxy.model.routing import Protocol
from proxy.model.snapshot import Rejection
from proxy.model.workload import Workload


class ObjectKey(NamedTuple):
    """What makes an object unique. `group` is the API group ("" for core): the version is not part of identity."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class RawObject:
    """An object as it was read: `body` is its parsed JSON or YAML, `source` the place (`routes.yaml:12`)."""

    key: ObjectKey
    version: str
    created: str
    body: Mapping[str, object]
    source: str


@dataclass(frozen=True, slots=True)
class DeclaredPort:
    """A TCP port of a Service; `name` is "" where the Service gives none."""

    name: str
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Service:
    """`cluster_ips` is empty for a headless or ExternalName Service."""

    namespace: str
    name: str
    cluster_ips: tuple[str, ...]
    ports: tuple[DeclaredPort, ...]
    external: bool


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """`pod` is the target's (namespace, name), if it is a Pod; the flags are the API's conditions."""

    addresses: tuple[str, ...]
    ready: bool
    serving: bool
    terminating: bool
    pod: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """`ports` are (name, number) of TCP ports, joined with the Service's by name."""

    namespace: str
    name: str
    service: str
    ports: tuple[tuple[str, int], ...]
    endpoints: tuple[SliceEndpoint, ...]


@dataclass(frozen=True, slots=True)
class Pod:
    """`owns_addresses` is false where the addresses say nothing of this pod: on the host's network, or finished.
    `workers` serve it; `bad_workers` says what is wrong with the annotation that should tell their number."""

    workload: Workload
    owns_addresses: bool
    created: str
    workers: int = 1
    bad_workers: str = ""


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Age:
    """Order of competing objects: the oldest wins, then the name decides. "" (plain files) is oldest."""

    created: str
    name: str
    namespace: str

    def order(self) -> tuple[str, str, str]:
        return (self.created, self.name, self.namespace)


@dataclass(frozen=True, slots=True)
class Destination:
    """`port` 0 stands for: the only port, else the port that the client called."""

    host: str
    subset: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class HttpRoute:
    name: str
    destinations: tuple[Destination, ...]


@dataclass(frozen=True, slots=True)
class VirtualService:
    """`hosts` are full names or `*` prefixes; empty where the object serves gateways only."""

    key: ObjectKey
    age: Age
    hosts: tuple[str, ...]
    routes: tuple[HttpRoute, ...]


@dataclass(frozen=True, slots=True)
class RefusedRoute:
    """A route object that was rejected and has no good version: what it may have covered answers 500."""

    key: ObjectKey
    age: Age
    hosts: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Subset:
    name: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DestinationRule:
    key: ObjectKey
    age: Age
    host: str
    subsets: tuple[Subset, ...]


Decoded = Service | EndpointSlice | Pod | Namespace | VirtualService | RefusedRoute | DestinationRule


@dataclass(frozen=True, slots=True)
class Admitted:
    """One object's standing: what is in force (its last good version, if `rejection` is stale), and what is wrong."""

    raw: RawObject
    value: Decoded | None
    rejection: Rejection | None


@dataclass(frozen=True, slots=True)
class ObjectSet:
    """All objects at one instant, and problems that belong to no single one of them (unreadable files, duplicates)."""

    admitted: Mapping[ObjectKey, Admitted]
    problems: tuple[Rejection, ...]
