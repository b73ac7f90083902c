"""One seed's ruleset, and what is explained and seen of each packet on which they differ.

python -m tests.netns.explain.show SEED [all]
"""

import sys

from agent.explain.outcome import Step
from tests.netns.explain.generate import case
from tests.netns.explain.run import Pair, pairs
from tests.netns.explain.scenes import Scenes


def main(seed: int, *, everything: bool) -> None:
    drawn = case(seed)
    for script in drawn.scripts:
        print(f"# {script.tool}\n{script.text}\n")
    with Scenes() as scenes:
        for pair in pairs(scenes.of(seed), drawn):
            if pair.difference or everything:
                _print(pair)


def _print(pair: Pair) -> None:
    print(f"{pair.packet}\n  explained {pair.explanation.outcome}\n  seen      {pair.seen}\n  {pair.difference}")
    for step in pair.explanation.path:
        if not isinstance(step, Step):
            print(f"    {step.what}")
        elif step.failed is None:
            place = step.rule.place if step.rule else "policy"
            where = f"{step.hook.value} {step.table.name} {step.chain} {place}"
            print(f"    {where}: {step.result.value} {step.what}")


if __name__ == "__main__":
    main(int(sys.argv[1]), everything="all" in sys.argv[2:])
