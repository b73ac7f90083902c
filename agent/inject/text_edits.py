"""Edits of a document as changes of its text: all that is not ours stays as it is written, to the byte.

What is added stands on lines of its own in block style, and as JSON in flow style; so it can be found again and taken
out without a trace. Whoever calls reads the result again and compares: see manifests.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.inject.edits import Edit, Insert, Path, Put, Restore, Take
from agent.inject.emitting import block, flow
from agent.inject.errors import CannotEdit
from agent.inject.lines import Lines
from agent.inject.nodes import Item, Node, Pair

_DASH: Final = re.compile(r"(?:[ \t\r\n\x85\u2028\u2029]|#[^\r\n\x85\u2028\u2029]*|[&!]\S+)*-")
_COLON: Final = re.compile(r"[ \t\r\n]*:")
_OPENED: Final = re.compile(r"[\[{]([ \t\r\n]*)")
_STEP: Final = "  "


@dataclass(frozen=True, slots=True)
class Change:
    """`depth`: in how many collections it is. Of two that are added at one place the inner one comes first."""

    start: int
    end: int
    text: str
    depth: int = 0


def changes(lines: Lines, root: Node, edits: Iterable[Edit]) -> list[Change]:
    """In places of the text as it is; every edit is of the document as it is. Raises CannotEdit."""
    editor = _Editor(lines, lines.text, root)
    return _with_last_break(lines, [change for edit in _together(edits) for change in editor.change(edit)])


def _with_last_break(lines: Lines, found: list[Change]) -> list[Change]:
    """Where the last lines of a file go whose last line does not end, the line before them is not to end, either."""
    at = len(lines.text)
    if not lines.is_open(at):
        return found
    ends = {change.end: change for change in found if not change.text and change.start == lines.start(change.start)}
    first = None
    while at in ends:
        first = ends.pop(at)
        at = first.start
    if first is None or not at:
        return found
    return [replace(one, start=lines.before(at)) if one is first else one for one in found]


def changed(text: str, made: Iterable[Change]) -> str:
    pieces, at = [], 0
    for change in sorted(made, key=lambda change: (change.start, change.end, -change.depth)):
        pieces += [text[at : change.start], change.text]
        at = max(at, change.end)
    return "".join((*pieces, text[at:]))


def _together(edits: Iterable[Edit]) -> list[Edit]:
    """What is taken out of one collection, at once: between which neighbours a comma stays depends on all of it."""
    taken: dict[Path, Take] = {}
    others: list[Edit] = []
    for edit in edits:
        if isinstance(edit, Take):
            before = taken.get(edit.path)
            taken[edit.path] = Take(edit.path, (*(before.keys if before else ()), *edit.keys))
        else:
            others.append(edit)
    return [*others, *taken.values()]


@dataclass(frozen=True, slots=True)
class _Editor:
    lines: Lines
    text: str
    root: Node

    def change(self, edit: Edit) -> Iterator[Change]:
        node = self._at(edit.path)
        match edit:
            case Put():
                yield from self._put(node, edit)
            case Restore():
                yield from self._restore(node, edit)
            case Insert():
                yield self._insert(edit.path, node, edit)
            case Take():
                yield from self._take(edit.path, node, edit)

    def _at(self, path: Path) -> Node:
        node = self.root
        for step in path:
            item: Item
            if node.pairs is not None:
                item = node.pairs[str(step)]
            else:
                item = (node.items or [])[int(step)]
            if item.alias is not None:
                what = f"{step} stands here as an alias (*) or is merged (<<)"
                raise self._cannot(item.start, f"{what}, and a change would be one at the anchor: write it out")
            node = item.node
        return node

    def _cannot(self, at: int, reason: str) -> CannotEdit:
        return CannotEdit(self.lines.number(at), reason)

    # ── In ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _put(self, node: Node, edit: Put) -> Iterator[Change]:
        pairs = node.pairs or {}
        pair = pairs.get(edit.key)
        if pair is None and node.flow:
            yield self._joined(list(pairs.values()), node, [(edit.key, edit.value)], first=False)
        elif pair is None:
            written = _written(node)
            if not written:
                raise self._cannot(node.start, f"it holds nothing but what it merges (<<): write {edit.key} yourself")
            yield self._added(node.end, written[0].column, {edit.key: edit.value}, edit.path, self._indentation(node))
        elif pair.alias is not None:
            raise self._cannot(pair.start, f"{edit.key} stands here as an alias (*) or is merged (<<): write it out")
        elif "#" in self.text[pair.key_end : pair.end]:
            raise self._cannot(pair.key_end, f"{edit.key} is empty but for a comment, which would be lost: move it out")
        elif node.flow:
            yield Change(self._colon(pair), pair.end, f" {flow(edit.value)}")
        else:
            yield Change(self._colon(pair), pair.end, "")
            is_list = isinstance(edit.value, list)
            column = pair.column + (self._indentation(node) if is_list else len(_STEP))
            yield self._added(pair.end, column, edit.value, (*edit.path, edit.key))

    def _insert(self, path: Path, node: Node, edit: Insert) -> Change:
        items = node.items or []
        if node.flow:
            return self._joined(items, node, edit.values, first=edit.first)
        colon = self._colon(self._pair(path))
        column = self.lines.column(self._dash(colon))
        if not edit.first:
            return self._added(node.end, column, list(edit.values), path)
        # Before the comments that stand before the first item: they are that one's.
        anchored = self.text[node.start] in "&!"
        return self._added(node.start if anchored else colon, column, list(edit.values), path)

    def _added(self, after: int, column: int, value: Any, path: Path, indentation: int = 0) -> Change:
        """On lines of their own, after the line in which `after` is. `indentation`: of a list in the mapping that is
        put."""
        at = self.lines.end(after)
        written = [" " * column + line for line in block(value)]
        if isinstance(value, dict) and isinstance(next(iter(value.values())), list):
            written = [written[0], *(" " * indentation + line for line in written[1:])]
        newline = self.lines.newline
        text = newline.join(written)
        return Change(at, at, f"{newline}{text}" if self.lines.is_open(at) else f"{text}{newline}", len(path))

    def _joined(self, items: list[Any], node: Node, values: Iterable[Any], *, first: bool) -> Change:
        """In flow style, written as their neighbours are."""
        opened = _OPENED.match(self.text, node.start)
        blank = opened.group(1) if opened else ""
        inner = Lines.last(blank)
        indent, step = (blank, self._step(inner, node)) if inner else ("", "")
        texts = []
        for value in values:
            is_pair = isinstance(value, tuple)
            written = flow(value[1] if is_pair else value, indent, step)
            texts.append(f'"{value[0]}": {written}' if is_pair else written)
        separator = f",{blank or ' '}"
        joined = separator.join(texts)
        if first:
            return Change(items[0].start, items[0].start, f"{joined}{separator}")
        return Change(items[-1].end, items[-1].end, f"{separator}{joined}")

    def _step(self, inner: str, node: Node) -> str:
        """By how much a line in it is further in than the one in which it ends."""
        outer = self.text[self.lines.start(node.end - 1) : node.end - 1]
        return inner.removeprefix(outer) if inner.startswith(outer) and inner != outer else _STEP

    # ── Out ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _restore(self, node: Node, edit: Restore) -> Iterator[Change]:
        pair = (node.pairs or {})[edit.key]
        colon = self._colon(pair)
        if node.flow or pair.node.flow:
            yield Change(colon, pair.end, edit.spelled)
            return
        yield Change(colon, colon, edit.spelled)
        start = self._dash(colon) if pair.node.items else _written(pair.node)[0].key_start
        yield self._gone(start, pair.end)

    def _take(self, path: Path, node: Node, edit: Take) -> Iterator[Change]:
        entries: list[Item] = [*(node.pairs or {}).values(), *(node.items or [])]
        keys: list[str | int] = [*(node.pairs or {}), *range(len(node.items or []))]
        taken = [index for index, key in enumerate(keys) if key in edit.keys]
        if node.flow:
            yield from self._unjoined(entries, taken)
            return
        for index in taken:
            entry = entries[index]
            if isinstance(entry, Pair):
                start = entry.key_start
            else:
                start = self._dash(entries[index - 1].end if index else self._colon(self._pair(path)))
            yield self._gone(start, entry.end)

    def _gone(self, start: int, end: int) -> Change:
        """All the lines of it."""
        begins, ends = self.lines.start(start), self.lines.end(end)
        if self.text[begins:start].strip(" "):
            raise self._cannot(start, "what headgate added does not stand on lines of its own any more: take it out")
        return Change(begins, ends, "")

    @staticmethod
    def _unjoined(entries: list[Item], taken: list[int]) -> Iterator[Change]:
        left = [index for index in range(len(entries)) if index not in taken]
        starts = [entry.key_start if isinstance(entry, Pair) else entry.start for entry in entries]
        for index in taken:
            if left and index > left[-1]:
                yield Change(entries[left[-1]].end, entries[-1].end, "")
                return
            yield Change(starts[index], starts[index + 1], "")

    # ── Places ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _pair(self, path: Path) -> Pair:
        return (self._at(path[:-1]).pairs or {})[str(path[-1])]

    def _colon(self, pair: Pair) -> int:
        """Behind it."""
        found = _COLON.match(self.text, pair.key_end)
        if found is None:
            raise self._cannot(pair.key_start, "the key is written in an unusual way: write KEY: VALUE")
        return found.end()

    def _dash(self, after: int) -> int:
        """Of the item in block style that comes next."""
        found = _DASH.match(self.text, after)
        if found is None:
            raise self._cannot(after, "the list is written in an unusual way: write `- ` before each item")
        return found.end() - 1

    def _indentation(self, node: Node) -> int:
        """By how much this mapping's own lists are further in than their keys."""
        for pair in _written(node):
            if pair.node.items and not pair.node.flow:
                return max(self.lines.column(self._dash(self._colon(pair))) - pair.column, 0)
        return 0


def _written(node: Node) -> list[Pair]:
    """The pairs that stand in the mapping itself."""
    return [pair for pair in (node.pairs or {}).values() if pair.alias is None]
