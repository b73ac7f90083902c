"""Pods to be injected, and the edits done by another's hand."""

from typing import Any

from agent.inject.edits import applied
from agent.inject.pod import injected
from agent.inject.template import Template

APP: dict[str, Any] = {"name": "app", "image": "app:1"}
NATIVE, ORDINARY = Template(), Template(native=False)


def pod(annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "web"}
    if annotations is not None:
        metadata["annotations"] = annotations
    if labels is not None:
        metadata["labels"] = labels
    return {"metadata": metadata, "spec": {"containers": [APP], **spec}}


def done(before: dict[str, Any], template: Template = NATIVE) -> dict[str, Any]:
    after: dict[str, Any] = applied(before, injected(before, template).edits)
    return after


def named(after: dict[str, Any], key: str) -> list[str]:
    return [one["name"] for one in after["spec"].get(key, [])]


def container(after: dict[str, Any], name: str) -> dict[str, Any]:
    spec = after["spec"]
    (found,) = (one for one in (*spec.get("initContainers", ()), *spec["containers"]) if one["name"] == name)
    assert isinstance(found, dict)
    return found


def patched(document: Any, operations: list[dict[str, Any]]) -> Any:
    """By RFC 6902, as an API server does: one after the other, in place of a copy."""
    for operation in operations:
        *path, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        document = _patched(document, path, last, operation)
    return document


def _patched(value: Any, path: list[str], last: str, operation: dict[str, Any]) -> Any:
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    if path:
        step: Any = int(path[0]) if isinstance(copy, list) else path[0]
        copy[step] = _patched(copy[step], path[1:], last, operation)
    elif operation["op"] == "remove":
        del copy[int(last) if isinstance(copy, list) else last]
    elif isinstance(copy, list):
        copy.insert(len(copy) if last == "-" else int(last), operation["value"])
    else:
        copy[last] = operation["value"]
    return copy
