"""Which pods are left as they are, and which cannot have a sidecar at all. Everything in a pod is hostile."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent.inject.edits import part
from agent.inject.errors import Refused
from agent.inject.template import OUR_CONTAINERS, OUR_VOLUMES, PROXY_ID, PROXY_PORTS
from agent.pods import MESH_LABEL
from agent.printable import printable

INJECT: Final = "headgate.io/inject"
"""Label or annotation: `disabled` (or `false`) leaves the pod out, `enabled` goes before what other meshes' say."""
_OPT_OUTS: Final = (
    (INJECT, frozenset({"disabled", "false"})),
    (MESH_LABEL, frozenset({"disabled"})),
    ("sidecar.istio.io/inject", frozenset({"false"})),
    ("linkerd.io/inject", frozenset({"disabled"})),
    ("kuma.io/sidecar-injection", frozenset({"disabled", "false"})),
)
_PEERS: Final = frozenset(
    {"istio-proxy", "istio-init", "istio-validation", "linkerd-proxy", "linkerd-init", "linkerd-network-validator"}
    | {"kuma-sidecar", "kuma-init", "consul-dataplane", "consul-connect-inject-init"}
)
"""Containers as the meshes' own injectors name them."""
_STATUSES: Final = ("sidecar.istio.io/status", "linkerd.io/proxy-version", "kuma.io/sidecar-injected")
_LISTS: Final = ("initContainers", "containers", "volumes")
_SHOWN: Final = 80


def check_shape(pod: Mapping[str, Any]) -> None:
    """Raises Refused for what no API server takes for a pod."""
    for names in (("metadata",), ("spec",), ("spec", "securityContext")):
        if not isinstance(part(pod, *names), Mapping | None):
            raise Refused(".".join(names), "must be a mapping")
    for name in ("annotations", "labels"):
        found = part(pod, "metadata", name)
        if found is not None and not (isinstance(found, Mapping) and all(map(_is_text, found.values()))):
            raise Refused(f"metadata.{name}", "must be texts by text: put numbers and booleans into quotes")
    for name in _LISTS:
        found = part(pod, "spec", name)
        if found is not None and not (isinstance(found, list) and all(map(_is_named, found))):
            raise Refused(f"spec.{name}", "must be a list of mappings, each with a name")


def left_out(pod: Mapping[str, Any]) -> str:
    """Why it stays as it is, in an operator's words; empty when it does not. The shape is checked."""
    spec = pod.get("spec") or {}
    opted = _opted_out(pod)
    if opted:
        return opted
    if spec.get("hostNetwork") is True:
        return "is on the host's network: rules for it would steer the node"
    selected = part(spec, "nodeSelector", "kubernetes.io/os")
    if part(spec, "os", "name") == "windows" or selected == "windows":
        return "runs on Windows: the rules are Linux's"
    names = [container["name"] for container in containers(spec)]
    peer = next((name for name in names if name in _PEERS), None)
    if peer is not None:
        return f"has a mesh's proxy already: container {peer}"
    annotations = part(pod, "metadata", "annotations") or {}
    status = next((key for key in _STATUSES if key in annotations), None)
    if status is not None:
        return f"has a mesh's proxy already: annotation {status}"
    own = next((name for name in names if name in OUR_CONTAINERS), None)
    if own is not None:
        return f"has a sidecar of headgate's that was written by hand: container {own}"
    return "" if spec.get("containers") else "has no containers"


def check_room(pod: Mapping[str, Any]) -> None:
    """Raises Refused where the sidecar could not work beside what is there."""
    spec = pod.get("spec") or {}
    for volume in spec.get("volumes") or []:
        if volume["name"] in OUR_VOLUMES:
            raise Refused(f"volume {volume['name']}", "has the name of one that is to be added: give it another")
    pods_user = part(spec, "securityContext", "runAsUser")
    for container in containers(spec):
        name = f"container {printable(container['name'], _SHOWN)}"
        own = part(container, "securityContext", "runAsUser")
        if (pods_user if own is None else own) == PROXY_ID:
            reason = f"runs as user {PROXY_ID}, whom the rules take for the proxy: nothing of it would be steered"
            raise Refused(name, f"{reason}; give it another user")
        for port in _ports(container):
            number = port.get("containerPort")
            if number in PROXY_PORTS and port.get("protocol") in (None, "TCP"):
                taken = ", ".join(map(str, PROXY_PORTS))
                raise Refused(name, f"listens on {number}; the sidecar needs {taken}: give it another port")


def containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Init containers first. The shape is checked."""
    for key in ("initContainers", "containers"):
        yield from spec.get(key) or []


def _ports(container: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    listed = container.get("ports")
    yield from (port for port in listed if isinstance(port, Mapping)) if isinstance(listed, list) else ()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_named(value: object) -> bool:
    return isinstance(value, Mapping) and _is_text(value.get("name"))


def _opted_out(pod: Mapping[str, Any]) -> str:
    labels, annotations = (part(pod, "metadata", name) or {} for name in ("labels", "annotations"))
    said = {**annotations, **labels}  # a label is what selectors see
    if said.get(INJECT) in ("enabled", "true"):
        return ""
    found = next((key for key, values in _OPT_OUTS if said.get(key) in values), None)
    return "" if found is None else f"the pod says {found}: {printable(said[found], _SHOWN)}"
