"""Objects as an operator writes them, and the way from their text to policy."""

from proxy.config.admission import admit
from proxy.config.compile import compile_policy
from proxy.config.fields import InvalidPolicy
from proxy.config.manifest import documents, raw_objects
from proxy.config.objects import ObjectSet, RawObject
from proxy.model.address import SocketAddress
from proxy.model.routing import Backend, MissingBackend, ServicePort
from proxy.model.snapshot import PolicySnapshot, Rejection

REVIEWS = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd96::10"]
  ports: [{name: http, port: 80, targetPort: 8080}]
"""

RATINGS = """
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {clusterIP: 10.96.0.20, ports: [{name: http, port: 9080}]}
"""

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, labels: {app: reviews, version: v1}}
status: {podIPs: [{ip: 10.1.0.1}, {ip: "fd01::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v2, labels: {app: reviews, version: v2}}
status: {podIPs: [{ip: 10.1.0.2}, {ip: "fd01::2"}]}
"""

SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-v4, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: reviews-v1}}
- {addresses: [10.1.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-v2}}
"""

SLICE6 = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-v6, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv6
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: ["fd01::1"], targetRef: {kind: Pod, name: reviews-v1}}
"""

SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"""

MESH = (REVIEWS, PODS, SLICE, SLICE6, SUBSETS)
"""A Service of two pods, and its subsets."""

VIP = SocketAddress("10.96.0.10", 80)
VIP6 = SocketAddress("fd96::10", 80)


def route(*destinations: str, name: str = "reviews", host: str = "reviews", metadata: str = "", more: str = "") -> str:
    """A VirtualService of one rule; a destination as `{host: reviews, subset: v1} 90`."""
    parts = (text.rpartition("}") for text in destinations)
    lines = "".join(
        f"    - destination: {body}{end}\n" + (f"      weight: {weight.strip()}\n" if weight.strip() else "")
        for body, end, weight in parts
    )
    return (
        f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}{metadata}}}\n"
        f"spec:\n  hosts: [{host}]\n  http:\n  - route:\n{lines}{more}"
    )


def split(v1: object, v2: object) -> str:
    return route(f"{{host: reviews, subset: v1}} {v1}", f"{{host: reviews, subset: v2}} {v2}")


def raws(*texts: str) -> list[RawObject]:
    found = []
    for number, text in enumerate(texts):
        for document in documents(text):
            for item in raw_objects(document.value, f"f{number}.yaml:{document.line}"):
                assert not isinstance(item, InvalidPolicy), item
                found.append(item)
    return found


def objects(*texts: str, previous: ObjectSet | None = None) -> ObjectSet:
    return admit(raws(*texts), (), previous)


def compiled(*texts: str) -> PolicySnapshot:
    return compile_policy(objects(*texts), None)


def shares(service_port: ServicePort) -> list[tuple[str, int]]:
    """What the first rule does, as (subset, weight)."""
    return [(weighted.backend.subset, weighted.weight) for weighted in service_port.rules[0].backends]


def addresses(backend: Backend | MissingBackend) -> list[str]:
    assert isinstance(backend, Backend), backend
    return [str(endpoint.address) for endpoint in backend.endpoints]


def only_rejection(*texts: str) -> Rejection:
    rejections = compiled(*texts).rejections
    assert len(rejections) == 1, rejections
    return rejections[0]
