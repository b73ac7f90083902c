"""What becomes of a packet under a ruleset: every rule that it meets, in order, and its outcome. Pure.

What cannot be told is followed both ways (choices.py); outcomes that agree are certain.
"""

from agent.explain.choices import LARGEST_WAYS, TooLong, Walked
from agent.explain.flow import Flow, Known, flow_of
from agent.explain.journey import travel
from agent.explain.outcome import Explanation, Fate, Outcome, Passage, Step
from agent.explain.packet import Packet
from agent.explain.statements import Field
from agent.explain.stations import stations
from agent.explain.surroundings import Surroundings
from agent.explain.tables import Ruleset
from agent.explain.way import Around, Common, Way, lazily

Path = tuple[Step | Passage, ...]


def explain(ruleset: Ruleset, packet: Packet, surroundings: Surroundings) -> Explanation:
    """Raises what reading a chain or asking the surroundings raises, and nothing of its own."""
    common = Common(packet, stations(ruleset, packet.destination.version), Around(surroundings))
    found: list[tuple[Outcome, Path]] = []
    ways, cut = 0, False
    while common.choices.begin():
        ways += 1
        if ways > LARGEST_WAYS:
            cut = True
            break
        way = Way(common, _flow(common))
        common.evaluation.begin(way.flow)
        try:
            found.append((travel(way), tuple(way.path)))
        except Walked:
            continue
        except TooLong:
            found.append((Outcome(Fate.UNKNOWN, note=("too many rules are met",)), tuple(way.path)))
            cut = True
            break
    return _summed(common, found, cut=cut)


def _flow(common: Common) -> Flow:
    def ask(flow: Flow, what: Field) -> Known | None:
        return lazily(common.around, common.not_told, flow, what)

    return flow_of(common.packet, common.not_told, ask)


def _summed(common: Common, found: list[tuple[Outcome, Path]], *, cut: bool) -> Explanation:
    """Outcomes are one when they lead to the same place; of their notes those that all have."""
    several: dict[tuple[object, ...], tuple[Outcome, Path]] = {}
    for outcome, path in found:
        key = (outcome.fate, outcome.address, outcome.port)
        if key in several:
            known, first = several[key]
            common_notes = tuple(note for note in known.note if note in outcome.note)
            several[key] = (Outcome(*key, common_notes), first)
        else:
            several[key] = (outcome, path)
    doubts = tuple(common.doubts.values())
    (outcome, path), *others = several.values()
    if not others and not cut and not common.left_out:
        return Explanation(outcome, path, doubts)
    note: tuple[str, ...] = (f"more than {LARGEST_WAYS} ways: not all were followed",) if cut else ()
    if common.left_out:
        note = (*note, "many tables have one priority: not all orders were followed")
    return Explanation(Outcome(Fate.UNKNOWN, note=note), path, doubts, tuple(several.values()))
