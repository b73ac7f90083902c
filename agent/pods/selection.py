"""Which pods of a node are selected for the mesh: by labels of the pod and of its namespace, as the operator chose."""

from dataclasses import dataclass
from typing import Final

from agent.pods.enrolment import MESH_LABEL
from agent.pods.pod import Pairs
from agent.printable import printable

EXCLUDED_NAMESPACES: Final = frozenset({"kube-system", "headgate-system"})
"""What pods of a node need to start at all, and our own (istio-cni excludes kube-system by default, too)."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A label, or an annotation where the mesh that it is of has it there (linkerd.io/inject). On a pod it counts
    before its namespace's, and there any other value takes the pod out (istio.io/dataplane-mode: none)."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


OURS: Final = Mark(MESH_LABEL, "enabled")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What of a pod decides. `sidecar`: the name of a container that is another mesh's proxy."""

    namespace: str
    marks: Pairs
    host_network: bool = False
    sidecar: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Ours decides first where a pod has it; of the others any selects."""

    marks: tuple[Mark, ...] = (OURS,)
    excluded_namespaces: frozenset[str] = EXCLUDED_NAMESPACES


def says_so(pod: Candidate, selection: Selection) -> bool:
    """Whether the pod itself has a mark, of whatever value."""
    keys = {mark.key for mark in selection.marks}
    return any(key in keys for key, _ in pod.marks)


def unselectable(pod: Candidate, selection: Selection) -> str:
    """Why it can never be ours, whatever its marks; empty when it can. Nothing in it is touched: rules that such a pod
    holds are its own proxy's."""
    if pod.host_network:
        return "is on the host's network: rules for it would steer the node"
    if pod.namespace in selection.excluded_namespaces:
        return f"namespace {pod.namespace} is excluded"
    if pod.sidecar:
        return f"has a proxy of its own: container {pod.sidecar}"
    return ""


def left_out(pod: Candidate, namespace_marks: Pairs, selection: Selection) -> str:
    """Why it is not selected, in an operator's words; empty when it is."""
    own, of_namespace = dict(pod.marks), dict(namespace_marks)
    marks = sorted(selection.marks, key=lambda mark: mark != OURS)
    for mark in marks:
        if mark.key in own and own[mark.key] == mark.value:
            return ""
        if mark.key in own:
            return f"the pod says {mark.key}: {printable(own[mark.key], 80)}"
    if any(of_namespace.get(mark.key) == mark.value for mark in marks):
        return ""
    return f"neither the pod nor namespace {pod.namespace} has {' or '.join(map(str, marks))}"
