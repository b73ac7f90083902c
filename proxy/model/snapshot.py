"""All policy in force at one instant."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.model.address import SocketAddress
from proxy.model.routing import InboundPort, ServicePort
from proxy.model.workload import Workload


@dataclass(frozen=True, slots=True)
class Rejection:
    """An object that is not in force (or only in its last good version, `stale`), and why.

    `object` is `Kind namespace/name`, `field` the path inside it (`spec.http[0].route[1].weight`), `remedy` what to do
    about it, `source` the file and line it was read from; the last two may be empty. All are printable ASCII.
    """

    object: str
    field: str
    reason: str
    stale: bool = False
    remedy: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """An immutable view of policy; consecutive snapshots share what did not change (same objects, not only equal).

    `services` is keyed by cluster address and port, `workloads` by pod address, `pods` by (namespace, pod name),
    `inbound` by pod address and port. `hot_pods` are those that several workers serve, with their number; it is for the
    supervisor, workers do not get it.
    """

    generation: int
    services: Mapping[SocketAddress, ServicePort]
    workloads: Mapping[str, Workload]
    pods: Mapping[tuple[str, str], Workload]
    inbound: Mapping[SocketAddress, InboundPort]
    rejections: tuple[Rejection, ...]
    hot_pods: Mapping[tuple[str, str], int] = field(default_factory=dict)
