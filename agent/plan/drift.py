"""What a namespace holds beside what it is to hold, in an operator's words.

Two listings of the same table by the same tool are compared, block by block and rule by rule; a rule is known by its
comment `headgate:<rule-id>`, and the order counts, because the first match wins. Everything in a listing may have been
written by the pod: it is never trusted to be well formed, and never shown raw.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.plan.rules import IPFamily, ReturnPath
from agent.printable import printable

MOST_CHANGES: Final = 20
"""Told one by one; more are counted. A plan has some thirty rules, and an Event's message ends at 1,024 characters
(k8s.io/kubernetes pkg/apis/core/validation/events.go: NoteLengthLimit): who sees twenty changes compares the tables."""
_SHOWN: Final = 160
"""Characters of a rule that are shown: the longest that no list of the pod's owner is part of has 150."""

_ELEMENTS: Final = 5
"""Of a set, named one by one: enough to see which list was edited."""

_SET: Final = re.compile(r"(?<=\{ )[^{}]*(?= \})")
_BLOCK: Final = re.compile(r"\t([a-z]+(?: [a-z]+)?) ([^\t]+) \{")
_COMMENT: Final = re.compile(r' comment "headgate:([^"]*)"$')


class Form(Enum):
    """Which of the plan's two rulesets a namespace is to hold."""

    STEERING = "steering"
    DRAIN = "drain"


class Part(Enum):
    """One half of a family's return path."""

    RULE = "rule"
    ROUTE = "route"


Missing = tuple[Part, IPFamily]


@dataclass(frozen=True, slots=True)
class _Block:
    """A chain, a set or another object of a table: the lines that say what it is, and, of a chain, its rules."""

    header: tuple[str, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Listing:
    """`properties` are the table's own lines, such as `flags dormant`."""

    blocks: dict[tuple[str, str], _Block]
    properties: tuple[str, ...]


def describe(expected: str, actual: str | None, table: str) -> tuple[str, ...]:
    """What differs in `table` (`inet headgate`), one change each; empty when the listings are equal.

    `expected` and `actual` as `nft list table` prints them, stateless and terse; None: there is no such table.
    """
    if actual == expected:
        return ()
    if actual is None:
        return (f"table {table} is gone",)
    wanted, found = _parse(expected), _parse(actual)
    changes = [*_properties(wanted, found, table), *_blocks(wanted, found)]
    for (kind, name), block in wanted.blocks.items():
        if kind == "chain" and (kind, name) in found.blocks:
            changes += _rules(name, block.rules, found.blocks[kind, name].rules)
    return tuple(changes) or (_elsewhere(expected, actual, table),)


def describe_return_path(path: ReturnPath, missing: Iterable[Missing]) -> tuple[str, ...]:
    """What of the return path is not there."""
    gone = set(missing)
    changes: list[str] = []
    for family in path.families:
        name = _family(family)
        halves = [part for part in Part if (part, family) in gone]
        if len(halves) == len(Part) and len(gone) < len(Part) * len(path.families):
            changes.append(f"the {name} half of the return path is missing: {_rule(path)}, {_route(path)}")
        else:
            changes += [f"{_rule(path) if part is Part.RULE else _route(path)} ({name}) is missing" for part in halves]
    return tuple(changes)


def is_of_routes(path: ReturnPath, changes: Iterable[str]) -> bool:
    """Whether all that these words tell is that routes of the return path are missing."""
    alone = {word for family in path.families for word in describe_return_path(path, [(Part.ROUTE, family)])}
    return alone.issuperset(changes)


def limited(changes: Sequence[str]) -> tuple[str, ...]:
    """At most `MOST_CHANGES`, and how many there are beside them."""
    if len(changes) <= MOST_CHANGES:
        return tuple(changes)
    return (*changes[:MOST_CHANGES], f"and {len(changes) - MOST_CHANGES} more changes")


def _family(family: IPFamily) -> str:
    return "IPv4" if family is IPFamily.IPV4 else "IPv6"


def _rule(path: ReturnPath) -> str:
    return f"ip rule {path.preference} (fwmark {path.mark:#x}/{path.mask:#x} lookup {path.table})"


def _route(path: ReturnPath) -> str:
    return f"ip route local default dev lo table {path.table}"


# ── A listing taken apart ──────────────────────────────────────────────────────────────────────────────────────────
def _parse(listing: str) -> _Listing:
    """By indentation, as nft prints: one tab opens a block, two stand before what is in it."""
    blocks: dict[tuple[str, str], _Block] = {}
    properties: list[str] = []
    lines = iter(listing.split("\n")[1:])
    for line in lines:
        opened = _BLOCK.fullmatch(line)
        if opened is not None:
            blocks[opened[1], opened[2]] = _block(opened[1], lines)
        elif line.strip(" \t}"):
            properties.append(line.strip())
    return _Listing(blocks, tuple(properties))


def _block(kind: str, lines: Iterator[str]) -> _Block:
    body: list[str] = []
    for line in lines:
        if line == "\t}":
            break
        if line.strip():
            body.append(line.strip())
    if kind != "chain":
        return _Block(tuple(body), ())
    header = [line for line in body if line.startswith(("type ", "policy ")) and " hook " in line]
    return _Block(tuple(header), tuple(line for line in body if line not in header))


# ── Compared ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _properties(wanted: _Listing, found: _Listing, table: str) -> Iterator[str]:
    for line in found.properties:
        if line not in wanted.properties:
            yield f"table {table} has `{_shown(line)}`"
    for line in wanted.properties:
        if line not in found.properties:
            yield f"table {table} lacks `{_shown(line)}`"


def _blocks(wanted: _Listing, found: _Listing) -> Iterator[str]:
    for (kind, name), block in wanted.blocks.items():
        there = found.blocks.get((kind, name))
        if there is None:
            yield f"{kind} {name} is missing"
        elif there.header != block.header:
            yield f"{kind} {name} is changed: {_shown('; '.join(there.header)) or 'it has no hook'}"
    for kind, name in found.blocks:
        if (kind, name) not in wanted.blocks:
            yield f"a foreign {kind} {_shown(name)}"


def _rules(chain: str, wanted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    if not found and len(wanted) > 1:
        yield f"chain {chain} is empty: its {len(wanted)} rules are missing"
        return
    texts = {_id(line): line for line in wanted}
    there: dict[str, str] = {}
    for line in found:
        there.setdefault(_id(line), line)
    for rule_id, line in texts.items():
        if rule_id not in there:
            yield f"rule {rule_id} is missing"
        elif there[rule_id] != line:
            yield f"rule {rule_id} is changed: {_changed(line, there[rule_id])}"
    yield from _order(chain, [i for i in texts if i in there], [i for i in there if i in texts])
    yield from _foreign(chain, texts, found)


def _changed(wanted: str, found: str) -> str:
    """The rule that is there; of one that is too long to be shown, and only has other elements, these."""
    if len(found) <= _SHOWN or _SET.sub("", wanted) != _SET.sub("", found):
        return _without_comment(found)
    lacks: list[str] = []
    has: list[str] = []
    for before, after in zip(_SET.findall(wanted), _SET.findall(found), strict=True):
        planned, there = (dict.fromkeys(text.split(", ")) for text in (before, after))
        lacks += (element for element in planned if element not in there)
        has += (element for element in there if element not in planned)
    told = [f"{verb} {_some(elements)}" for verb, elements in (("lacks", lacks), ("has", has)) if elements]
    return f"its set {' and '.join(told)}" if told else _without_comment(found)


def _some(elements: Sequence[str]) -> str:
    shown = _shown(", ".join(elements[:_ELEMENTS]))
    return shown if len(elements) <= _ELEMENTS else f"{shown} and {len(elements) - _ELEMENTS} more"


def _order(chain: str, wanted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    differing = [position for position, pair in enumerate(zip(wanted, found, strict=True)) if pair[0] != pair[1]]
    if not differing:
        return
    if len(differing) == 2:
        yield f"rules {wanted[differing[0]]} and {wanted[differing[1]]} are swapped"
        return
    for rule_id in wanted:
        if [i for i in wanted if i != rule_id] == [i for i in found if i != rule_id]:
            position = found.index(rule_id)
            where = f"behind {found[position - 1]}" if position else "to the beginning"
            yield f"rule {rule_id} is moved {where}"
            return
    yield f"the order of chain {chain} is changed: {', '.join(found)}"


def _foreign(chain: str, texts: dict[str, str], found: Sequence[str]) -> Iterator[str]:
    """With the rule of ours that follows: whether a foreign rule decides first is what its place says."""
    seen: Counter[str] = Counter()
    for position, line in enumerate(found):
        rule_id = _id(line)
        seen[rule_id] += 1
        if rule_id in texts:
            if seen[rule_id] > 1:
                yield f"rule {rule_id} is there again: {_without_comment(line)}"
            continue
        following = next((i for i in map(_id, found[position + 1 :]) if i in texts), None)
        where = f"before {following}" if following else "at the end"
        yield f"a foreign rule in chain {chain}, {where}: {_shown(line)}"


def _elsewhere(expected: str, actual: str, table: str) -> str:
    """For what this module has no words for."""
    lines = actual.split("\n")
    wanted = expected.split("\n")
    number = next(
        (n for n, (a, b) in enumerate(zip(lines, wanted, strict=False)) if a != b), min(map(len, (lines, wanted)))
    )
    line = lines[number].strip() if number < len(lines) else "the end"
    return f"table {table} lists otherwise, from line {number + 1}: {_shown(line)}"


def _id(line: str) -> str:
    """The rule id; the line itself where there is none, which is no rule id of ours."""
    found = _COMMENT.search(line)
    return found[1] if found else line


def _without_comment(line: str) -> str:
    return _shown(_COMMENT.sub("", line))


def _shown(text: str) -> str:
    return printable(text, _SHOWN)
