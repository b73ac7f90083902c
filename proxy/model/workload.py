"""Who runs in a pod: what metrics label and policy matches."""

from dataclasses import dataclass

UNKNOWN = "unknown"
"""Istio's word for a label value that is not known; never an empty label (Kiali skips such series)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod as the mesh knows it.

    `name` is the workload (Deployment, StatefulSet …) behind the pod, `pod` the pod itself. `labels` are sorted pairs.
    `canonical_name` and `canonical_revision` follow istio/istio pkg/model/label.go.
    """

    namespace: str
    pod: str
    name: str
    service_account: str
    app: str
    version: str
    canonical_name: str
    canonical_revision: str
    labels: tuple[tuple[str, str], ...]
    addresses: tuple[str, ...]


NOBODY = Workload(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, (), ())
"""An address that no known pod owns."""
