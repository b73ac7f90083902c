"""What cannot be read, shown nearly as nft(8) writes it: shorter than its JSON, and as people know it. Pure.

For a person's eyes only: nothing is parsed from it. What this does not know either stays JSON.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.printable import printable

Json = Any
"""What json.loads() gives: nothing is known of it."""
TEXT_LIMIT: Final = 200
"""agent.printable's limit for one line."""
_DEEPEST: Final = 16
"""Levels of nesting that are followed; nft's own rules have six."""


def text_of(raw: Json) -> str:
    """Printable, and of bounded length. A statement that libnftables cannot print as JSON is a string (json.c)."""
    try:
        text = _text(raw, 0)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        text = _json(raw)
    return printable(text, TEXT_LIMIT)


def _text(raw: Json, depth: int) -> str:
    if depth > _DEEPEST:
        return "…"
    if isinstance(raw, list):
        return ",".join(_text(one, depth + 1) for one in raw)
    if not isinstance(raw, dict):
        return raw if isinstance(raw, str) else json.dumps(raw)
    if len(raw) == 1:
        ((word, said),) = raw.items()
        if word in _OPERATORS:
            return f" {word} ".join(_text(one, depth + 1) for one in said)
        if word in _WRITERS:
            return _WRITERS[word](said, depth + 1)
        if said is None:
            return str(word)
    return _json(raw)


def _json(raw: Json) -> str:
    try:
        return json.dumps(raw, ensure_ascii=False)
    except RecursionError:
        return "…"


def _match(said: Json, depth: int) -> str:
    op = "" if said["op"] in ("==", "in") else f"{said['op']} "
    return f"{_text(said['left'], depth)} {op}{_text(said['right'], depth)}"


def _payload(said: Json, _: int) -> str:
    return (
        f"{said['protocol']} {said['field']}" if "field" in said else f"@{said['base']},{said['offset']},{said['len']}"
    )


def _ct(said: Json, _: int) -> str:
    return f"ct {said['dir']} {said['key']}" if "dir" in said else f"ct {said['key']}"


def _fib(said: Json, _: int) -> str:
    return f"fib {' . '.join(said['flags'])} {said['result']}"


def _option(kind: str) -> Callable[[Json, int], str]:
    return lambda said, _: f"{kind}{said['name']}" + (f" {said['field']}" if "field" in said else "")


def _mapped(word: str) -> Callable[[Json, int], str]:
    return lambda said, depth: f"{_text(said['key'], depth)} {word} {_text(said['data'], depth)}"


def _limit(said: Json, _: int) -> str:
    if isinstance(said, str):
        return f"limit name {said}"
    unit = f" {said['rate_unit']}" if "rate_unit" in said else ""
    return f"limit rate {_over(said)}{said['rate']}{unit}/{said['per']}"


def _quota(said: Json, _: int) -> str:
    return f"quota name {said}" if isinstance(said, str) else f"quota {_over(said)}{said['val']} {said['val_unit']}"


def _over(said: Json) -> str:
    return "over " if said.get("inv") else ""


def _hash(word: str) -> Callable[[Json, int], str]:
    def write(said: Json, depth: int) -> str:
        of = f" {_text(said['expr'], depth)}" if "expr" in said else ""
        return f"{word}{of} mod {said['mod']}"

    return write


def _update(said: Json, depth: int) -> str:
    limits = "".join(f" {_text(one, depth)}" for one in said.get("stmt", ()) if "counter" not in one)
    return f"{said['op']} {said.get('set') or said['map']} {{ {_text(said['elem'], depth)}{limits} }}"


def _pairs(said: Json, depth: int) -> str:
    parts = (
        " : ".join(_text(part, depth) for part in one) if isinstance(one, list) else _text(one, depth) for one in said
    )
    return f"{{ {', '.join(parts)} }}"


_OPERATORS: Final = frozenset({"&", "|", "^", "<<", ">>"})
_WRITERS: Final[Mapping[str, Callable[[Json, int], str]]] = {
    "match": _match,
    "payload": _payload,
    "meta": lambda said, _: f"meta {said['key']}",
    "ct": _ct,
    "rt": lambda said, _: f"rt {said['key']}",
    "socket": lambda said, _: f"socket {said['key']}",
    "osf": lambda said, _: f"osf {said['key']}",
    "fib": _fib,
    "exthdr": _option(""),
    "tcp option": _option("tcp option "),
    "ip option": _option("ip option "),
    "sctp chunk": _option("sctp chunk "),
    "mangle": lambda said, depth: f"{_text(said['key'], depth)} set {_text(said['value'], depth)}",
    "map": lambda said, depth: _update(said, depth) if "op" in said else _mapped("map")(said, depth),
    "vmap": _mapped("vmap"),
    "set": lambda said, depth: _pairs(said, depth) if isinstance(said, list) else _update(said, depth),
    "elem": lambda said, depth: _text(said["val"], depth),
    "concat": lambda said, depth: " . ".join(_text(one, depth) for one in said),
    "range": lambda said, depth: "-".join(_text(one, depth) for one in said),
    "prefix": lambda said, depth: f"{_text(said['addr'], depth)}/{said['len']}",
    "numgen": lambda said, _: f"numgen {said['mode']} mod {said['mod']}",
    "jhash": _hash("jhash"),
    "symhash": _hash("symhash"),
    "limit": _limit,
    "quota": _quota,
    "ct count": lambda said, _: f"ct count {_over(said)}{said['val']}",
    "fwd": lambda said, _: f"fwd to {said['dev']}",
    "jump": lambda said, _: f"jump {said['target']}",
    "goto": lambda said, _: f"goto {said['target']}",
}
