"""YAML text → its documents' values, each with the place where it is written. JSON is YAML.

From libyaml's events, bounded as agent.sources.manifests is (docs/adr/0007): deep nesting and aliases of aliases end
nobody. What a scalar means is the same, too. Merge keys (`<<`) are taken, because kubectl does.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from agent.inject.edits import Path
from agent.printable import printable
from agent.sources.manifests import MAX_DEPTH, MAX_VALUES, InvalidManifest, scalar_value

_MERGE: Final = "<<"
_SURROGATES: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_REPLACED: Final = "\\ufffd\\ufffd"
"""As long as a pair of them: JSON writes so what is beyond 16 bits, and libyaml knows no such escapes."""


@dataclass(slots=True)
class Node:
    """`start` to `end` in the text, an anchor and a tag before it included; of a block collection `end` is its last
    value's. `value`: of a scalar."""

    start: int
    end: int
    line: int
    flow: bool = True
    value: Any = None
    pairs: dict[str, "Pair"] | None = None
    items: list["Item"] | None = None

    @property
    def plain(self) -> Any:
        """As kubectl reads it. What aliases share is shared."""
        if self.pairs is not None:
            return {key: pair.node.plain for key, pair in self.pairs.items()}
        return self.value if self.items is None else [item.node.plain for item in self.items]

    @property
    def is_empty(self) -> bool:
        return self.value is None and not self.pairs and not self.items

    def inner(self, path: Path) -> "Node | None":
        """What stands there, perhaps by an alias; None where nothing does."""
        node = self
        for step in path:
            item: Item | None = None
            if node.pairs is not None:
                item = node.pairs.get(str(step))
            elif node.items is not None and isinstance(step, int) and step < len(node.items):
                item = node.items[step]
            if item is None:
                return None
            node = item.node
        return node


@dataclass(frozen=True, slots=True)
class Item:
    """`alias`: the node is written at an anchor, and here stands an alias to it (or `<<`), from where to where."""

    node: Node
    alias: tuple[int, int] | None = None

    @property
    def start(self) -> int:
        return self.node.start if self.alias is None else self.alias[0]

    @property
    def end(self) -> int:
        return self.node.end if self.alias is None else self.alias[1]


@dataclass(frozen=True, slots=True)
class Pair(Item):
    """`key_start` to `key_end`: its key, `column` from 0; of a merged one, `<<` and the alias."""

    key_start: int = 0
    key_end: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """`number` and `line` from 1."""

    root: Node
    number: int
    line: int


@dataclass(slots=True)
class _Open:
    """`before` values came before it, what an alias to it costs; `height`: the deepest nesting in it so far."""

    node: Node
    anchor: str | None
    before: int
    height: int = 1
    key: yaml.ScalarEvent | None = None
    merged: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchored:
    node: Node
    cost: int
    height: int = 0


@dataclass(slots=True)
class _Builder:
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, "_Anchored"] = field(default_factory=dict)
    values: int = 0
    root: Node | None = None

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._finish(event)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self.anchors:
            raise _error(event, "an alias without an anchor before it")
        if self._wants_key():
            raise _error(event, "a key must be text")
        anchored = self.anchors[event.anchor]
        self._count(event, anchored.cost)
        self._deepen(event, anchored.height)
        self._add(Item(anchored.node, _span(event)), event)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._count(event, 1)
        if self._wants_key():
            top = self.open[-1]
            if event.value in (top.node.pairs or {}):
                raise _error(event, f"key {printable(event.value, 80)} is there twice")
            top.key = event
            return
        node = Node(*_span(event), _line(event), value=scalar_value(event))
        if event.anchor:
            self.anchors[event.anchor] = _Anchored(node, 1)
        self._add(Item(node), event)

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._deepen(event, 1)
        if self._wants_key():
            raise _error(event, "a key must be text")
        node = Node(*_span(event), _line(event), bool(event.flow_style))
        if isinstance(event, yaml.MappingStartEvent):
            node.pairs = {}
        else:
            node.items = []
        self._add(Item(node), event)
        self.open.append(_Open(node, event.anchor, self.values))
        self._count(event, 1)

    def _finish(self, event: yaml.Event) -> None:
        done = self.open.pop()
        node = done.node
        written: list[Item] = [*(node.pairs or {}).values(), *(node.items or []), *done.merged]
        node.end = _span(event)[1] if node.flow or not written else max(item.end for item in written)
        self._merge(done, event)
        if done.anchor:  # known only now: an alias inside its own anchor would make a cycle
            self.anchors[done.anchor] = _Anchored(node, self.values - done.before, done.height)

    def _merge(self, done: _Open, event: yaml.Event) -> None:
        """What the mapping says itself goes before what it merges, of these the earlier one (yaml.org/type/merge)."""
        for item in done.merged:
            sources = [item.node] if item.node.items is None else [one.node for one in item.node.items]
            for source in sources:
                if source.pairs is None:
                    raise _error(event, "what is merged (<<) is no mapping")
                self._count(event, len(source.pairs))
                for key, pair in source.pairs.items():
                    merged = Pair(pair.node, (item.start, item.end), item.start, item.end)
                    assert done.node.pairs is not None
                    done.node.pairs.setdefault(key, merged)

    def _wants_key(self) -> bool:
        return bool(self.open) and self.open[-1].node.pairs is not None and self.open[-1].key is None

    def _add(self, item: Item, event: yaml.Event) -> None:
        if not self.open:
            self.root = item.node
            return
        top = self.open[-1]
        if top.node.items is not None:
            top.node.items.append(item)
            return
        key, top.key = top.key, None
        if key is None or top.node.pairs is None:
            raise _error(event, "a key must be text")
        if key.value == _MERGE and key.implicit[0]:
            top.merged.append(item)
            return
        column = key.start_mark.column if key.start_mark is not None else 0
        top.node.pairs[key.value] = Pair(item.node, item.alias, *_span(key), column)

    def _deepen(self, event: yaml.Event, height: int) -> None:
        """What an alias stands for is as deep as if it were written there: who walks over values may recurse."""
        for below, one in enumerate(reversed(self.open), 1):
            one.height = max(one.height, below + height)
        if len(self.open) + height > MAX_DEPTH:
            raise _error(event, f"nested deeper than {MAX_DEPTH}")

    def _count(self, event: yaml.Event, values: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise _error(event, f"more than {MAX_VALUES} values")


def documents(text: str) -> Iterator[Document]:
    """Empty ones are counted and left out. `text` begins without a byte order mark. Raises InvalidManifest."""
    readable = _SURROGATES.sub(lambda _: _REPLACED, text)
    builder, number, line = _Builder(), 0, 1
    try:
        for event in yaml.parse(readable, Loader=yaml.CSafeLoader):
            builder.take(event)
            if isinstance(event, yaml.DocumentStartEvent):
                number, line = number + 1, _line(event)
            if isinstance(event, yaml.DocumentEndEvent):
                if builder.root is not None:
                    yield Document(builder.root, number, line)
                builder = _Builder(values=builder.values)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise InvalidManifest(f"{where}no YAML: {printable(str(error.problem), 300)}") from None
    except yaml.reader.ReaderError as error:
        at = text.count("\n", 0, error.position) + 1
        raise InvalidManifest(f"line {at}: character #x{error.character:04x} is none that YAML has") from None


def _error(event: yaml.Event, reason: str) -> InvalidManifest:
    return InvalidManifest(f"line {_line(event)}: {reason}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _span(event: yaml.Event) -> tuple[int, int]:
    """In characters from the text's start; libyaml gives both marks with every event."""
    assert event.start_mark is not None
    assert event.end_mark is not None
    return event.start_mark.index, event.end_mark.index
