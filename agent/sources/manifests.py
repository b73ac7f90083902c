"""YAML text to the Kubernetes objects in it, as they are: only apiVersion, kind and the name are looked at.

Built from libyaml's events: composing nodes recurses in C, and a file of brackets would end the agent. What a scalar
means follows Kubernetes' own reader (sigs.k8s.io/yaml: YAML 1.1 without timestamps), so that the proxy gets what the
API server would have made of the same text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from agent.printable import printable
from proxy.api.stream import ObjectName

MAX_DEPTH: Final = 64
"""Nesting; Kubernetes' own objects stay below 30."""
MAX_VALUES: Final = 2_000_000
"""Of one file, an alias counted as what it stands for. 10,000 pods need some 300,000."""

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")
_WORDS: Final[dict[str, object]] = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    spelling: word in ("true", "yes", "on")
    for word in ("true", "yes", "on", "false", "no", "off")
    for spelling in (word, word.title(), word.upper())
}
_TEXT_TAGS: Final = ("!", "tag:yaml.org,2002:str")
_NAME_LIMIT: Final = 253
"""A DNS subdomain (RFC 1123), the longest name of any object."""


class InvalidManifest(ValueError):
    """Text that is not YAML, exceeds a limit, or an object without a name; the message says where. Whoever wrote it
    must change it."""


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being filled; `before` values came before it, what an alias to it costs."""

    into: dict[str, Any] | list[Any]
    anchor: str | None
    before: int
    key: str | None = None


@dataclass(slots=True)
class _Builder:
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    values: int = 0
    root: Any = None

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.AliasEvent():
                if event.anchor not in self.anchors:
                    raise _error(event, "an alias without an anchor before it")
                value, cost = self.anchors[event.anchor]
                self._count(event, cost)
                self._add(event, value)
            case yaml.ScalarEvent():
                self._count(event, 1)
                if not self._is_key(event):
                    value = scalar_value(event)
                    if event.anchor:
                        self.anchors[event.anchor] = (value, 1)
                    self._add(event, value)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                into: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
                if len(self.open) >= MAX_DEPTH:
                    raise _error(event, f"nested deeper than {MAX_DEPTH}")
                self._add(event, into)
                self.open.append(_Open(into, event.anchor, self.values))
                self._count(event, 1)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = self.open.pop()
                if done.anchor:  # known only now: an alias inside its own anchor would make a cycle
                    self.anchors[done.anchor] = (done.into, self.values - done.before)

    def _count(self, event: yaml.Event, values: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise _error(event, f"more than {MAX_VALUES} values")

    def _is_key(self, event: yaml.ScalarEvent) -> bool:
        top = self.open[-1] if self.open else None
        if top is None or isinstance(top.into, list) or top.key is not None:
            return False
        if event.value == "<<" and event.implicit[0]:
            raise _error(event, "merge keys (<<) are not supported")
        if event.value in top.into:
            raise _error(event, f"key {printable(event.value, 80)} is there twice")
        top.key = event.value
        return True

    def _add(self, event: yaml.Event, value: Any) -> None:
        top = self.open[-1] if self.open else None
        if top is None:
            self.root = value
        elif isinstance(top.into, list):
            top.into.append(value)
        elif top.key is not None:
            top.into[top.key], top.key = value, None
        else:
            raise _error(event, "a key must be text")


def objects_in(text: str) -> Iterator[tuple[ObjectName, dict[str, object]]]:
    """The objects of all documents, a List's items one by one (what `kubectl get -o yaml` prints).

    Raises InvalidManifest.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
            if isinstance(event, yaml.DocumentEndEvent):
                if builder.root is not None:
                    yield from _named(builder.root, _line(event))
                builder = _Builder(values=builder.values)
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InvalidManifest):
            raise
        raise InvalidManifest(f"no YAML: {printable(' '.join(str(error).split()), 300)}") from error


def _named(document: object, line: int) -> Iterator[tuple[ObjectName, dict[str, object]]]:
    items: list[object] = [document]
    if isinstance(document, dict) and str(document.get("kind")).endswith("List"):
        listed = document.get("items")
        items = listed if isinstance(listed, list) else items
    for item in items:
        if not isinstance(item, dict):
            raise InvalidManifest(f"the document that ends in line {line} is no mapping")
        yield _name(item, line), item


def _name(body: dict[str, object], line: int) -> ObjectName:
    """A namespace that is not written is "default", as kubectl takes it."""
    metadata = body.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    texts = (body.get("apiVersion"), body.get("kind"), found.get("namespace") or "default", found.get("name"))
    for field_name, value in zip(("apiVersion", "kind", "metadata.namespace", "metadata.name"), texts, strict=True):
        if not isinstance(value, str) or not 0 < len(value) <= _NAME_LIMIT:
            raise InvalidManifest(f"the document that ends in line {line}: {field_name}: missing, or no short text")
    api_version, kind, namespace, name = map(str, texts)
    return ObjectName(api_version.rpartition("/")[0], kind, namespace, name)


def scalar_value(event: yaml.ScalarEvent) -> object:
    """What it means to Kubernetes. Raises InvalidManifest."""
    text = str(event.value)
    if event.tag is not None and event.tag not in _TEXT_TAGS:
        raise _error(event, f"tag {printable(event.tag, 80)} is not supported")
    if event.tag is not None or not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _error(event: yaml.Event, reason: str) -> InvalidManifest:
    return InvalidManifest(f"line {_line(event)}: {reason}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1
