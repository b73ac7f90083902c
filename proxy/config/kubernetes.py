"""Core Kubernetes kinds, decoded. Unknown fields are ignored, as Kubernetes expects of its clients; a field that is
read and malformed rejects the object."""

import re
from ipaddress import ip_address
from typing import Final

from proxy.config.fields import LABEL_NAME, NAME, Node
from proxy.config.objects import DeclaredPort, EndpointSlice, Namespace, ObjectKey, Pod, Service, SliceEndpoint
from proxy.config.protocols import declared_protocol
from proxy.config.text import quoted
from proxy.config.workload import workload_of_pod

_FINISHED: Final = frozenset({"Succeeded", "Failed"})
"""Phases after which a pod's address may belong to another."""
WORKERS_ANNOTATION: Final = "headgate.io/workers"
MAX_WORKERS_A_POD: Final = 64
"""As many as a proxy may have (`--workers`); where there are fewer, all of them serve the pod."""
_WORKERS: Final = re.compile(r"[1-9][0-9]?")
_SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
_PORT_NAME: Final = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?")
_FAMILY: Final = {"IPv4": 4, "IPv6": 6}


def decode_service(node: Node, key: ObjectKey) -> Service:
    """A Service; raises InvalidPolicy. Ports of other transports than TCP are left out."""
    spec = node.get("spec") or Node({}, "spec", node.owner)
    kind = spec.get("type")
    external = kind is not None and kind.text() == "ExternalName"
    ports: dict[int, DeclaredPort] = {}
    names: set[str] = set()
    for item in spec.each("ports"):
        port = _service_port(item)
        if port is None:
            continue
        if port.port in ports or port.name in names:
            raise item.fail(f"port {port.port} or its name is there twice", "give each port its own number and name")
        ports[port.port] = port
        names.add(port.name)
    return Service(key.namespace, key.name, () if external else _cluster_ips(spec), tuple(ports.values()), external)


def _service_port(item: Node) -> DeclaredPort | None:
    if not _is_tcp(item):
        return None
    name, app_protocol = _text(item, "name"), _text(item, "appProtocol")
    port_name = Node(name, f"{item.path}.name", item.owner).matching(_PORT_NAME, "a port name")
    return DeclaredPort(port_name, item.require("port").whole(1, 65535), declared_protocol(app_protocol, port_name))


def _cluster_ips(spec: Node) -> tuple[str, ...]:
    """Both families' addresses; none for a headless Service ("None")."""
    listed = spec.each("clusterIPs")
    single = spec.get("clusterIP")
    if not listed and single is not None:
        listed = [single]
    return tuple(dict.fromkeys(ip.address() for ip in listed if ip.text() not in ("None", "")))


def decode_endpoint_slice(node: Node, key: ObjectKey) -> EndpointSlice:
    """An EndpointSlice; raises InvalidPolicy. One of another address type than IPv4 and IPv6, or of no Service, has
    no endpoints."""
    labels = node.require("metadata").get("labels")
    owner = labels.get(_SERVICE_NAME_LABEL) if labels is not None else None
    service = "" if owner is None else owner.matching(NAME, "a Service's name")
    family = _FAMILY.get(node.require("addressType").text())
    if family is None or not service:
        return EndpointSlice(key.namespace, key.name, service, (), ())
    ports = tuple(
        # kube-proxy leaves out ports without a number too (pkg/proxy/endpointslicecache.go).
        (_text(item, "name"), number.whole(1, 65535))
        for item in node.each("ports")
        if _is_tcp(item) and (number := item.get("port")) is not None
    )
    endpoints = tuple(_slice_endpoint(item, family, key.namespace) for item in node.each("endpoints"))
    return EndpointSlice(key.namespace, key.name, service, ports, endpoints)


def _slice_endpoint(item: Node, family: int, namespace: str) -> SliceEndpoint:
    addresses = tuple(address.address() for address in item.require("addresses").items())
    if any(ip_address(address).version != family for address in addresses):
        raise item.fail(f"an address is not IPv{family}, the slice's addressType", "keep one slice a family")
    conditions = item.get("conditions") or Node({}, f"{item.path}.conditions", item.owner)
    # Absent means ready, and serving follows ready (API reference, EndpointConditions).
    ready = _flag(conditions, "ready", True)
    target, pod = item.get("targetRef"), None
    if target is not None and _text(target, "kind") == "Pod":
        name = target.require("name").matching(NAME, "a pod's name")
        other = target.get("namespace")
        pod = (namespace if other is None else other.matching(LABEL_NAME, "a namespace name"), name)
    terminating = _flag(conditions, "terminating", False)
    return SliceEndpoint(addresses, ready, _flag(conditions, "serving", ready), terminating, pod)


def decode_pod(node: Node, key: ObjectKey, created: str) -> Pod:
    """A Pod; raises InvalidPolicy. A pod on the host's network or a finished one owns no address."""
    status = node.get("status") or Node({}, "status", node.owner)
    spec = node.get("spec") or Node({}, "spec", node.owner)
    listed = [item.require("ip") for item in status.each("podIPs")]
    single = status.get("podIP")
    if not listed and single is not None:
        listed = [single]
    on_host = _flag(spec, "hostNetwork", False)
    owns = not on_host and _text(status, "phase") not in _FINISHED
    addresses = tuple(dict.fromkeys(ip.address() for ip in listed))
    workers, bad_workers = _workers(node.require("metadata"))
    return Pod(workload_of_pod(node, key.namespace, key.name, addresses), owns, created, workers, bad_workers)


def _workers(metadata: Node) -> tuple[int, str]:
    """How many workers serve the pod, and what is wrong with the annotation: a mistake there costs the pod nothing but
    the workers it asked for, and not its identity."""
    annotations = metadata.get("annotations")
    if annotations is None or not isinstance(annotations.value, dict):
        return 1, ""
    value = annotations.value.get(WORKERS_ANNOTATION, "1")
    if isinstance(value, str) and _WORKERS.fullmatch(value) and int(value) <= MAX_WORKERS_A_POD:
        return int(value), ""
    return 1, f"{quoted(value)} is not a number from 1 to {MAX_WORKERS_A_POD}"


def decode_namespace(node: Node, key: ObjectKey) -> Namespace:
    labels = node.require("metadata").get("labels")
    return Namespace(
        Node(key.name, "metadata.name", node.owner).matching(LABEL_NAME, "a namespace name"),
        () if labels is None else labels.labels(),
    )


def _is_tcp(item: Node) -> bool:
    return _text(item, "protocol") in ("", "TCP")


def _text(node: Node, key: str) -> str:
    found = node.get(key)
    return "" if found is None else found.text()


def _flag(node: Node, key: str, default: bool) -> bool:
    found = node.get(key)
    return default if found is None else found.flag()
