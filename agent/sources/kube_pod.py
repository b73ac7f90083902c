"""A Pod of the API server as the agent sees it. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from agent.pods import InvalidPod, IPAddress, Pairs, PodRef, sorted_pairs
from agent.pods.selection import Candidate
from agent.pods.told import TOLD

_OVER: Final = frozenset({"Succeeded", "Failed"})
_PROXIES: Final = frozenset({"istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane", "headgate-proxy"})
"""Containers' names as the meshes' own injectors give them."""
_STATIC_UID: Final = "kubernetes.io/config.hash"
_MIRROR: Final = "kubernetes.io/config.mirror"
"""Of a static pod's mirror: the uid that the kubelet itself goes by (kubelet/types/pod_update.go)."""
_HASH: Final = re.compile(r"[0-9a-f]{32}")
"""What it is (kubelet/config/common.go: applyDefaults). Anybody may write annotations: no other pod's uid may be taken
for one's own by them, and no such uid looks like this."""


@dataclass(frozen=True, slots=True)
class NodePod:
    """`known_as`: the uid in the names of its cgroups. `over`: it has finished, and its address may be another's.
    `told`: of its annotations those that an agent writes itself; `ref` has the others, so that none hears its own
    voice."""

    ref: PodRef
    candidate: Candidate
    known_as: str
    over: bool
    told: Pairs = ()


def node_pod(body: object) -> NodePod:
    """Raises InvalidPod for what no API server sends; whoever sent it must change it."""
    if not isinstance(body, dict):
        raise InvalidPod("pod", "must be a mapping")
    metadata, spec, status = (_part(body, key) for key in ("metadata", "spec", "status"))
    labels, annotated = _pairs(metadata, "labels"), _pairs(metadata, "annotations")
    annotations = tuple(pair for pair in annotated if pair[0] not in TOLD)
    told = tuple(pair for pair in annotated if pair[0] in TOLD)
    ref = PodRef(
        _text(metadata, "uid"),
        _text(metadata, "namespace"),
        _text(metadata, "name"),
        _text(spec, "serviceAccountName") or "default",
        tuple(_addresses(status)),
        labels,
        annotations,
    )
    sidecar = next((name for name in _containers(spec) if name in _PROXIES), "")
    candidate = Candidate(
        ref.namespace, sorted_pairs((*labels, *annotations)), spec.get("hostNetwork") is True, sidecar
    )
    return NodePod(ref, candidate, _known_as(ref), _text(status, "phase") in _OVER, told)


def _known_as(ref: PodRef) -> str:
    static = ref.annotation(_STATIC_UID) or ""
    is_mirror = _HASH.fullmatch(static) is not None and ref.annotation(_MIRROR) == static
    return static if is_mirror else ref.uid.lower()


def _part(of: dict[str, Any], key: str) -> dict[str, Any]:
    value = of.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidPod(key, "must be a mapping")
    return value


def _text(of: dict[str, Any], key: str) -> str:
    value = of.get(key) or ""
    if not isinstance(value, str):
        raise InvalidPod(key, "must be text")
    return value


def _pairs(metadata: dict[str, Any], key: str) -> Pairs:
    found = _part(metadata, key)
    if not all(isinstance(value, str) for value in found.values()):
        raise InvalidPod(key, "must be texts")
    return sorted_pairs(found.items())


def _addresses(status: dict[str, Any]) -> Iterator[IPAddress]:
    listed = status.get("podIPs")
    given = [item.get("ip") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    for text in given or ([status["podIP"]] if status.get("podIP") else []):
        try:
            yield ip_address(str(text))
        except ValueError as error:
            raise InvalidPod("status.podIPs", f"{str(text)[:60]!r} is no address") from error


def _containers(spec: dict[str, Any]) -> Iterator[str]:
    """Native sidecars are init containers."""
    for key in ("initContainers", "containers"):
        listed = spec.get(key)
        for container in listed if isinstance(listed, list) else ():
            if isinstance(container, dict):
                yield str(container.get("name", ""))
