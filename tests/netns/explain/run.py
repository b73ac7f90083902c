"""A case on the real kernel, beside what is explained of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.explain.interpret import explain
from agent.explain.outcome import Explanation
from agent.explain.packet import Packet
from agent.kernel.surroundings import KernelSurroundings
from agent.ruleset import whole
from tests.netns.explain.agreement import disagreement
from tests.netns.explain.generate import Case, Script
from tests.netns.explain.oracle import Scene, Seen

_LINE: Final = re.compile(r"/dev/stdin:(\d+):|line:? (\d+)")
_MOST_REFUSED: Final = 6
"""Rules of one script that its tool refuses: combinations that the generator does not know to be none."""


@dataclass(frozen=True, slots=True)
class Pair:
    case: Case
    packet: Packet
    explanation: Explanation
    seen: Seen
    difference: str


def pairs(scene: Scene, case: Case) -> Iterator[Pair]:
    scene.clear()
    for script in case.scripts:
        load(scene, script)
    explanations = scene.pod.run(_explained, case.packets)
    for packet, explanation in zip(case.packets, explanations, strict=True):
        seen = scene.send(packet)
        yield Pair(case, packet, explanation, seen, disagreement(explanation, seen, packet))


def _explained(packets: tuple[Packet, ...]) -> list[Explanation]:
    """As `headgate rules explain` reads and explains."""
    return whole.settled(lambda ruleset: [explain(ruleset, packet, KernelSurroundings()) for packet in packets])


def load(scene: Scene, script: Script) -> int:
    """How many rules its tool did not take; they are left out. AssertionError when there are too many."""
    lines = script.text.split("\n")
    for refused in range(_MOST_REFUSED):
        try:
            if script.tool == "nft":
                scene.nft("\n".join(lines))
            else:
                scene.restore(script.tool, "\n".join(lines))
            return refused
        except AssertionError as error:
            message = str(error).rpartition("END\\n')")[2] or str(error)
            found = _LINE.search(message)
            if found is None:
                raise
            lines[int(found.group(1) or found.group(2)) - 1] = ""
    raise AssertionError(f"too much of it is refused: {script}")
