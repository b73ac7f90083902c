"""YAML text to objects, bounded against hostile files: size, depth and nodes after expansion of aliases.

Works on libyaml's events rather than its composed nodes: composing recurses in C (a file of 100,000 brackets ends the
process) and builds everything before a limit can be checked.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import yaml

from proxy.config.fields import LABEL_NAME, NAME, InvalidPolicy, Node
from proxy.config.objects import ObjectKey, RawObject
from proxy.config.text import printable, quoted

MAX_DEPTH: Final = 64
"""Nesting; Kubernetes' own objects stay below 30."""
MAX_NODES: Final = 2_000_000
"""Scalars, lists and mappings of one file, each alias counted at its full size. 10,000 pods need some 300,000."""

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
"""Decimal only: YAML 1.1's octal and sexagesimal (`1:30` = 90) are accidents. Longer ones stay text."""
_FLOAT: Final = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {
    word: value
    for value, words in ((True, "true yes on"), (False, "false no off"))
    for plain in words.split()
    for word in (plain, plain.title(), plain.upper())
}
"""YAML 1.1's, as Kubernetes' own parser has them (sigs.k8s.io/yaml): `version: on` is no text there either."""
_TEXT_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})
_PLAIN_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_TIMESTAMP: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
"""RFC 3339 in UTC, whole seconds: what the API server writes; such text sorts by time."""
_KIND: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")


class InvalidManifest(ValueError):
    """A file that is not YAML, or exceeds a limit; `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(f"line {line}, column {column}: {reason}")
        self.line = line
        self.column = column
        self.reason = reason


class Document(NamedTuple):
    value: object
    line: int
    """Where the document's content begins, from 1."""


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being filled. `before` is the node count at its start: what an alias to it costs."""

    into: dict[str, object] | list[object]
    anchor: str | None
    before: int
    key: str | None = None


@dataclass(slots=True)
class _Builder:
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[object, int]] = field(default_factory=dict)
    nodes: int = 0
    root: object = None
    line: int = 1

    def spend(self, count: int, event: yaml.Event) -> None:
        self.nodes += count
        if self.nodes > MAX_NODES:
            raise _error(event, f"more than {MAX_NODES} values in one file")

    def add(self, value: object, event: yaml.Event) -> None:
        """Put a finished value where it belongs: the root, a list, or after its key."""
        if not self.stack:
            self.root, self.line = value, _position(event)[0]
            return
        top = self.stack[-1]
        if isinstance(top.into, list):
            top.into.append(value)
        elif top.key is not None:
            top.into[top.key] = value
            top.key = None
        else:
            raise _error(event, f"a key must be text, not {quoted(value)}")

    def expects_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].into, dict) and self.stack[-1].key is None

    def open(self, into: dict[str, object] | list[object], event: yaml.CollectionStartEvent) -> None:
        if event.tag not in _PLAIN_TAGS:
            raise _error(event, f"tag {quoted(event.tag)} is not supported")
        if len(self.stack) >= MAX_DEPTH:
            raise _error(event, f"nested deeper than {MAX_DEPTH}")
        if self.expects_key():
            raise _error(event, f"a key must be text, not {quoted(into)}")
        self.add(into, event)
        self.stack.append(_Open(into, event.anchor, self.nodes))
        self.spend(1, event)

    def close(self) -> None:
        done = self.stack.pop()
        # Known only now: an alias inside its own anchor would make a cycle.
        if done.anchor is not None:
            self.anchors[done.anchor] = (done.into, self.nodes - done.before)

    def scalar(self, event: yaml.ScalarEvent) -> None:
        self.spend(1, event)
        if self.expects_key():
            self.key(event)
            return
        value = _scalar(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        self.add(value, event)

    def key(self, event: yaml.ScalarEvent) -> None:
        """The text as written: `on:` and `80:` are the keys "on" and "80", as in JSON."""
        top = self.stack[-1]
        assert isinstance(top.into, dict)
        if event.value == "<<" and event.implicit[0]:
            raise _error(event, "merge keys (<<) are not supported")
        if event.value in top.into:
            raise _error(event, f"key {quoted(event.value)} is there twice")
        top.key = event.value

    def alias(self, event: yaml.AliasEvent) -> None:
        known = self.anchors.get(event.anchor or "")
        if known is None:
            raise _error(event, f"alias {quoted(event.anchor)} has no anchor before it")
        value, cost = known
        self.spend(cost, event)
        if self.expects_key():
            raise _error(event, "an alias cannot be a key")
        self.add(value, event)


def documents(text: str) -> Iterator[Document]:
    """The documents of a YAML stream, as dicts with text keys, lists, str, int, float, bool and None.

    Raises InvalidManifest at the first error; what came before it has been yielded.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            match event:
                case yaml.ScalarEvent():
                    builder.scalar(event)
                case yaml.MappingStartEvent():
                    builder.open({}, event)
                case yaml.SequenceStartEvent():
                    builder.open([], event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    builder.close()
                case yaml.AliasEvent():
                    builder.alias(event)
                case yaml.DocumentEndEvent():
                    if builder.root is not None:
                        yield Document(builder.root, builder.line)
                    builder = _Builder(nodes=builder.nodes)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise InvalidManifest(line, column, printable(error.problem or "not YAML")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidManifest(line, 1, printable(f"character #x{error.character:04x}: {error.reason}")) from None


def _scalar(event: yaml.ScalarEvent) -> object:
    text: str = event.value
    if event.tag is not None:
        if event.tag in _TEXT_TAGS:
            return text
        raise _error(event, f"tag {quoted(event.tag)} is not supported")
    if not event.implicit[0]:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _error(event: yaml.Event, reason: str) -> InvalidManifest:
    return InvalidManifest(*_position(event), reason)


def raw_objects(value: object, source: str) -> Iterator[RawObject | InvalidPolicy]:
    """The Kubernetes objects of a document: itself, or a List's items (what `kubectl get -o yaml` prints).

    In place of one without apiVersion, kind or valid name comes the reason; the others do not suffer for it.
    """
    node = Node(value, "", f"object at {source}")
    items: list[Node] = [node]
    if isinstance(value, dict) and str(value.get("kind")).endswith("List") and isinstance(value.get("items"), list):
        items = [Node(item.value, "", f"{node.owner} {item.path}") for item in node.each("items")]
    for item in items:
        try:
            yield raw_object(item, source)
        except InvalidPolicy as invalid:
            yield invalid


def raw_object(node: Node, source: str) -> RawObject:
    """One object, named. Raises InvalidPolicy."""
    group, _, version = node.require("apiVersion").text().rpartition("/")
    kind = node.require("kind").matching(_KIND, "a kind")
    metadata = node.require("metadata")
    name = metadata.require("name").matching(NAME, "a name (lower case, digits, - and .)")
    namespace = metadata.get("namespace")
    created = metadata.get("creationTimestamp")
    key = ObjectKey(
        printable(group),
        kind,
        "default" if namespace is None else namespace.matching(LABEL_NAME, "a namespace name"),
        name,
    )
    since = "" if created is None else created.matching(_TIMESTAMP, "a time like 2026-01-31T12:00:00Z")
    return RawObject(key, printable(version), since, node.mapping(), source)
