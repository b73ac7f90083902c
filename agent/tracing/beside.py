"""The kernel's trace of a packet beside what agent.explain says of it: rule by rule, and where they differ. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from agent.explain.outcome import Explanation, Fate, Outcome, Passage, Result, Step
from agent.explain.tables import Tool
from agent.tracing.traced import Kind, Trace, TracedPacket

HEAD: Final = ("", "TABLE", "CHAIN", "RULE", "SAID BY")
_DROPPED: Final = frozenset({Fate.DROP, Fate.REJECT})
_TRANSLATED: Final = frozenset({Fate.REDIRECT, Fate.DNAT})


@dataclass(frozen=True, slots=True)
class Met:
    """A rule that matched. `handle` names it in its table; `place` 0: not known."""

    family: str
    table: str
    chain: str
    handle: int
    place: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        return self.family, self.table, self.handle


@dataclass(frozen=True, slots=True)
class Row:
    """`explained`, `traced`: which side says that the rule matched."""

    met: Met
    explained: bool
    traced: bool


@dataclass(frozen=True, slots=True)
class Beside:
    """`differs`: in words, empty when they agree. `way`: with which of several ways the kernel went, from 1."""

    rows: tuple[Row, ...]
    differs: tuple[str, ...]
    way: int = 1
    notes: tuple[str, ...] = ()


def beside(explanation: Explanation, trace: Trace, refused: str) -> Beside:
    """`refused`: why the packet was not sent. Of several ways the one that differs least."""
    packet = trace.packets[0] if trace.packets else None
    ways = explanation.either or ((explanation.outcome, explanation.path),)
    found = [_compared(outcome, path, packet, refused, number) for number, (outcome, path) in enumerate(ways, 1)]
    best = min(found, key=lambda one: len(one.differs))
    notes = [*trace.notes, *best.notes]
    if refused:
        notes.append(f"the kernel would not send it: {refused}")
    if len(trace.packets) > 1:
        notes.append(f"{len(trace.packets)} packets looked like it; this is the first one's trace")
    return Beside(best.rows, best.differs, best.way, tuple(notes))


def _compared(
    outcome: Outcome, path: Sequence[Step | Passage], packet: TracedPacket | None, refused: str, way: int
) -> Beside:
    steps = [step for step in path if isinstance(step, Step) and step.rule is not None]
    unsure = next((at for at, step in enumerate(steps) if step.result is Result.PERHAPS), len(steps))
    certain = _matched(steps[:unsure])
    told = [*certain, *_matched(steps[unsure:])]
    if packet is None:
        differs = () if refused or not told else ("the kernel traced nothing",)
        return Beside(tuple(Row(met, explained=True, traced=False) for met in told), differs, way)
    rows = tuple(_rows(told, tuple(_seen(packet))))
    ended, notes = _outcome(outcome, packet)
    if unsure < len(steps):
        notes += (f"from {_words(_met(steps[unsure]))} on rules hang on what is not known, and are not compared",)
    return Beside(rows, (*_differences(rows, None if unsure == len(steps) else len(certain)), *ended), way, notes)


def _matched(steps: Sequence[Step]) -> list[Met]:
    """Those that send a trace: legacy's rules do not, and without a handle nobody can tell which it was."""
    found = [_met(step) for step in steps if step.failed is None and step.table.tool is not Tool.IPTABLES_LEGACY]
    return [met for met in found if met.handle]


def _differences(rows: Sequence[Row], certain: int | None) -> Iterator[str]:
    """`certain`: how many rules are, from the first on; None: all."""
    told = 0
    for row in rows:
        if told == certain:
            return
        told += row.explained
        if row.explained is not row.traced:
            yield f"{_words(row.met)}: only {'explain' if row.explained else 'the kernel'} says that it matched"


def _met(step: Step) -> Met:
    assert step.rule is not None
    return Met(step.table.family, step.table.name, step.chain, step.rule.handle, step.rule.place)


def _seen(packet: TracedPacket) -> Iterator[Met]:
    for step in packet.steps:
        if step.kind is Kind.RULE:
            yield Met(step.family, step.table, step.chain, step.handle, step.rule.place if step.rule else 0)


def _rows(told: Sequence[Met], seen: Sequence[Met]) -> Iterator[Row]:
    matcher = SequenceMatcher(None, [met.key for met in told], [met.key for met in seen], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            yield from (Row(met, explained=True, traced=True) for met in told[a:b])
        else:
            yield from (Row(met, explained=True, traced=False) for met in told[a:b])
            yield from (Row(met, explained=False, traced=True) for met in seen[c:d])


def _words(met: Met) -> str:
    number = f"rule {met.place}" if met.place else f"handle {met.handle}"
    return f"{met.family} {met.table} {met.chain} {number}"


def _outcome(outcome: Outcome, packet: TracedPacket) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What differs, and what could not be compared."""
    dropped = packet.dropped is not None
    if outcome.fate is Fate.DROP and outcome.note and not dropped:
        # With a note it is no rule that drops, and only rules send a trace.
        return (), (f"explain says that it is lost outside of rules ({outcome.note[0]}): not compared",)
    if dropped or outcome.fate in _DROPPED:
        if dropped == (outcome.fate in _DROPPED):
            return (), ()
        return (f"the kernel {'dropped it' if dropped else 'did not drop it'}, explain says {outcome.fate.value}",), ()
    connection = packet.connection
    if connection is None:
        return (), ("conntrack told no connection of it: where it was led is not compared",)
    led = connection.reply.source, connection.reply.source_port
    if outcome.fate in _TRANSLATED:
        wrong = (outcome.address not in (None, led[0])) or (outcome.port not in (None, led[1]))
        words = f"the kernel led it to {led[0]} port {led[1]}, explain says {outcome.address} port {outcome.port}"
        return ((words,) if wrong else ()), ()
    if outcome.fate is Fate.ACCEPT and connection.destination_translated:
        return (f"the kernel led it to {led[0]} port {led[1]}, explain says that it passes",), ()
    return (), ()
