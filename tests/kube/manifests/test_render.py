"""daemonset/ → agent/manifests: the part of kustomize that is used, and nothing passed over."""

from pathlib import Path
from typing import Any

import pytest

from tests.kube.manifests.rendered import ROOT
from tools import render_manifests
from tools.render_manifests import NotRendered, merged, render

_BASE = "sortOptions: {order: fifo}\nresources: [one.yaml]\n"
_ONE = "{apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {a: '1'}}\n"


def _written(at: Path, **files: str) -> Path:
    for name, text in files.items():
        (at / f"{name}.yaml").write_text(text)
    return at


def test_what_is_shipped_is_what_daemonset_says() -> None:
    """Else: make manifests."""
    shipped = {path.name: path.read_text() for path in (ROOT / "agent/manifests").glob("*.yaml")}
    assert shipped == dict(render_manifests.texts())


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 3}}, {"a": 1, "b": {"c": 3, "d": 2}}),
        ({"a": 1, "b": 2}, {"b": None}, {"a": 1}),
        ({"args": ["x", "y"]}, {"args": ["z"]}, {"args": ["z"]}),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
            {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}, {"name": "A", "value": "1"}]},
        ),
        (
            {"volumeMounts": [{"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}]},
            {"volumeMounts": [{"mountPath": "/a", "$patch": "delete"}]},
            {"volumeMounts": [{"mountPath": "/b", "name": "v"}]},
        ),
        ({"a": 1}, {"volumes": [{"name": "v"}]}, {"a": 1, "volumes": [{"name": "v"}]}),
    ],
    ids=[
        "map in map",
        "null removes",
        "other lists as a whole",
        "items by key",
        "item deleted",
        "list that was not there",
    ],
)
def test_strategic_merge(old: dict[str, Any], change: dict[str, Any], new: dict[str, Any]) -> None:
    before = repr(old)
    assert merged(old, change, "patch.yaml") == new
    assert repr(old) == before


def test_patch_changes_the_object_that_it_names(tmp_path: Path) -> None:
    patch = _ONE.replace("a: '1'", "b: '2'")
    at = _written(tmp_path, kustomization=f"{_BASE}patches: [{{path: patch.yaml}}]\n", one=_ONE, patch=patch)
    assert render(at)[0]["data"] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"kustomization": f"{_BASE}images: []\n", "one": _ONE}, "images: not understood here"),
        ({"kustomization": "resources: [one.yaml]\n", "one": _ONE}, "sortOptions: must be"),
        ({"kustomization": _BASE, "one": f"{_ONE}---\n{_ONE}"}, "is there twice"),
        (
            {
                "kustomization": f"{_BASE}patches: [{{path: p.yaml}}]\n",
                "one": _ONE,
                "p": _ONE.replace("e: one", "e: two"),
            },
            "is not among the resources",
        ),
        (
            {"kustomization": f"{_BASE}patches: [{{path: p.yaml, target: {{}}}}]\n", "one": _ONE, "p": _ONE},
            "give each a path, and nothing else",
        ),
    ],
    ids=["unknown field", "another order", "twice", "patch of nothing", "patch with a target"],
)
def test_what_would_be_rendered_otherwise_than_by_kustomize_is_refused(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    with pytest.raises(NotRendered, match=told):
        render(_written(tmp_path, **files))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"env": [{"name": "X", "$patch": "delete"}]}, "is to be deleted and is not there"),
        ({"env": [{"name": "A", "$patch": "replace"}]}, "only delete is understood here"),
        ({"env": [{"value": "1"}]}, "an item without name"),
        ({"$patch": "replace"}, "has no place here"),
    ],
)
def test_patch_that_cannot_be_applied_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(NotRendered, match=told):
        merged({"env": [{"name": "A"}]}, change, "patch.yaml")
