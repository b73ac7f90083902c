"""A packet in one base chain and all that it jumps to: nft_do_chain (net/netfilter/nf_tables_core.c) and ipt_do_table
(net/ipv4/netfilter/ip_tables.c), which agree on all that is said here. Pure.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Final

from agent.explain import effects
from agent.explain.evaluate import candidates, covers_all, unknown_in
from agent.explain.outcome import Result, Step
from agent.explain.statements import (
    AnyOf,
    Decision,
    Match,
    NoEffect,
    Notrack,
    Opaque,
    Perhaps,
    Read,
    Reject,
    Set,
    Statement,
    Test,
    Tproxy,
    Unread,
    Value,
    Verdict,
    VerdictMap,
)
from agent.explain.statements import Nat as NatStatement
from agent.explain.tables import Chain, ChainType, Hook, Rule, Table, Tool
from agent.explain.way import Way

_MOST_JUMPS: Final = 10_000
"""In one base chain. The kernel refuses chains that lead in a circle; what was read while it changed may do so."""
_SET_NAMED: Final = re.compile(r'@([^"\s,}]+)')
"""In a statement that has no effect on this packet's way by itself: the set that it adds to."""
_IF_SO, _IF_NOT = "if it does", "if it does not"


class Ending(Enum):
    """How a base chain ended for the packet. Only ACCEPT lets it go on."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    UNKNOWN = "unknown"  # translated, or worse, in a way that cannot be read


class _Missed:
    """The rule ends here: the statement did not hold."""


_MISSED: Final = _Missed()
Said = Ending | Verdict | _Missed | None
"""None: the next statement."""


class Walk:
    """One base chain's. `said`: what the rule that is met does, in words, as far as it got."""

    __slots__ = (
        "base",
        "chain",
        "doubtful",
        "hook",
        "index",
        "jumps",
        "rule",
        "rules",
        "said",
        "stack",
        "table",
        "way",
    )

    def __init__(self, way: Way, table: Table, chain: Chain) -> None:
        self.way, self.table, self.base, self.chain = way, table, chain, chain
        self.hook: Hook = way.flow.hook
        self.rules: Sequence[Rule] = chain.rules
        way.flow.read_by(iptables=table.tool is not Tool.NFT)
        self.index = self.jumps = 0
        self.stack: list[tuple[Chain, Sequence[Rule], int]] = []

    def run(self) -> Ending:
        """Raises what reading a chain raises."""
        while True:
            if self.index >= len(self.rules):
                if not self.stack:
                    return self._policy()
                self.chain, self.rules, self.index = self.stack.pop()
                continue
            rule = self.rules[self.index]
            self.index += 1
            ending = self._meet(rule)
            if ending is not None:
                return ending

    def _policy(self) -> Ending:
        drops = self.base.base is not None and self.base.base.drops
        result = Result.DECIDED if drops else Result.WENT_ON
        self._step(None, result, "policy drop" if drops else "policy accept")
        return Ending.DROP if drops else Ending.ACCEPT

    # ── One rule ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _meet(self, rule: Rule) -> Ending | None:
        self.way.count()
        self.rule, self.doubtful = rule, False
        self.said: list[str] = []
        holds = self.way.evaluation.holds
        for number, statement in enumerate(rule.statements):
            if type(statement) is Match:
                held = holds(statement)
                if held is None:
                    held = self._ask(number, statement)
                if held:
                    continue
                said: Said = _MISSED
            else:
                said = _DO[type(statement)](self, number, statement)
            if said is None:
                continue
            if said is _MISSED:
                self._miss(statement)
                return None
            return self._decide(said)  # type: ignore[arg-type]
        self._step(rule, Result.WENT_ON, ", ".join(self.said))
        return None

    def _miss(self, statement: Statement) -> None:
        had: Value | None = None
        if type(statement) is Match and type(statement.left) is Read:
            found = self.way.flow.get(statement.left.field)
            had = found if isinstance(found, (int, str)) else None
        result = Result.PERHAPS if self.doubtful else Result.MISSED
        what = ", ".join(self.said)
        self.way.path.append(Step(self.hook, self.table, self.chain.name, self.rule, result, what, statement, had))

    def _step(self, rule: Rule | None, result: Result, what: str) -> None:
        if self.doubtful_here(rule):
            result = Result.PERHAPS
        chain = self.chain.name if rule is not None else self.base.name
        self.way.path.append(Step(self.hook, self.table, chain, rule, result, what))

    def doubtful_here(self, rule: Rule | None) -> bool:
        return rule is not None and self.doubtful

    # ── Tests that nobody can tell ─────────────────────────────────────────────────────────────────────────────────
    def _ask(self, number: int, test: Test) -> bool:
        """Both ways are followed, unless nothing hangs on it."""
        self.doubtful = True
        if all(type(rest) in _HARMLESS for rest in self.rule.statements[number + 1 :]):
            self.said.append("nothing hangs on it")
            return False
        effects.doubt_test(self.way, self.table, self.chain.name, self.rule, test)
        # Chance lets most pass, of one among many values few: the first way is the likelier one, no more.
        likely = type(test) is Perhaps
        held = (self.choose(2) == 0) is likely
        self.way.evaluation.assume(test, held)
        self.said.append(_IF_SO if held else _IF_NOT)
        return held

    def choose(self, count: int) -> int:
        """At this rule."""
        return self.way.choose(count, self.place)

    @property
    def place(self) -> Hashable:
        return (id(self.base), id(self.chain), self.index, tuple((id(chain), at) for chain, _, at in self.stack))

    def _any_of(self, number: int, statement: AnyOf) -> Said:
        held = self.way.evaluation.any_of(statement)
        if held is None:
            held = self.way.evaluation.answered(statement)
        if held is None:
            held = self._ask(number, statement)
        return None if held else _MISSED

    def _perhaps(self, number: int, statement: Perhaps) -> Said:
        return None if self._ask(number, statement) else _MISSED

    # ── Verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _verdict(self, _: int, statement: Verdict) -> Said:
        return statement

    def _verdict_map(self, _: int, statement: VerdictMap) -> Said:
        evaluation = self.way.evaluation
        key = evaluation.evaluate(statement.key)
        if key is None:
            return _MISSED
        if (unknown := unknown_in(key)) is None:
            found, led = evaluation.look(key, statement.among)
        else:
            ways = candidates(statement.among)
            chance = type(statement.key) is Opaque and covers_all(statement.among)
            self._doubt(effects.text_of(self.rule, statement), unknown.why)
            at = self.choose(len(ways) + (not chance)) if ways or not chance else 0
            found, led = at < len(ways), ways[at] if at < len(ways) else None
        if not found:
            return _MISSED
        if type(led) is Verdict:
            return led
        return self._unread(0, Unread(led if type(led) is Opaque else Opaque("verdict", "it is no verdict")))

    def _decide(self, said: Ending | Verdict) -> Ending | None:
        if isinstance(said, Ending):
            self._step(self.rule, Result.DECIDED, ", ".join(self.said))
            return said
        decision = said.decision
        if decision in (Decision.JUMP, Decision.GOTO):
            return self._jump(said)
        self.said.append(decision.value)
        if decision is Decision.CONTINUE:
            self._step(self.rule, Result.WENT_ON, ", ".join(self.said))
            return None
        if decision is Decision.RETURN:
            self._step(self.rule, Result.WENT_ON, ", ".join(self.said))
            if not self.stack:
                return self._policy()
            self.chain, self.rules, self.index = self.stack.pop()
            return None
        ending = Ending.DROP if decision is Decision.DROP else Ending.ACCEPT
        if decision is Decision.QUEUE:
            self._doubt("queue", "a program decides")
            ending = (Ending.ACCEPT, Ending.DROP)[self.choose(2)]
        self._step(self.rule, Result.DECIDED, ", ".join(self.said))
        return ending

    def _jump(self, verdict: Verdict) -> Ending | None:
        chain = self.table.chains.get(verdict.chain)
        if chain is None:
            gone = Opaque(f"{verdict.decision.value} {verdict.chain}", "it was gone when its chains were read")
            said = self._unread(0, Unread(gone))
            self._step(self.rule, Result.PERHAPS, ", ".join(self.said))
            return said if isinstance(said, Ending) else None
        self.said.append(f"{verdict.decision.value} {chain.name}")
        self._step(self.rule, Result.WENT_ON, ", ".join(self.said))
        self.jumps += 1
        if self.jumps > _MOST_JUMPS:
            self._doubt(
                ", ".join(self.said), f"more than {_MOST_JUMPS:,} jumps: the chains lead in a circle, or nearly"
            )
            return Ending.UNKNOWN
        if verdict.decision is Decision.JUMP:
            self.stack.append((self.chain, self.rules, self.index))
        self.chain, self.rules, self.index = chain, chain.rules, 0
        return None

    # ── What else a rule does ──────────────────────────────────────────────────────────────────────────────────────
    def _reject(self, _: int, statement: Reject) -> Said:
        self.said.append(f"reject with {statement.kind}" if statement.kind else "reject")
        return Ending.REJECT

    def _nat(self, _: int, statement: NatStatement) -> Said:
        told = effects.translate(self.way, statement, self.choose)
        if told.doubt:
            self._doubt(effects.text_of(self.rule, statement), told.doubt)
        if not told.what:
            return _MISSED
        self.said.append(told.what)
        return Ending.ACCEPT if told.goes_on else Ending.DROP

    def _tproxy(self, _: int, statement: Tproxy) -> Said:
        told = effects.tproxy(self.way, statement, self.choose)
        if told.doubt:
            self._doubt(effects.text_of(self.rule, statement), told.doubt)
        if not told.goes_on and not statement.ends:
            return _MISSED
        self.said.append(told.what)
        if not statement.ends:
            return None
        return Ending.ACCEPT if told.goes_on else Ending.DROP

    def _set(self, _: int, statement: Set) -> Said:
        said = effects.change(self.way, statement, self.choose, nft=self.table.tool is Tool.NFT)
        if said is None:
            return _MISSED
        self.said.append(said)
        return None

    def _notrack(self, *_: object) -> Said:
        self.said.append("not tracked" if self.way.flow.untrack() else "not tracked: too late, it is already")
        return None

    def _no_effect(self, _: int, statement: NoEffect) -> Said:
        if (found := _SET_NAMED.search(statement.text)) is not None:
            self.way.evaluation.updated.add(found.group(1))
        return None

    def _unread(self, _: int, statement: Unread) -> Said:
        """It may end the chain, and either way; in a NAT chain it may translate."""
        self.doubtful = True
        self._doubt(statement.what.text, statement.what.why)
        nat = self.base.base is not None and self.base.base.kind is ChainType.NAT
        answer = self.choose(4 if nat else 3)
        self.said.append(("goes on, perhaps", "accept, perhaps", "drop, perhaps", "translates, perhaps")[answer])
        return (None, Ending.ACCEPT, Ending.DROP, Ending.UNKNOWN)[answer]

    def _doubt(self, text: str, why: str) -> None:
        self.doubtful = True
        self.way.doubt(self.table, self.chain.name, self.rule, text, why)


_HARMLESS: Final = (NoEffect, Match, AnyOf, Perhaps)
_DO: Final[dict[type, Callable[..., Said]]] = {
    AnyOf: Walk._any_of,
    Perhaps: Walk._perhaps,
    Verdict: Walk._verdict,
    VerdictMap: Walk._verdict_map,
    Reject: Walk._reject,
    NatStatement: Walk._nat,
    Tproxy: Walk._tproxy,
    Set: Walk._set,
    Notrack: Walk._notrack,
    NoEffect: Walk._no_effect,
    Unread: Walk._unread,
}
