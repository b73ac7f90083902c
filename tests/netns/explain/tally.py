"""How often what was met, where explanation and kernel were compared; as a program: `make test-nightly`.

python -m tests.netns.explain.tally [PAIRS] [FIRST-SEED]
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.explain.outcome import Fate, Step
from agent.explain.statements import AnyOf, Elements, Field, Match, Nat, Op, Read, Set, Statement, Verdict, VerdictMap
from tests.netns.explain.agreement import is_unheard
from tests.netns.explain.generate import PACKETS, case, peers
from tests.netns.explain.run import Pair, pairs
from tests.netns.explain.scenes import Scenes

PAIRS: Final = 10_000
EACH: Final = 100
"""Of every supported expression, statement and peer, among `PAIRS`."""
ELSEWHERE: Final = (Fate.REDIRECT, Fate.DNAT, Fate.TPROXY)
GONE: Final = (Fate.DROP, Fate.REJECT)
_WRITTEN: Final = Path("build/explain-tally.md")


@dataclass(slots=True)
class Tally:
    """`kernel`: what it did, as far as that can be seen; `met`: pairs in which a rule with it was met."""

    pairs: int = 0
    certain: int = 0
    unheard: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    makers: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        outcome = pair.explanation.outcome
        self.pairs += 1
        self.certain += outcome.fate is not Fate.UNKNOWN
        self.unheard += is_unheard(pair.explanation, pair.seen)
        self.outcomes[outcome.fate.value] += 1
        self.makers[pair.case.maker] += 1
        self.tables[pair.case.maker.partition(" (")[0]] += 1
        self.ways[f"IPv{pair.packet.destination.version} {pair.packet.way.value}"] += 1
        self.ways[f"{pair.packet.state.value}"] += 1
        for word in {word for step in pair.explanation.path if isinstance(step, Step) for word in _words(step)}:
            self.met[word] += 1
        if pair.difference:
            self.different.append(f"seed {pair.case.seed} ({pair.case.maker}): {pair.packet}: {pair.difference}")

    def share(self, fates: Iterable[Fate]) -> float:
        return sum(self.outcomes[fate.value] for fate in fates) / max(1, self.pairs)

    def short(self) -> Iterator[str]:
        """What was not met as often as is wanted (issue 6), also what was never met: every field and operator there is,
        every maker of rules."""
        for what, fates, wanted in (("redirected", (Fate.REDIRECT,), 0.30), ("dropped or rejected", GONE, 0.20)):
            if self.share(fates) < wanted:
                yield f"{what}: {self.share(fates):.1%}, below {wanted:.0%}"
        met = self.met.copy()
        for one in Op:  # also where it is only ever asked of a set
            met[f"operator: {one.value}"] += met[f"operator: {one.value} set"]
        for word in dict.fromkeys((*(f"expression: {one.value}" for one in Field), *met)):
            if met[word] < EACH:
                yield f"rare: {word}, {met[word]} pairs"
        for maker in dict.fromkeys((*peers(), *self.tables)):
            if self.tables[maker] < EACH:
                yield f"rare: rules of {maker}, {self.tables[maker]} pairs"

    def lines(self) -> Iterator[str]:
        yield f"{self.pairs} pairs of a ruleset and a packet, {len(self.different)} on which they differ"
        yield (
            f"redirected {self.share((Fate.REDIRECT,)):.1%}, led elsewhere {self.share(ELSEWHERE):.1%}, "
            f"dropped or rejected {self.share(GONE):.1%}, "
            f"certain {self.certain / max(1, self.pairs):.1%}, rejected without an answer that got out {self.unheard}"
        )
        for title, counted in (("outcome", self.outcomes), ("ways", self.ways), ("tables of", self.tables),
                               ("made with", self.makers),
                               ("met", self.met)):  # fmt: skip
            yield ""
            yield f"| {title} | pairs |"
            yield "|---|---|"
            yield from (f"| {word} | {count} |" for word, count in sorted(counted.items()))


def _words(step: Step) -> Iterator[str]:
    """Expressions and statements that the packet came to in one rule."""
    if step.rule is None:
        yield "policy drop" if step.what == "policy drop" else "policy accept"
        return
    for statement in step.rule.statements:
        yield from _of(statement)
        if statement is step.failed:
            break


def _of(statement: Statement) -> Iterator[str]:
    if isinstance(statement, Match):
        left = statement.left
        yield f"expression: {left.field.value if isinstance(left, Read) else type(left).__name__.lower()}"
        if not isinstance(left, Read) and hasattr(left, "of") and isinstance(left.of, Read):
            yield f"expression: {left.of.field.value}"
        among = isinstance(statement.right, Elements)
        yield f"operator: {statement.op.value}{' set' if among else ''}"
        return
    if isinstance(statement, AnyOf):
        yield "statement: any of"
        for one in statement.of:
            yield from _of(one)
        return
    word = type(statement).__name__.lower()
    if isinstance(statement, Verdict):
        word = statement.decision.value
    elif isinstance(statement, Nat):
        word = statement.kind.value
    elif isinstance(statement, Set):
        word = f"set {statement.field.value}"
    elif isinstance(statement, VerdictMap):
        word = "verdict map"
    yield f"statement: {word}"


def run(wanted: int, first: int = 0) -> Tally:
    tally = Tally()
    with Scenes() as scenes:
        for seed in range(first, first + -(-wanted // PACKETS)):
            for pair in pairs(scenes.of(seed), case(seed)):
                tally.add(pair)
    return tally


def main(arguments: list[str]) -> int:
    wanted, first = (*map(int, arguments), *(PAIRS, 0)[len(arguments) :])
    began = time.monotonic()
    tally = run(wanted, first)
    text = "\n".join(tally.lines())
    _WRITTEN.parent.mkdir(exist_ok=True)
    _WRITTEN.write_text(f"{text}\n")
    print(text)
    print(f"\n{time.monotonic() - began:.0f} s; written to {_WRITTEN}")
    short = [*tally.short()] if wanted >= PAIRS else []
    for words in short:
        print(words)
    for difference in tally.different:
        print(f"DIFFERENT {difference}")
    return 1 if tally.different or short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
