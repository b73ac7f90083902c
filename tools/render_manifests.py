"""daemonset/ → agent/manifests/: what `headgate install` prints, rendered when headgate is built.

The part of kustomize that daemonset/ is written in, so that `kubectl apply -k daemonset/overlays/NAME` means the same:
`resources` and `patches` (strategic merge). Whatever else stands in a file is refused, never passed over.
Merging: Kubernetes' strategic-merge-patch.md; the lists' keys: patchMergeKey in k8s.io/api/core/v1/types.go.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "daemonset"
TARGET: Final = ROOT / "agent/manifests"
RENDERED: Final = {
    "base": "base",
    "gke": "overlays/gke",
    "k3s": "overlays/k3s",
    "openshift": "overlays/openshift",
    "pod-monitor": "overlays/pod-monitor",
    "repair": "overlays/repair",
    "taint": "overlays/taint",
    "webhook": "overlays/webhook",
    "webhook-openshift": "overlays/webhook-openshift",
}
"""By the name that the command line knows it by."""

_KNOWN: Final = frozenset({"apiVersion", "kind", "sortOptions", "resources", "patches"})
_FIFO: Final = {"order": "fifo"}
_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}
"""Lists that are merged item by item. Every other list is replaced as a whole."""
_DIRECTIVE: Final = "$patch"
_DELETE: Final = "delete"


class NotRendered(Exception):
    """What is written wrong: file, what, remedy."""


def render(directory: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization, in its order. Raises NotRendered."""
    path = directory / "kustomization.yaml"
    said = _one(path)
    if unknown := sorted(said.keys() - _KNOWN):
        raise NotRendered(f"{path}: {', '.join(unknown)}: not understood here; use {', '.join(sorted(_KNOWN))}")
    if said.get("sortOptions") != _FIFO:
        raise NotRendered(f"{path}: sortOptions: must be {_FIFO}, else kustomize has an order of its own")
    objects: list[dict[str, Any]] = []
    for name in said["resources"]:
        place = directory / name
        objects += render(place.resolve()) if place.is_dir() else _all(place)
    if twice := _twice(objects):
        raise NotRendered(f"{path}: {twice} is there twice")
    for patch in said.get("patches", []):
        objects = _patched(objects, patch, directory, path)
    return objects


def _patched(objects: list[dict[str, Any]], patch: dict[str, Any], directory: Path, path: Path) -> list[dict[str, Any]]:
    if patch.keys() != {"path"}:
        raise NotRendered(f"{path}: patches: give each a path, and nothing else")
    place = directory / patch["path"]
    change = _one(place)
    found = [index for index, one in enumerate(objects) if identity(one) == identity(change)]
    if len(found) != 1:
        raise NotRendered(f"{place}: {identity(change)} is not among the resources")
    (index,) = found
    return [*objects[:index], merged(objects[index], change, str(place)), *objects[index + 1 :]]


def merged(old: dict[str, Any], change: dict[str, Any], where: str) -> dict[str, Any]:
    """`old` with `change` in it; neither is touched. `where` is for errors only. Raises NotRendered."""
    new = dict(old)
    for key, value in change.items():
        if key == _DIRECTIVE:
            raise NotRendered(f"{where}: {_DIRECTIVE}: {value} has no place here")
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            new[key] = merged(old[key], value, f"{where}: {key}")
        elif isinstance(value, list) and key in _KEYS:
            new[key] = _merged_list(old.get(key, []), value, _KEYS[key], f"{where}: {key}")
        else:
            new[key] = value
    return new


def _merged_list(old: list[Any], change: list[Any], key: str, where: str) -> list[Any]:
    """What the change names comes first, as kustomize has it."""
    left = {item[key]: item for item in old}
    named = []
    for item in change:
        if key not in item:
            raise NotRendered(f"{where}: an item without {key}")
        name = item[key]
        former = left.pop(name, None)
        directive = item.get(_DIRECTIVE)
        if directive is None:
            named.append(item if former is None else merged(former, item, f"{where}: {name}"))
        elif directive != _DELETE:
            raise NotRendered(f"{where}: {name}: {_DIRECTIVE}: {directive}: only {_DELETE} is understood here")
        elif former is None:
            raise NotRendered(f"{where}: {name}: is to be deleted and is not there")
    return [*named, *left.values()]


def identity(one: dict[str, Any]) -> tuple[str, str, str, str]:
    """apiVersion, kind, namespace, name."""
    metadata = one["metadata"]
    return one["apiVersion"], one["kind"], metadata.get("namespace", ""), metadata["name"]


def _twice(objects: list[dict[str, Any]]) -> tuple[str, str, str, str] | None:
    seen = set()
    for one in map(identity, objects):
        if one in seen:
            return one
        seen.add(one)
    return None


def _all(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]


def _one(path: Path) -> dict[str, Any]:
    documents = _all(path)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise NotRendered(f"{path}: holds {len(documents)} documents instead of one")
    return documents[0]


def texts() -> Iterator[tuple[str, str]]:
    """File name and text of each. Raises NotRendered."""
    for name, place in RENDERED.items():
        yield f"{name}.yaml", yaml.safe_dump_all(render(SOURCE / place), sort_keys=False, width=120)


def main() -> int:
    try:
        made = dict(texts())
    except (NotRendered, yaml.YAMLError, OSError, KeyError, TypeError) as error:
        sys.stderr.write(f"render_manifests: {error!r}; nothing is written\n")
        return 1
    for old in TARGET.glob("*.yaml"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (TARGET / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
