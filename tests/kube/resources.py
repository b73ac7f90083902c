"""What kinds an API server has: those it is born with, and what is particular to each."""

from dataclasses import dataclass, field
from typing import Any, Final

Body = dict[str, Any]
Key = tuple[str, str]

_WITHOUT_STATUS: Final = frozenset(
    (
        *("ClusterRole", "ClusterRoleBinding", "ConfigMap", "EndpointSlice", "Endpoints", "Event", "Lease"),
        *("MutatingWebhookConfiguration", "NetworkPolicy", "PriorityClass", "Role", "RoleBinding", "Secret"),
        *("ServiceAccount", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"),
    )
)


@dataclass(frozen=True)
class Change:
    version: int
    what: str
    body: Body
    before: Body | None = None  # for a watch with a selector: an object may leave what is selected


@dataclass
class Kept:
    """One resource. `forgotten`: versions up to this one are no longer in the history (410 for who asks)."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    custom: bool | None = None  # of a CRD; None: as its group says
    has_status: bool | None = None  # as a subresource; None: as its kind says
    objects: dict[Key, Body] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    forgotten: int = 0

    def __post_init__(self) -> None:
        if self.custom is None:
            self.custom = "." in self.group and (self.group, self.plural) not in _BORN_WITH
        if self.has_status is None:
            self.has_status = self.kind not in _WITHOUT_STATUS

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """schema.GroupResource: as error messages and RBAC have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def has_generation(self) -> bool:
        return bool(self.custom) or self.kind in ("Pod", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job")


_NAMESPACED: Final = (
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "Event", "events"),
    ("", "v1", "Endpoints", "endpoints"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("batch", "v1", "CronJob", "cronjobs"),
    ("batch", "v1", "Job", "jobs"),
    ("coordination.k8s.io", "v1", "Lease", "leases"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    ("events.k8s.io", "v1", "Event", "events"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
)
_CLUSTER_WIDE: Final = (
    ("", "v1", "Namespace", "namespaces"),
    ("", "v1", "Node", "nodes"),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses"),
)
_BORN_WITH: Final = frozenset((group, plural) for group, _, _, plural in _NAMESPACED + _CLUSTER_WIDE)


def builtins() -> list[Kept]:
    """Those that the agent, its installation and its users meet; a whole server has some forty more."""
    return [Kept(*one) for one in _NAMESPACED] + [Kept(*one, namespaced=False) for one in _CLUSTER_WIDE]
