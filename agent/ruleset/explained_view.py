"""An explanation as a table and as JSON. Pure; everything is made printable here or by the table's writer."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from agent.explain.outcome import Doubt, Fate, Outcome, Passage, Result, Step
from agent.explain.statements import Field, Match, Read, Statement
from agent.explain.tables import Rule, Table
from agent.explain.words import in_words, statement_in_words
from agent.explain.words_values import value_in_words
from agent.printable import printable
from agent.ruleset.explained import Explained, Folded, Path, folded, outcome_in_words, packet_in_words
from agent.ruleset.inventory import COMMENT_PREFIX, HEADGATE, UNKNOWN, HeldChain, HeldRule, HeldTable
from agent.ruleset.meanings import meanings_for
from agent.ruleset.view import NO_LONGER
from agent.ruleset.whose import told_apart

_WAYS: Final = 3
"""Beside the first: a Service of kube-proxy's has one for each of its endpoints, and they are told in the outcome."""
_TEXT: Final = 400
"""Characters of a rule that are shown: kube-proxy's longest have 300."""
_WIDEST: Final = (5, 8, 44, 64)
"""Of the columns before the last one, in characters: a longer cell moves what stands behind it in its own line only."""


@dataclass(frozen=True, slots=True)
class Told:
    """One rule in words. `rule_id` and `meaning` of ours are the plan's."""

    text: str
    comment: str
    whose: str
    rule_id: str | None
    meaning: str


class Teller:
    """Puts rules into words: whose, what for."""

    __slots__ = ("_meaning", "_texts")

    def __init__(self, explained: Explained) -> None:
        self._texts = explained.texts
        steps = (step for step in explained.explanation.path if isinstance(step, Step))
        comments = {step.rule.comment for step in steps if step.rule is not None}
        ids = [comment.removeprefix(COMMENT_PREFIX) for comment in comments if comment.startswith(COMMENT_PREFIX)]
        # Asked for only where there are some: all plans are made for it once, which takes 15 ms.
        self._meaning = functools.cache(lambda: meanings_for(ids))

    def rule(self, table: Table, chain: str, rule: Rule) -> Told:
        text = rule.text or self._listed(table, chain, rule)
        one = HeldRule(text, rule.comment)
        held = told_apart(HeldTable(table.tool, table.family, table.name, (HeldChain(chain, (one,)),)))
        found = held.chains[0].rules[0]
        if not found.is_ours or found.rule_id is None:
            return Told(text, rule.comment, found.whose, None, in_words(rule))
        return Told(text, rule.comment, found.whose, found.rule_id, self._meaning()(found.rule_id) or NO_LONGER)

    def _listed(self, table: Table, chain: str, rule: Rule) -> str:
        """Empty when nft's text could not be told apart."""
        texts = self._texts.get((table.family, table.name, chain), ())
        return texts[rule.place - 1] if rule.place <= len(texts) else ""


# ── Why ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def why(step: Step) -> str:
    """Of a rule that missed, what did not hold; of others, what it did."""
    if step.failed is None or step.result is Result.PERHAPS:
        return step.what
    had = "" if step.had is None else f", but {value_in_words(_field(step.failed), step.had)}"
    return f"not {statement_in_words(step.failed)}{had}"


def _field(statement: Statement) -> Field | None:
    left = statement.left if isinstance(statement, Match) else None
    return left.field if isinstance(left, Read) else None


# ── For people ─────────────────────────────────────────────────────────────────────────────────────────────────────
def lines(explained: Explained, *, everything: bool = False) -> Iterator[str]:
    """All but the outcome, in the order of the packet's way."""
    yield packet_in_words(explained.described.packet)
    for assumed in explained.described.assumed:
        yield f"  {printable(assumed, _TEXT)}"
    teller = Teller(explained)
    yield from _path(explained.explanation.path, teller, everything)
    main, others = explained.explanation.path, explained.explanation.either[1:]
    shown = others if everything else others[:_WAYS]
    for number, (_, path) in enumerate(shown, 2):
        begins = _common(main, path)
        ends = _common(main[begins:][::-1], path[begins:][::-1])
        yield f"\nway {number}, from {_place(path[begins]) if begins < len(path) else 'there'} on"
        yield from _path(path[begins : len(path) - ends], teller, everything)
        if ends:
            yield f"\n-- on as in way 1, from {_place(path[-ends])}"
    if len(shown) < len(others):
        yield f"\n… {len(others) - len(shown)} more ways; --all shows them"


def _common(one: Path, other: Path) -> int:
    """How many steps they share from their first on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, others) in pairs if not _same(mine, others)), min(len(one), len(other)))


def _same(one: Step | Passage, other: Step | Passage) -> bool:
    """Without a look into tables, which may read the kernel."""
    if isinstance(one, Step) and isinstance(other, Step):
        where = one.rule is other.rule and one.table is other.table and one.chain == other.chain
        return where and (one.hook, one.result, one.what) == (other.hook, other.result, other.what)
    return one == other if isinstance(one, Passage) and isinstance(other, Passage) else False


def _place(step: Step | Passage) -> str:
    if isinstance(step, Passage):
        return printable(step.what, _TEXT)
    number = "its policy" if step.rule is None else f"rule {step.rule.place}"
    return f"{number} of {_chain(step.table, step.chain)}"


def _chain(table: Table, chain: str) -> str:
    return f"{table.family} {printable(table.name)} {printable(chain)}"


def _path(path: Path, teller: Teller, everything: bool) -> Iterator[str]:
    shown = list(path) if everything else folded(path)
    at = 0
    while at < len(shown):
        first = shown[at]
        if isinstance(first, Passage):
            yield f"\n-- {printable(first.what, _TEXT)}"
            at += 1
            continue
        end = next((i for i in range(at, len(shown)) if not _in_group(first, shown[i])), len(shown))
        yield from _group(shown[at:end], teller)
        at = end


def _in_group(first: Step | Folded, other: Step | Passage | Folded) -> bool:
    if isinstance(other, Passage):
        return False
    one, another = (of.first if isinstance(of, Folded) else of for of in (first, other))
    return one.table is another.table and one.chain == another.chain and one.hook is another.hook


def _group(shown: Iterable[Step | Passage | Folded], teller: Teller) -> Iterator[str]:
    """One chain's rules, under a heading that says whose they are."""
    rows: list[tuple[str, ...]] = []
    whose: set[str] = set()
    step: Step | None = None
    for one in shown:
        assert not isinstance(one, Passage)
        step = one.first if isinstance(one, Folded) else one
        if isinstance(one, Folded):
            rows.append(("…", step.result.value, f"{one.count} rules; --all shows them", "", ""))
        elif step.rule is None:
            rows.append(("-", step.result.value, step.what, "", ""))
        else:
            told = teller.rule(step.table, step.chain, step.rule)
            whose.add(told.whose)
            rows.append((str(step.rule.place), step.result.value, why(step), told.rule_id or told.text, _meaning(told)))
    assert step is not None
    names = sorted({"ours" if name == HEADGATE else name for name in whose} - {UNKNOWN})
    heading = f"{step.hook.value}: {step.table.tool.value} {_chain(step.table, step.chain)}"
    yield f"\n{heading} ({', '.join(names)})" if names else f"\n{heading}"
    yield from _aligned(rows)


def _meaning(told: Told) -> str:
    """With what a rule of others says of itself."""
    return f"{told.meaning}  # {told.comment}" if told.comment and told.rule_id is None else told.meaning


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    cells = [[printable(cell, _TEXT) for cell in row] for row in rows]
    widths = [min(widest, max(len(row[n]) for row in cells)) for n, widest in enumerate(_WIDEST)]
    for number, *rest, last in cells:
        middle = (cell.ljust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join(("", number.rjust(widths[0]), *middle, last)).rstrip()


def outcomes(explained: Explained) -> list[str]:
    """The last lines: what could not be interpreted, and what becomes of it."""
    explanation = explained.explanation
    doubts = [_doubt(doubt) for doubt in explanation.doubts]
    if explanation.outcome.fate is not Fate.UNKNOWN:
        told = [f"not known, and the outcome is the same: {doubt}" for doubt in doubts]
        return [*told, f"outcome: {outcome_in_words(explanation.outcome, explained.listeners)}"]
    told = [f"not known: {doubt}" for doubt in doubts]
    ways = [outcome_in_words(outcome, explained.listeners) for outcome, _ in explanation.either]
    notes = "; ".join(printable(note, _TEXT) for note in explanation.outcome.note)
    head = ("unknown", "unknown, perhaps", "unknown, one of")[min(len(ways), 2)] + (f" ({notes})" if notes else "")
    return [*told, f"outcome: {head}", *(f"  {number}  {way}" for number, way in enumerate(ways, 1))]


def _doubt(doubt: Doubt) -> str:
    where = _chain(doubt.table, doubt.chain)
    number = "" if doubt.rule is None else f" rule {doubt.rule.place}"
    return f"{where}{number}: {printable(doubt.text, _TEXT)}: {printable(doubt.why, _TEXT)}"


# ── For programs ───────────────────────────────────────────────────────────────────────────────────────────────────
def as_json(explained: Explained) -> dict[str, Any]:
    """Keys are stable. `path` has an entry for each rule that was met, each policy (`rule` null) and what no rule did
    (`table` null); `either` is empty where the outcome is certain."""
    explanation = explained.explanation
    teller = Teller(explained)
    return {
        "packet": packet_in_words(explained.described.packet),
        "assumed": [printable(text, _TEXT) for text in explained.described.assumed],
        "outcome": _outcome(explanation.outcome, explained),
        "path": _steps(explanation.path, teller),
        "either": [
            {**_outcome(outcome, explained), "path": _steps(path, teller)} for outcome, path in explanation.either
        ],
        "unknown": [_unknown(doubt, teller) for doubt in explanation.doubts],
        "unread": [printable(reason, _TEXT) for reason in explained.unread],
    }


def _outcome(outcome: Outcome, explained: Explained) -> dict[str, Any]:
    return {
        "verdict": outcome.fate.value,
        "port": outcome.port,
        "address": None if outcome.address is None else str(outcome.address),
        "meaning": outcome_in_words(outcome, explained.listeners),
        "note": [printable(note, _TEXT) for note in outcome.note],
    }


def _steps(path: Path, teller: Teller) -> list[dict[str, Any]]:
    return [_step(step, teller) if isinstance(step, Step) else _passage(step) for step in path]


def _passage(passage: Passage) -> dict[str, Any]:
    return {"table": None, "chain": None, "rule": None, "meaning": printable(passage.what, _TEXT), "result": "passage"}


def _step(step: Step, teller: Teller) -> dict[str, Any]:
    told = None if step.rule is None else teller.rule(step.table, step.chain, step.rule)
    return {
        "hook": step.hook.value,
        **_where(step.table, step.chain, step.rule),
        "rule": None if told is None else printable(told.text, _TEXT),
        "comment": None if told is None else printable(told.comment),
        "id": None if told is None or told.rule_id is None else printable(told.rule_id),
        "whose": None if told is None else told.whose,
        "meaning": printable(step.what if told is None else told.meaning, _TEXT),
        "result": step.result.value,
        "why": printable(why(step), _TEXT),
    }


def _where(table: Table, chain: str, rule: Rule | None) -> dict[str, Any]:
    return {
        "tool": table.tool.value,
        "family": table.family,
        "table": printable(table.name),
        "chain": printable(chain),
        "place": None if rule is None else rule.place,
        "handle": None if rule is None else rule.handle or None,
    }


def _unknown(doubt: Doubt, teller: Teller) -> dict[str, Any]:
    told = None if doubt.rule is None else teller.rule(doubt.table, doubt.chain, doubt.rule)
    return {
        **_where(doubt.table, doubt.chain, doubt.rule),
        "rule": None if told is None else printable(told.text, _TEXT),
        "what": printable(doubt.text, _TEXT),
        "why": printable(doubt.why, _TEXT),
    }
