"""Of Kubernetes objects, what the mesh's classic pitfalls are told by. Pure.

An object that is malformed is the proxy's to refuse (proxy.config): what cannot be read here is taken for absent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from agent.pods import IPAddress, Pairs, sorted_pairs
from proxy.api.stream import ObjectName

_MUTUAL: Final = frozenset({"MUTUAL", "ISTIO_MUTUAL"})
_ISTIO: Final = "networking.istio.io"
_GATEWAY: Final = "gateway.networking.k8s.io"
_NO_PORT: Final = 0

_HasTimeout = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Probe:
    """`kind`: `liveness` or `readiness`; `port` 0: none that a number could be found for (an exec probe)."""

    container: str
    kind: str
    port: int
    initial_delay_s: int


@dataclass(frozen=True, slots=True)
class DeclaredPod:
    """`probes`: without those of containers that have a startupProbe, which holds the others back. `addresses`: of its
    status, none of a pod on the host's network."""

    namespace: str
    name: str
    labels: Pairs
    probes: tuple[Probe, ...]
    addresses: tuple[IPAddress, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class DeclaredService:
    """`addresses`: its VIPs; none of a headless one. `selector` empty: it selects nothing."""

    namespace: str
    name: str
    addresses: tuple[IPAddress, ...]
    selector: Pairs

    def selects(self, pod: DeclaredPod) -> bool:
        return bool(self.selector) and self.namespace == pod.namespace and set(self.selector) <= set(pod.labels)


@dataclass(frozen=True, slots=True)
class External:
    """Hosts of a ServiceEntry that lie outside the mesh."""

    where: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MutualTls:
    """A DestinationRule, or one port or subset of it, that asks for mutual TLS. `field` of the object."""

    where: str
    host: str
    field: str
    mode: str


@dataclass(frozen=True, slots=True)
class Endless:
    """A route object and the positions of its rules that have no time-out, from 0; `of`: how many rules it has."""

    where: str
    rules: tuple[int, ...]
    of: int


@dataclass(frozen=True, slots=True)
class Declared:
    pods: tuple[DeclaredPod, ...] = ()
    services: tuple[DeclaredService, ...] = ()
    external: tuple[External, ...] = ()
    mutual: tuple[MutualTls, ...] = ()
    endless: tuple[Endless, ...] = ()


def declared(objects: Iterable[tuple[ObjectName, Mapping[str, Any]]]) -> Declared:
    """Of all objects of a node's policy."""
    pods: list[DeclaredPod] = []
    services: list[DeclaredService] = []
    external: list[External] = []
    mutual: list[MutualTls] = []
    endless: list[Endless] = []
    for name, body in objects:
        spec = _mapping(body.get("spec"))
        match name.group, name.kind:
            case "", "Pod":
                pods.append(_pod(name, body, spec))
            case "", "Service":
                services.append(_service(name, spec))
            case group, "ServiceEntry" if group == _ISTIO and spec.get("location") != "MESH_INTERNAL":
                external.append(External(_where(name), tuple(_texts(spec.get("hosts")))))
            case group, "DestinationRule" if group == _ISTIO:
                mutual += _mutual(name, spec)
            case group, "VirtualService" if group == _ISTIO:
                endless += _endless(name, spec.get("http"), _has_istio_timeout)
            case group, "HTTPRoute" if group == _GATEWAY:
                endless += _endless(name, spec.get("rules"), _has_gateway_timeout)
    return Declared(tuple(pods), tuple(services), tuple(external), tuple(mutual), tuple(endless))


def _where(name: ObjectName) -> str:
    return f"{name.kind} {name.namespace}/{name.name}"


# ── Pods and Services ──────────────────────────────────────────────────────────────────────────────────────────────
def _pod(name: ObjectName, body: Mapping[str, Any], spec: Mapping[str, Any]) -> DeclaredPod:
    labels = _pairs(_mapping(body.get("metadata")).get("labels"))
    probes = tuple(probe for container in _mappings(spec.get("containers")) for probe in _probes(container))
    status = _mapping(body.get("status"))
    texts = [*(str(entry.get("ip")) for entry in _mappings(status.get("podIPs"))), *_texts([status.get("podIP")])]
    found = [] if spec.get("hostNetwork") else [address for text in texts if (address := _address(text)) is not None]
    return DeclaredPod(name.namespace, name.name, labels, probes, tuple(dict.fromkeys(found)))


def _probes(container: Mapping[str, Any]) -> Iterator[Probe]:
    if container.get("startupProbe"):
        return
    named = {port.get("name"): port.get("containerPort") for port in _mappings(container.get("ports"))}
    for kind in ("liveness", "readiness"):
        probe = container.get(f"{kind}Probe")
        if isinstance(probe, dict):
            handler = next((_mapping(probe.get(way)) for way in ("httpGet", "tcpSocket", "grpc") if way in probe), {})
            port = handler.get("port")
            number = named.get(port, _NO_PORT) if isinstance(port, str) else port
            yield Probe(str(container.get("name")), kind, _integer(number), _integer(probe.get("initialDelaySeconds")))


def _service(name: ObjectName, spec: Mapping[str, Any]) -> DeclaredService:
    texts = [*_texts(spec.get("clusterIPs")), *_texts([spec.get("clusterIP")])]
    addresses = dict.fromkeys(address for text in texts if (address := _address(text)) is not None)
    return DeclaredService(name.namespace, name.name, tuple(addresses), _pairs(spec.get("selector")))


# ── Policy ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _mutual(name: ObjectName, spec: Mapping[str, Any]) -> Iterator[MutualTls]:
    host = spec.get("host")
    if not isinstance(host, str):
        return
    places = [("spec.trafficPolicy", _mapping(spec.get("trafficPolicy")))]
    for number, subset in enumerate(_mappings(spec.get("subsets"))):
        places.append((f"spec.subsets[{number}].trafficPolicy", _mapping(subset.get("trafficPolicy"))))
    for field, policy in tuple(places):
        for number, port in enumerate(_mappings(policy.get("portLevelSettings"))):
            places.append((f"{field}.portLevelSettings[{number}]", port))
    for field, policy in places:
        mode = _mapping(policy.get("tls")).get("mode")
        if mode in _MUTUAL:
            yield MutualTls(_where(name), host, f"{field}.tls.mode", str(mode))


def _endless(name: ObjectName, rules: object, has_timeout: _HasTimeout) -> Iterator[Endless]:
    found = _mappings(rules)
    without = tuple(number for number, rule in enumerate(found) if not has_timeout(rule))
    if without:
        yield Endless(_where(name), without, len(found))


def _has_istio_timeout(rule: Mapping[str, Any]) -> bool:
    """`0s` disables it (Istio's HTTPRoute.timeout). What is answered without an upstream needs none."""
    if "redirect" in rule or "directResponse" in rule:
        return True
    return _lasts(rule.get("timeout"))


def _has_gateway_timeout(rule: Mapping[str, Any]) -> bool:
    """GEP-1742: `0s` disables it."""
    if any(entry.get("type") == "RequestRedirect" for entry in _mappings(rule.get("filters"))):
        return True
    timeouts = _mapping(rule.get("timeouts"))
    return _lasts(timeouts.get("request")) or _lasts(timeouts.get("backendRequest"))


def _lasts(duration: object) -> bool:
    return isinstance(duration, str) and any(digit in duration for digit in "123456789")


# ── What is there ──────────────────────────────────────────────────────────────────────────────────────────────────
def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _pairs(value: object) -> Pairs:
    return sorted_pairs((key, item) for key, item in _mapping(value).items() if isinstance(item, str))


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
