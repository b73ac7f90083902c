"""Who runs in a pod: the workload behind it and Istio's canonical names, derived from the Pod alone as Istio does."""

import re
from typing import Final

from proxy.config.fields import NAME, Node
from proxy.model.workload import UNKNOWN, Workload

_CRON_JOB: Final = re.compile(r"(.+)-[0-9]{8,10}")
"""A Job that a CronJob made: its name ends in the scheduled minute (as Istio tells them)."""

_WORKLOAD_NAME: Final = "service.istio.io/workload-name"
_CANONICAL_NAME: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_CANONICAL_REVISION: Final = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
"""Labels in the order of preference (istio/istio pkg/model/label.go)."""


def workload_of_pod(pod: Node, namespace: str, name: str, addresses: tuple[str, ...]) -> Workload:
    """The Workload of a Pod object; `pod` is its root. Raises InvalidPolicy on malformed metadata or spec."""
    metadata = pod.require("metadata")
    found = metadata.get("labels")
    pairs = () if found is None else found.labels()
    labels = dict(pairs)
    spec = pod.get("spec")
    account = spec.get("serviceAccountName") if spec is not None else None
    workload = labels.get(_WORKLOAD_NAME) or _owner_name(metadata, labels) or name
    return Workload(
        namespace=namespace,
        pod=name,
        name=workload,
        service_account="default" if account is None else account.matching(NAME, "a service account's name"),
        app=labels.get("app") or UNKNOWN,
        version=labels.get("version") or UNKNOWN,
        canonical_name=_first(labels, _CANONICAL_NAME) or workload,
        canonical_revision=_first(labels, _CANONICAL_REVISION) or "latest",
        labels=pairs,
        addresses=addresses,
    )


def _first(labels: dict[str, str], names: tuple[str, ...]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def _owner_name(metadata: Node, labels: dict[str, str]) -> str:
    """Name of the controller, "" if the pod stands alone; a ReplicaSet's or CronJob's Job stands for its maker.

    Only for generated names, as Istio: an operator's pods keep their own names.
    """
    if metadata.get("generateName") is None:
        return ""
    for reference in metadata.each("ownerReferences"):
        controller = reference.get("controller")
        if controller is None or not controller.flag():
            continue
        kind, owner = reference.require("kind").text(), reference.require("name").matching(NAME, "a name")
        if kind == "ReplicaSet":
            for label in ("pod-template-hash", "rollouts-pod-template-hash"):
                if labels.get(label) and owner.endswith("-" + labels[label]):
                    return owner[: -len(labels[label]) - 1]
        if kind == "ReplicationController":
            return labels.get("deploymentconfig") or owner
        if kind == "Job" and (scheduled := _CRON_JOB.fullmatch(owner)):
            return scheduled[1]
        return owner
    return ""
