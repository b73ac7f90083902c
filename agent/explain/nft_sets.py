"""Sets and maps of nft's JSON, named and anonymous. Pure.

A named one is read when a rule that is read names it: a node's Service map has thousands of elements that most
questions never come to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.explain.nft_text import Json
from agent.explain.nft_values import (
    ADDRESS4,
    ADDRESS6,
    MALFORMED,
    PORT,
    SET_TYPES,
    Kind,
    Unreadable,
    constant,
    is_wildcard,
    opaque,
    span,
)
from agent.explain.statements import Constant, Decision, Elements, Expression, Joined, Span, Value, Verdict

Leads = Expression | Verdict | None
Data = Callable[[Json], Leads]
"""What an element of a map leads to."""

_VERDICTS: Final = {
    decision.value: Verdict(decision)
    for decision in (Decision.ACCEPT, Decision.DROP, Decision.CONTINUE, Decision.RETURN, Decision.QUEUE)
}
_INTO: Final = {"jump": Decision.JUMP, "goto": Decision.GOTO}


# ── What elements lead to ──────────────────────────────────────────────────────────────────────────────────────────
def verdict(raw: Json) -> Verdict:
    """`{"accept": null}`, `{"jump": {"target": "chain"}}`."""
    for word, said in raw.items():
        if word in _INTO:
            return Verdict(_INTO[word], said["target"])
        if word in _VERDICTS:
            return _VERDICTS[word]
    raise Unreadable


def _verdict_or_opaque(raw: Json) -> Leads:
    try:
        return verdict(raw)
    except Unreadable as error:
        return opaque(raw, error.why)


def value_of(kinds: Sequence[Kind]) -> Data:
    """Constants of these kinds, joined when there are several."""

    def read(raw: Json) -> Leads:
        try:
            parts = _parts(raw, len(kinds))
            values = tuple(Constant(constant(part, kind)) for part, kind in zip(parts, kinds, strict=True))
        except Unreadable as error:
            return opaque(raw, error.why)
        return values[0] if len(values) == 1 else Joined(values)

    return read


def part_of(kinds: Sequence[Kind], number: int) -> Data:
    """One component of a joined value, of a range its first: what a translation writes."""

    def read(raw: Json) -> Leads:
        try:
            part = _parts(raw, len(kinds))[number]
            return Constant(span(part, kinds[number]).first)
        except Unreadable as error:
            return opaque(raw, error.why)

    return read


def is_ranged(raw: Json) -> bool:
    return isinstance(raw, dict) and ("range" in raw or "prefix" in raw or any(map(is_ranged, raw.get("concat", ()))))


# ── Elements ───────────────────────────────────────────────────────────────────────────────────────────────────────
def elements(raw: Json, kinds: Sequence[Kind], data: Data | None = None, name: str = "", *, changing: bool = False) -> (
    Elements
):  # fmt: skip
    """Of the elements as they are listed; `data` for those of a map. Raises Unreadable when one of them is."""
    exact: dict[tuple[Value, ...], Leads] = {}
    spans: list[tuple[tuple[Span, ...], Leads]] = []
    others: list[tuple[tuple[Span, ...], Leads]] = []
    for listed in raw if type(raw) is list else (raw,):
        key, leads = listed, None
        if data is not None:
            key, to = listed
            leads = data(to)
        if type(key) is dict and "elem" in key:  # with a counter, a time-out, a comment
            key = key["elem"]["val"]
        if key == "*":
            others.append((tuple(_everything(kind) for kind in kinds), leads))
            continue
        found = _key(key, kinds)
        if type(found[0]) is Span:
            spans.append((found, leads))
        else:
            exact[found] = leads  # type: ignore[index]
    # What is for all the rest comes last: the kernel asks for it when nothing else was found (nft_set_catchall_lookup).
    return Elements(name, exact or None, (*spans, *others), changing)


def _key(raw: Json, kinds: Sequence[Kind]) -> tuple[Value, ...] | tuple[Span, ...]:
    """Values alone, or spans alone."""
    if len(kinds) == 1 and type(raw) is not dict:
        value = kinds[0].read(raw)
        return (Span(value, value),) if is_wildcard(value) else (value,)
    found = tuple(span(part, kind) for part, kind in zip(_parts(raw, len(kinds)), kinds, strict=True))
    if any(one.first != one.last or is_wildcard(one.first) for one in found):
        return found
    return tuple(one.first for one in found)


def _parts(raw: Json, count: int) -> Sequence[Json]:
    parts = raw["concat"] if type(raw) is dict and "concat" in raw else (raw,)
    if len(parts) != count:
        raise Unreadable("it has another number of components than what it is compared with")
    return parts


def _everything(kind: Kind) -> Span:
    return Span(0, kind.ones) if kind.bits else Span("*", "*")


# ── Named ones ─────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Listed:
    """A set or map of a table as the document has it; `changing`: its rules, or time, change it."""

    raw: Json
    changing: bool


class Sets(Mapping[str, Elements]):
    """A table's; each is read when it is first asked for. One that cannot be read is not there (`why_not` tells)."""

    __slots__ = ("_listed", "_parts", "_read", "family")

    def __init__(self, family: str, listed: Mapping[str, Listed]) -> None:
        self.family = family
        self._listed = listed
        self._read: dict[str, Elements | Unreadable] = {}
        self._parts: dict[tuple[str, int], Elements] = {}

    def __getitem__(self, name: str) -> Elements:
        found = self._known(name)
        if isinstance(found, Unreadable):
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._listed if not isinstance(self._known(name), Unreadable))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def named(self, name: str) -> Elements:
        """Raises Unreadable."""
        if name not in self._listed:
            raise Unreadable("it names a set that is not listed")
        found = self._known(name)
        if isinstance(found, Unreadable):
            raise found
        return found

    def has(self, name: str) -> bool:
        return name in self._listed

    def of_translation(self, name: str, number: int) -> Elements:
        """A map of addresses, or addresses and ports, that leads to one component of them."""
        if name not in self._listed:
            raise Unreadable("it names a map that is not listed")
        if (name, number) not in self._parts:
            found = self._listed[name]
            kinds = kinds_of_type(found.raw["map"])
            self._parts[name, number] = self._elements(name, found, part_of(kinds, number))
        return self._parts[name, number]

    def elements_of(self, name: str) -> Json:
        """As they are listed; none of one that is not."""
        return self._listed[name].raw.get("elem", ()) if name in self._listed else ()

    def _known(self, name: str) -> Elements | Unreadable:
        if name not in self._read:
            found = self._listed[name]
            try:
                self._read[name] = self._elements(name, found, _data_of(found.raw))
            except Unreadable as error:
                self._read[name] = error
            except MALFORMED:
                self._read[name] = Unreadable(f"set {opaque(name).text} is not as nft writes sets")
        return self._read[name]

    def _elements(self, name: str, found: Listed, data: Data | None) -> Elements:
        raw = found.raw
        return elements(raw.get("elem", []), kinds_of_type(raw["type"]), data, name, changing=found.changing)


def _data_of(raw: Json) -> Data | None:
    if "map" not in raw:
        return None
    return _verdict_or_opaque if raw["map"] == "verdict" else value_of(kinds_of_type(raw["map"]))


def verdicts(raw: Json, kinds: Sequence[Kind]) -> Elements:
    """An anonymous verdict map's."""
    return elements(raw, kinds, _verdict_or_opaque)


def kinds_of_type(raw: Json) -> Sequence[Kind]:
    """`"ipv4_addr"`, `["ipv4_addr", "inet_service"]`, `"ipv4_addr . inet_service"`; typeof gives the same words."""
    names = raw if type(raw) is list else raw.split(" . ")
    try:
        return tuple(SET_TYPES[name] for name in names)
    except (KeyError, TypeError):
        raise Unreadable(f"this version has no values of type {opaque(raw).text}") from None


def kinds_of_translation(family: str, addresses: Json) -> Sequence[Kind]:
    """Of the values of an anonymous map that a translation goes by: addresses, with or without ports."""
    address = ADDRESS6 if family == "ip6" else ADDRESS4
    first = next(iter(addresses), None)
    data = first[1] if first is not None else None
    return (address, PORT) if isinstance(data, dict) and "concat" in data else (address,)
