"""labelSelector and fieldSelector: which objects of a list or watch somebody wants."""

import re
from collections.abc import Callable
from typing import Any, Final

from tests.kube.refusals import bad_request
from tests.kube.resources import Body, Kept

Selects = Callable[[Body], bool]

_FIELDS: Final = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase",
            "status.podIP", "spec.hostNetwork"),
    "Event": ("involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "involvedObject.uid", "reason",
              "type", "reportingComponent"),
    "Secret": ("type",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
}  # fmt: skip
"""pkg/apis/core/v1/conversion.go: AddFieldLabelConversionFuncs; metadata.name and .namespace every kind has."""
_SET: Final = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")


def selector(kept: Kept, labels: str, fields: str) -> Selects:
    """Raises Refused 400."""
    wanted = [_requirement(one) for one in _split(labels)] + [_field(kept, one) for one in fields.split(",") if one]
    return lambda body: all(one(body) for one in wanted)


def _split(text: str) -> list[str]:
    """At commas that stand in no bracket."""
    return [one.strip() for one in re.split(r",(?![^(]*\))", text) if one.strip()]


def _requirement(text: str) -> Selects:
    if (found := _SET.match(text)) is not None:
        key, how, listed = found[1], found[2], {one.strip() for one in found[3].split(",")}
        if how == "in":
            return lambda body: _labels(body).get(key) in listed
        return lambda body: _labels(body).get(key) not in listed
    for sign, equal in (("!=", False), ("==", True), ("=", True)):
        if sign in text:
            key, value = (part.strip() for part in text.split(sign, 1))
            return lambda body: (_labels(body).get(key) == value) is equal
    if text.startswith("!"):
        return lambda body: text[1:] not in _labels(body)
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", text):
        raise bad_request(f"unable to parse requirement: found '{text}', expected: identifier")
    return lambda body: text in _labels(body)


def _field(kept: Kept, text: str) -> Selects:
    equal = "!=" not in text
    path, _, value = text.partition("=" if equal else "!=")
    path, value = path.removesuffix("=").strip(), value.removeprefix("=").strip()
    if path not in ("metadata.name", "metadata.namespace", *_FIELDS.get(kept.kind, ())):
        if kept.kind in _FIELDS or kept.custom:
            raise bad_request(f"field label not supported: {path}")
        known = 'only "metadata.name", "metadata.namespace"'
        raise bad_request(f'"{path}" is not a known field selector: {known}')
    return lambda body: (_at(body, path) == value) is equal


def _at(body: Body, path: str) -> str:
    value: Any = body
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _labels(body: Body) -> dict[str, str]:
    return body["metadata"].get("labels") or {}
