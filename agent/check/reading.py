"""Kubernetes objects and agents' answers → facts. Pure; all of it is hostile."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agent.check.facts import AgentStatus, ClusterPod, DaemonSet, Namespace, Node, OwnPod, PodState
from agent.check.shapes import Shapeless, number, part, text
from agent.sources.kube_pod import node_pod
from agent.webhook.certificates import InvalidCertificates, certificates_in, span

_COMPONENT: Final = "app.kubernetes.io/component"


def namespace(body: dict[str, Any]) -> Namespace:
    metadata = part(body, "metadata")
    return Namespace(text(metadata, "name"), _texts(part(metadata, "labels")))


def node(body: dict[str, Any]) -> Node:
    info = part(body, "status", "nodeInfo")
    conditions = part(body, "status").get("conditions")
    return Node(
        text(part(body, "metadata"), "name"),
        text(info, "operatingSystem"),
        _condition(conditions, "Ready"),
        text(info, "kubeletVersion"),
    )


def daemonset(body: dict[str, Any]) -> DaemonSet:
    metadata, status = part(body, "metadata"), part(body, "status")
    containers = part(body, "spec", "template", "spec").get("containers") or [{}]
    first = containers[0] if isinstance(containers, list) and isinstance(containers[0], dict) else {}
    variables = {text(one, "name"): text(one, "value") for one in first.get("env") or () if isinstance(one, dict)}
    return DaemonSet(
        text(metadata, "namespace"),
        text(metadata, "name"),
        text(first, "image"),
        number(status, "desiredNumberScheduled"),
        number(status, "numberReady"),
        number(status, "updatedNumberScheduled"),
        variables,
        tuple(str(one) for one in first.get("args") or ()),
    )


def own_pod(body: dict[str, Any]) -> OwnPod:
    metadata, status = part(body, "metadata"), part(body, "status")
    return OwnPod(
        text(metadata, "name"),
        text(part(metadata, "labels"), _COMPONENT),
        text(part(body, "spec"), "nodeName"),
        _condition(status.get("conditions"), "Ready"),
        _waiting(status),
        "deletionTimestamp" in metadata,
    )


def _waiting(status: Mapping[str, Any]) -> str:
    for one in status.get("containerStatuses") or ():
        state = part(one, "state")
        for kind in ("waiting", "terminated"):
            if said := part(state, kind):
                message = text(said, "message")
                return f"{text(said, 'reason')}{f': {message}' if message else ''}"
    unmet = [text(one, "message") for one in status.get("conditions") or () if one.get("status") == "False"]
    return next((message for message in unmet if message), text(status, "phase"))


def cluster_pod(body: dict[str, Any]) -> ClusterPod:
    return ClusterPod(node_pod(body), text(part(body, "spec"), "nodeName"))


def agent_status(told: Any) -> AgentStatus:
    """Raises Shapeless, KeyError."""
    if not isinstance(told, dict):
        raise Shapeless("no object")
    states = (
        PodState(
            text(one, "namespace"), text(one, "name"), text(one, "state"), text(one, "reason"),
            tuple(map(str, one.get("failed_proofs") or ())),
        )
        for one in told["pods"]
    )  # fmt: skip
    return AgentStatus(
        text(told, "version"), told["proxy_connected"] is True, tuple(map(str, told["problems"])), tuple(states)
    )


def policies(configuration: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(text(one, "failurePolicy") or "Fail" for one in configuration.get("webhooks") or ())


def bundle_ends(configuration: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Of each webhook: when the last of its authorities ends, seconds since the epoch."""
    bundles = (text(part(one, "clientConfig"), "caBundle") for one in configuration.get("webhooks") or ())
    return tuple(map(_end, bundles))


def _end(bundle: str) -> float | None:
    try:
        return max(span(one).ends_s for one in certificates_in(base64.b64decode(bundle, validate=True)))
    except (InvalidCertificates, binascii.Error, ValueError):
        return None


def _condition(conditions: Iterable[Any] | None, kind: str) -> bool:
    return any(one.get("type") == kind and one.get("status") == "True" for one in conditions or ())


def _texts(pairs: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in pairs.items() if isinstance(value, str)}
