"""Expressions and tests on a flow: True, False, or that nobody knows. Pure.

Of 5,000 rules that a packet meets nearly all end here, at their first test: nothing is called that need not be, nothing
is raised, and nothing is put into words.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable
from typing import Any, Final

from agent.explain.flow import Flow, Known, Unknown
from agent.explain.statements import (
    AnyOf,
    Bits,
    Constant,
    Elements,
    Expression,
    Field,
    Joined,
    Looked,
    Match,
    Op,
    Opaque,
    Perhaps,
    Read,
    Span,
    Value,
    Verdict,
    Xored,
)

Evaluated = Known | tuple[Known, ...] | None
"""None: the packet has no such field."""
Led = Expression | Verdict | None

_FEW: Final = 4
"""Ranges that are sooner compared one by one than made ready for bisection."""
_FRAGMENT_FIELD: Final = Read(Field.IP_FRAG_OFF)
_FRAGMENT: Final = 0x3FFF
"""More fragments, and the offset (RFC 791, 3.1): nobody asks about fragments, so these bits are 0."""


class Evaluation:
    """Of one explanation: what its packet's unknowns are assumed to be on this way, and sets ready for look-ups."""

    __slots__ = ("_made", "_opaque", "_ready", "assumed", "decided", "flow", "updated")

    def __init__(self) -> None:
        self._opaque: dict[int, tuple[Opaque, Unknown]] = {}
        self._made: dict[tuple[Unknown, Hashable], tuple[Expression, Unknown]] = {}
        self._ready: dict[int, tuple[Elements, _Spans]] = {}
        self.assumed: dict[Unknown, Value] = {}
        self.decided: dict[tuple[object, ...], bool] = {}
        self.updated: set[str] = set()

    def begin(self, flow: Flow) -> None:
        """Another way: nothing is assumed yet, nor added to a set."""
        self.flow = flow
        self.assumed, self.decided, self.updated = {}, {}, set()

    # ── Expressions ────────────────────────────────────────────────────────────────────────────────────────────────
    def evaluate(self, expression: Expression) -> Evaluated:
        return _EVALUATE[type(expression)](self, expression)

    def _read(self, expression: Read) -> Evaluated:
        found = self.flow.get(expression.field)
        if type(found) is Unknown:
            return self.assumed.get(found, found)
        return found

    def _constant(self, expression: Constant) -> Evaluated:
        return expression.value

    def _bits(self, expression: Bits) -> Evaluated:
        found = self.evaluate(expression.of)
        if expression.of == _FRAGMENT_FIELD and found is not None and not expression.mask & ~_FRAGMENT:
            found = 0
        if type(found) is int:
            return ((found & expression.mask) ^ expression.xor) | expression.ored
        if type(found) is not Unknown:
            return None
        if not expression.mask:
            return expression.xor | expression.ored  # written over as a whole, whatever it was
        return self._derived(found, expression, expression)

    def _xored(self, expression: Xored) -> Evaluated:
        left, right = self.evaluate(expression.left), self.evaluate(expression.right)
        if type(left) is int and type(right) is int:
            return left ^ right
        unknown = unknown_in(left) or unknown_in(right)
        if left is None or right is None or unknown is None:
            return None
        return self._derived(unknown, expression, id(expression))

    def _joined(self, expression: Joined) -> Evaluated:
        parts: list[Known] = []
        for part in expression.parts:
            found = self.evaluate(part)
            if found is None:
                return None
            if type(found) is tuple:
                parts.extend(found)
            else:
                parts.append(found)  # type: ignore[arg-type]
        return tuple(parts)

    def _looked(self, expression: Looked) -> Evaluated:
        """What several elements may lead to is unknown, whatever they are (`candidates` has them)."""
        key = self.evaluate(expression.key)
        if key is None:
            return None
        if (unknown := unknown_in(key)) is not None:
            return self._derived(unknown, expression, id(expression))
        found, led = self.look(key, expression.among)
        return self.evaluate(led) if found and isinstance(led, _EXPRESSIONS) else None

    def _told_opaque(self, expression: Opaque) -> Evaluated:
        if id(expression) not in self._opaque:
            self._opaque[id(expression)] = (expression, Unknown(expression.why))
        return self._opaque[id(expression)][1]

    def _derived(self, of: Unknown, by: Expression, which: Hashable) -> Known:
        """Another value than the one it is made of, and the same one each time."""
        if (of, which) not in self._made:
            self._made[of, which] = (by, Unknown(of.why))
        found = self._made[of, which][1]
        return self.assumed.get(found, found)

    # ── Sets ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def look(self, key: Evaluated, among: Elements) -> tuple[bool, Led]:
        """Whether it is among them, and what it leads to. No part of the key is unknown."""
        wanted: Any = key if type(key) is tuple else (key,)
        if among.exact is not None and wanted in among.exact:
            return True, among.exact[wanted]
        spans = among.spans
        if len(spans) <= _FEW:
            for those, led in spans:
                if len(those) == len(wanted) and all(map(within, wanted, those)):
                    return True, led
            return False, None
        if id(among) not in self._ready:
            self._ready[id(among)] = (among, _Spans(among))
        return self._ready[id(among)][1].look(wanted)

    # ── Tests ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def holds(self, match: Match) -> bool | None:
        """None: nobody knows. Nearly every rule of a large ruleset ends at the first comparison here."""
        asked, right = match.left, match.right
        left: Evaluated = None
        if type(asked) is Read:
            left = self.flow.values.get(asked.field)
        if left is None or type(left) is Unknown:
            left = self.evaluate(asked)
        if left is None:
            return match.if_absent
        if type(right) is Constant and type(left) is not Unknown and type(left) is not tuple:
            return _COMPARE[match.op](left, right.value)
        if type(right) is Elements:
            return self._is_among(match, left, right)
        value = self.evaluate(right)  # type: ignore[arg-type]
        if value is None:
            return match.if_absent
        if unknown_in(left) is not None or unknown_in(value) is not None:
            if value == 0 and match.op in (Op.GREATER_OR_EQUAL, Op.LESS):  # there is one, whichever it is
                return match.op is Op.GREATER_OR_EQUAL
            return self._remembered(match)
        return _COMPARE[match.op](left, value)

    def _is_among(self, match: Match, left: Evaluated, among: Elements) -> bool | None:
        if unknown_in(left) is not None:
            return self._remembered(match)
        found = self.look(left, among)[0]
        if among.changing and not found and among.name in self.updated:
            return self._remembered(match)  # this very packet may be why it is in it by now
        return found is (match.op is not Op.UNEQUAL)

    def any_of(self, statement: AnyOf) -> bool | None:
        found: bool | None = False
        for match in statement.of:
            held = self.holds(match)
            if held:
                return not statement.negated
            if held is None:
                found = None
        return found if found is None else found is not statement.negated

    def assume(self, test: Match | AnyOf | Perhaps, held: bool) -> None:
        """On this way the test that nobody knows has this outcome, and the same question the same answer."""
        if type(test) is Perhaps:
            return
        if type(test) is Match and held is (test.op is not Op.UNEQUAL) and test.op in (Op.EQUAL, Op.UNEQUAL):
            left = self.evaluate(test.left)
            if type(left) is Unknown and type(test.right) is Constant:
                self.assumed[left] = test.right.value
                return
        self.decided[self._question(test)] = held

    def _remembered(self, match: Match) -> bool | None:
        return self.decided.get(self._question(match))

    def answered(self, test: AnyOf) -> bool | None:
        return self.decided.get(self._question(test))

    def _question(self, test: Match | AnyOf | Perhaps) -> tuple[object, ...]:
        """Whatever is equal is one question, as long as the unknown in it is the same."""
        asked = test.of[0].left if type(test) is AnyOf else test.left if type(test) is Match else None
        left = self.evaluate(asked) if asked is not None else None
        if type(test) is Match and type(test.right) is not Elements:
            return (left, test.left, test.op, test.right)
        return (left, id(test))

    def signature(self) -> tuple[object, ...]:
        return (tuple(self.assumed.items()), tuple(self.decided.items()), frozenset(self.updated))


def unknown_in(value: Evaluated) -> Unknown | None:
    if type(value) is Unknown:
        return value
    if type(value) is tuple:
        for part in value:
            if type(part) is Unknown:
                return part
    return None


class _Spans:
    """Ranges, prefixes and wildcards of a set. Of one component and without overlaps they are found by bisection."""

    __slots__ = ("_firsts", "_spans")

    def __init__(self, among: Elements) -> None:
        self._spans = list(among.spans)
        self._firsts: list[int] | None = None
        if all(len(spans) == 1 and type(spans[0].first) is int for spans, _ in self._spans):
            ordered = sorted(self._spans, key=lambda element: element[0][0].first)
            lasts = [element[0][0].last for element in ordered]
            firsts = [element[0][0].first for element in ordered]
            if all(last < first for last, first in zip(lasts, firsts[1:], strict=False)):  # type: ignore[operator]
                self._spans, self._firsts = ordered, firsts  # type: ignore[assignment]

    def look(self, wanted: tuple[Value, ...]) -> tuple[bool, Led]:
        if self._firsts is not None:
            at = bisect_right(self._firsts, wanted[0]) - 1
            if at >= 0 and wanted[0] <= self._spans[at][0][0].last:  # type: ignore[operator]
                return True, self._spans[at][1]
            return False, None
        for spans, led in self._spans:
            if len(spans) == len(wanted) and all(
                within(value, span) for value, span in zip(wanted, spans, strict=True)
            ):
                return True, led
        return False, None


def within(value: Value, span: Span) -> bool:
    if type(value) is str:
        first = span.first
        if type(first) is str and first.endswith("*"):
            return value.startswith(first[:-1])
        return value == first
    return span.first <= value <= span.last  # type: ignore[operator]


def candidates(among: Elements) -> list[Led]:
    """What its elements lead to, each once, in their order."""
    found: list[Led] = []
    for led in (*(among.exact or {}).values(), *(led for _, led in among.spans)):
        if led not in found:
            found.append(led)
    return found


def covers_all(among: Elements) -> bool:
    """Of a map of 0, 1, 2 …: what numgen and jhash are made for gives one of them (nft(8), NUMGEN)."""
    keys = set(among.exact or ())
    return all((number,) in keys for number in range(len(keys))) and not among.spans


_EXPRESSIONS: Final = (Read, Constant, Bits, Xored, Joined, Looked, Opaque)
_EVALUATE: Final[dict[type, Callable[..., Evaluated]]] = {
    Read: Evaluation._read,
    Constant: Evaluation._constant,
    Bits: Evaluation._bits,
    Joined: Evaluation._joined,
    Xored: Evaluation._xored,
    Looked: Evaluation._looked,
    Opaque: Evaluation._told_opaque,
}
_COMPARE: Final[dict[Op, Callable[[Evaluated, Evaluated], bool]]] = {
    Op.EQUAL: lambda left, right: left == right,
    Op.UNEQUAL: lambda left, right: left != right,
    Op.LESS: lambda left, right: left < right,  # type: ignore[operator]
    Op.LESS_OR_EQUAL: lambda left, right: left <= right,  # type: ignore[operator]
    Op.GREATER: lambda left, right: left > right,  # type: ignore[operator]
    Op.GREATER_OR_EQUAL: lambda left, right: left >= right,  # type: ignore[operator]
    Op.ANY_BIT: lambda left, right: bool(left & right),  # type: ignore[operator]
}
