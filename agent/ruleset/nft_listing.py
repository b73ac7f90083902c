"""`nft list ruleset` taken apart, to show each rule as nft writes it. Pure.

What is whose is not decided from this text: names and comments may hold line breaks that make one rule look like two.
That is read from the kernel's messages (agent.ruleset.read), and the text is only believed where both agree.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_TABLE: Final = re.compile(r"table ([a-z0-9]+) (.+) \{")
_BLOCK: Final = re.compile(r"\t([a-z]+(?: [a-z]+)?) ([^\t]+) \{")
_COUNTER: Final = re.compile(r"(?:^| )counter packets \d+ bytes \d+(?= |$)")
_COMMENT: Final = re.compile(r' comment "[^"]*"$')


@dataclass(slots=True)
class ListedTable:
    """Rules by chain, without counter and comment; `objects` as `set grandfathered4`."""

    rules: dict[str, list[str]] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)


def take_apart(text: str) -> dict[tuple[str, str], ListedTable]:
    """By (family, name). What has not nft's shape is left out."""
    tables: dict[tuple[str, str], ListedTable] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        opened = _TABLE.fullmatch(line)
        if opened is not None:
            tables[opened[1], opened[2]] = _table(lines)
    return tables


def rules_of_chain(text: str, count: int) -> list[str] | None:
    """Of `nft list chain` the `count` rules, without counter and comment. None where a line break in a name, comment or
    prefix could deceive: each rule begins one line at two tabs, so what adds lines makes them more, and what ends the
    chain early leaves lines behind its end."""
    lines = text.rstrip("\n").split("\n")
    inside = lines[2:-2]
    if lines[-2:] != ["\t}", "}"] or not all(line.startswith("\t\t") for line in inside):
        return None
    body = _body(iter(inside))
    rules = [_plain(line) for line in body if not line.startswith(("type ", "comment "))]
    return rules if len(rules) == count else None


def _table(lines: Iterator[str]) -> ListedTable:
    table = ListedTable()
    for line in lines:
        if line == "}":
            break
        opened = _BLOCK.fullmatch(line)
        if opened is None:
            continue
        body = _body(lines)
        if opened[1] == "chain":
            table.rules[opened[2]] = [_plain(text) for text in body if not text.startswith(("type ", "comment "))]
        else:
            table.objects.append(f"{opened[1]} {opened[2]}")
    return table


def _body(lines: Iterator[str]) -> list[str]:
    body: list[str] = []
    for line in lines:
        if line == "\t}":
            break
        if line.startswith("\t\t") and not line.startswith("\t\t\t"):
            body.append(line.strip())
    return body


def _plain(rule: str) -> str:
    return _COUNTER.sub("", _COMMENT.sub("", rule), count=1).strip()
