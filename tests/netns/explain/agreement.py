"""Whether an explanation says what the kernel did."""

import re
from typing import Final

from agent.explain.outcome import Explanation, Fate, Outcome
from agent.explain.packet import Packet
from tests.netns.explain.oracle import Seen

_HERE, _LEAVES, _SOURCE = "delivered here", "leaves by ", "source becomes "
_SOURCE_WORDS: Final = re.compile(r"\[?([0-9a-f.:]*?)\]?(?::(\d+))?")
_KERNELS_OWN: Final = ("no route", "rp_filter", "::1")
"""Of what is dropped without a rule: the kernel may tell the sender, as who rejects does."""


def disagreement(explanation: Explanation, seen: Seen, packet: Packet) -> str:
    """In words; empty when they agree. Of several possible outcomes one must be the kernel's."""
    if explanation.outcome.fate is Fate.UNKNOWN and explanation.outcome.note:
        return ""  # it says that it did not follow all ways
    possible = [outcome for outcome, _ in explanation.either] or [explanation.outcome]
    # Of outcomes that are one, notes that differ are not told: what is missing then says nothing.
    differences = [_difference(outcome, seen, packet, whole=not explanation.doubts) for outcome in possible]
    return "" if "" in differences else "; or ".join(differences)


def is_unheard(explanation: Explanation, seen: Seen) -> bool:
    """It is gone, and the answer that says so is gone too: the same rules apply to it."""
    return explanation.outcome.fate is Fate.REJECT and not seen.refused


def _difference(outcome: Outcome, seen: Seen, packet: Packet, *, whole: bool) -> str:
    if outcome.fate in (Fate.DROP, Fate.REJECT):
        return _gone(outcome, seen, whole=whole)
    if outcome.fate is Fate.UNKNOWN:
        return "it says nothing"
    if seen.end is None:
        return f"{outcome} is gone: {seen}"
    return _place(outcome, seen) or _destination(outcome, seen, packet) or _source(outcome, seen, whole=whole)


def _gone(outcome: Outcome, seen: Seen, *, whole: bool) -> str:
    if seen.end is not None:
        return f"{outcome} got through: {seen}"
    own = not whole or any(word in note for word in _KERNELS_OWN for note in outcome.note)
    if outcome.fate is Fate.DROP and seen.refused and not own:
        return f"{outcome} was answered: {seen}"
    return ""


def _place(outcome: Outcome, seen: Seen) -> str:
    here = _HERE in outcome.note
    by = next((note.removeprefix(_LEAVES) for note in outcome.note if note.startswith(_LEAVES)), "")
    if here and seen.delivered is None:
        return f"{outcome} was not delivered: {seen}"
    if by and by != seen.by and not by.endswith("not known"):
        return f"{outcome} did not leave there: {seen}"
    return ""


def _destination(outcome: Outcome, seen: Seen, packet: Packet) -> str:
    assert seen.end is not None
    if outcome.fate is Fate.TPROXY:
        return "" if seen.listener == outcome.port else f"{outcome} is with another socket: {seen}"
    if seen.listener not in (None, seen.end.destination_port):
        return f"{outcome} is with the socket of a transparent proxy: {seen}"
    if seen.end.destination != (outcome.address or packet.destination):
        return f"{outcome} has another address: {seen}"
    port = outcome.port or packet.destination_port
    if port and seen.end.destination_port not in (0, port):
        return f"{outcome} has another port: {seen}"
    return ""


def _source(outcome: Outcome, seen: Seen, *, whole: bool) -> str:
    assert seen.end is not None
    said = next((note.removeprefix(_SOURCE) for note in outcome.note if note.startswith(_SOURCE)), "")
    if "?" in said or (not said and not whole):
        return ""
    if ":" in said and not said.startswith("[") and said.count(":") > 1:
        address, port = said, ""
    else:
        found = _SOURCE_WORDS.fullmatch(said.replace("itself", ""))
        address, port = (found.group(1), found.group(2) or "") if found else ("", "")
    if str(seen.end.source) != (address or str(seen.source)):
        return f"{outcome} comes from elsewhere: {seen}"
    if port and seen.end.source_port != int(port):
        return f"{outcome} comes from another port: {seen}"
    return ""
