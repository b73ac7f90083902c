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
    """`path`: of its object in the document; `pod`: of the template in the object. `namespace`, `name` and
    `generate_name` are empty where none is written."""

    kind: str
    namespace: str
    name: str
    generate_name: str
    path: Path
    pod: Path

    def __str__(self) -> str:
        if self.name:
            return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
        kind = f"{self.kind} in {self.namespace}" if self.namespace else self.kind
        return f'{kind} (generateName "{self.generate_name}")' if self.generate_name else f"{kind} without a name"


def workloads(document: object) -> Iterator[Workload]:
    """Of the document itself, or of a List's items (what `kubectl get -o yaml` prints)."""
    return (workload for workload, body in _all(document) if isinstance(_at(body, workload.pod), Mapping))


@dataclass(frozen=True, slots=True)
class Misplaced:
    """`path`: in the document, of what is no mapping and should be one that leads to `workload`'s pods."""

    workload: Workload
    path: Path

    @property
    def field(self) -> str:
        return ".".join(map(str, self._own))

    @property
    def remedy(self) -> str:
        below = ".".join(map(str, self.workload.pod[len(self._own) :]))
        what = f"{below} in it, the pods' template" if below else "the pods' metadata and spec"
        return f"must be a mapping with {what}; or take the object out"

    @property
    def _own(self) -> Path:
        return self.path[len(self.workload.path) :]


def misplaced(document: object) -> Iterator[Misplaced]:
    """What no API server takes for a workload, and would be passed over. One that says nothing at all of its pods is a
    part of something else: a patch."""
    for workload, body in _all(document):
        for length in range(1, len(workload.pod) + 1):
            path = workload.pod[:length]
            *above, key = path
            holder = _at(body, tuple(above))
            if isinstance(holder, Mapping) and key in holder and not isinstance(holder[key], Mapping):
                yield Misplaced(workload, (*workload.path, *path))


def _all(document: object) -> Iterator[tuple[Workload, Mapping[str, Any]]]:
    for path, body in _objects(document):
        kind, version = _text(body, "kind"), _text(body, "apiVersion")
        pod = _WORKLOADS.get((version.rpartition("/")[0], kind))
        if version and pod is not None:
            namespace, name, generate_name = (
                _text(body, "metadata", key) for key in ("namespace", "name", "generateName")
            )
            yield Workload(kind, namespace, name, generate_name, path, pod), body


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
