"""Where a request or connection may go, and what is done when it fails."""

from dataclasses import dataclass
from enum import Enum

from proxy.model.address import SocketAddress
from proxy.model.workload import Workload


class Protocol(Enum):
    """What a Service port declares that it speaks (`appProtocol`, else the port name's prefix)."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    TLS = "tls"
    TCP = "tcp"
    UNDECLARED = "undeclared"
    """Nothing declared: the first bytes decide."""


@dataclass(frozen=True, slots=True)
class ServiceName:
    namespace: str
    name: str
    host: str
    """`name.namespace.svc.cluster.local`"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: SocketAddress
    workload: Workload


@dataclass(frozen=True, slots=True)
class Backend:
    """The ready endpoints of one Service port, or of one subset of it ("" for all). May be empty: 503 UH."""

    service: ServiceName
    port: int
    subset: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class MissingBackend:
    """A destination that no object defines (Envoy: cluster not found): 503 NC. `reason` names it and the remedy."""

    service: ServiceName
    port: int
    subset: str
    reason: str


class RetryOn(Enum):
    """Failures that may be tried again; names as in Envoy's x-envoy-retry-on."""

    CONNECT_FAILURE = "connect-failure"
    REFUSED_STREAM = "refused-stream"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"
    RETRIABLE_STATUS_CODES = "retriable-status-codes"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` retries after the first try; `back_off_s` is the base of the exponential, jittered pause."""

    attempts: int
    retry_on: frozenset[RetryOn]
    back_off_s: float


DEFAULT_RETRY = RetryPolicy(
    attempts=2,
    retry_on=frozenset({RetryOn.CONNECT_FAILURE, RetryOn.REFUSED_STREAM, RetryOn.UNAVAILABLE, RetryOn.CANCELLED}),
    back_off_s=0.025,
)
"""Istio's default when no object says otherwise (istio/istio pilot/pkg/networking/core/route/retry/retry.go;
back-off from Envoy's router filter, 25 ms)."""


@dataclass(frozen=True, slots=True)
class WeightedBackend:
    """`weight` is relative to the sum over the rule; zero only where a rule has this one backend alone."""

    weight: int
    backend: Backend | MissingBackend


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One rule of an HTTP route table; the first that matches wins. Matchers take their place here with the full
    policy: today every rule matches every request."""

    name: str
    backends: tuple[WeightedBackend, ...]
    retry: RetryPolicy


@dataclass(frozen=True, slots=True)
class ServicePort:
    """What stands behind one virtual address and port.

    `rules` is never empty: without a route object it is the one implicit rule to all endpoints. `all_endpoints` serves
    connections that are not HTTP. `refused`, if not empty, names the rejected route object for which no last good
    version exists: every HTTP request is answered 500 with this text.
    """

    service: ServiceName
    port: int
    protocol: Protocol
    all_endpoints: Backend
    rules: tuple[HttpRule, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True)
class InboundPort:
    """A pod's own port, as the Services that select the pod declare it; the first by (namespace, name) if several."""

    service: ServiceName
    protocol: Protocol
