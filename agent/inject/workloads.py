"""Which objects make pods, and where in them a pod's template is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.inject.edits import Path, part
from agent.inject.pod_security import ENFORCED

_TEMPLATE: Final[Path] = ("spec", "template")
_WORKLOADS: Final[dict[tuple[str, str], Path]] = {
    ("", "Pod"): (),
    ("", "ReplicationController"): _TEMPLATE,
    ("apps", "Deployment"): _TEMPLATE,
    ("apps", "StatefulSet"): _TEMPLATE,
    ("apps", "DaemonSet"): _TEMPLATE,
    ("apps", "ReplicaSet"): _TEMPLATE,
    ("batch", "Job"): _TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", *_TEMPLATE),
}
"""By API group and kind. Others' own kinds may have a template that looks like one and is not."""


@dataclass(frozen=True, slots=True)
class Workload:
    """`path`: of its object in the document; `pod`: of the template in the object. `namespace` is empty where none is
    written."""

    kind: str
    namespace: str
    name: str
    path: Path
    pod: Path

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def workloads(document: object) -> Iterator[Workload]:
    """Of the document itself, or of a List's items (what `kubectl get -o yaml` prints)."""
    for path, body in _objects(document):
        kind, version = _text(body, "kind"), _text(body, "apiVersion")
        pod = _WORKLOADS.get((version.rpartition("/")[0], kind))
        if version and pod is not None and isinstance(_at(body, pod), Mapping):
            namespace, name = _text(body, "metadata", "namespace"), _text(body, "metadata", "name")
            name = name or _text(body, "metadata", "generateName")
            yield Workload(kind, namespace, name, path, pod)


def pod_security_levels(document: object) -> Iterator[tuple[str, str]]:
    """(Namespace, what its label ENFORCED says), of Namespaces in the document."""
    for _, body in _objects(document):
        if _text(body, "kind") == "Namespace" and _text(body, "apiVersion") == "v1":
            yield _text(body, "metadata", "name"), _text(body, "metadata", "labels", ENFORCED)


def _objects(document: object) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if not isinstance(document, Mapping):
        return
    listed = document.get("items")
    if not _text(document, "kind").endswith("List") or not isinstance(listed, list):
        yield (), document
        return
    for index, item in enumerate(listed):
        if isinstance(item, Mapping):
            yield ("items", index), item


def _at(body: Mapping[str, Any], path: Path) -> object:
    return part(body, *map(str, path)) if path else body


def _text(of: Mapping[str, Any], *keys: str) -> str:
    value = part(of, *keys)
    return value if isinstance(value, str) else ""
