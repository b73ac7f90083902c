"""What whoever installs must be allowed to: read off the manifests. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_PLURALS: Final = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "Namespace": "namespaces",
    "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "PodMonitor": "podmonitors",
    "ResourceQuota": "resourcequotas",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
    "SecurityContextConstraints": "securitycontextconstraints",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
_VERBS: Final = ("create", "patch")
"""Of `kubectl apply`, the first time and again."""


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """`group` is empty for core, `namespace` for what is in none."""

    group: str
    resource: str
    verb: str
    namespace: str = ""


def needs_of(documents: Iterable[Mapping[str, Any]]) -> tuple[Need, ...]:
    """To apply these. Raises KeyError for a kind that is not known here."""
    found = set()
    for body in documents:
        group = body["apiVersion"].rpartition("/")[0]
        namespace = body["metadata"].get("namespace", "")
        found |= {Need(group, _PLURALS[body["kind"]], verb, namespace) for verb in _VERBS}
    return tuple(sorted(found))
