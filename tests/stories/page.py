"""docs/debugging.md: the stories in order, recorded. `python -m tests.stories.page` writes it (make stories)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.stories import answers, lost, past, steered
from tests.stories.telling import Story

PAGE: Final = Path(__file__).parents[2] / "docs" / "debugging.md"
AT_ONCE: Final = 2
"""Stories mostly wait for commands to start; more than two labs at once are no quicker on two cores."""
STORIES: Final = (
    steered.NOT_REACHED,
    answers.UC,
    steered.PROBE,
    past.GONE,
    past.DATABASE,
    past.IPV6,
    lost.PENDING,
    lost.TAKEN,
    steered.LEGACY,
    answers.TCPDUMP,
)
_HEAD: Final = """\
# Ten stories

What users of meshes complain about, made to happen on a throw-away node and solved with headgate's tools. The commands
were run and their output is what they printed: `make stories` records this page, and the tests compare it
(tests/e2e/test_stories.py). Only what changes from run to run was made the same: ports above 32768, pids, times,
ages, worker numbers, where a proof goes, how many packets a capture had, and the names of the lab.

`ip netns exec POD` stands for `kubectl exec`; `headgate` is run on the node (`kubectl exec` into the agent's pod), as
root. A filter behind `|` only shortens. All about the verbs: [debugging-rules.md](debugging-rules.md) (`rules …`) and
[debugging-node.md](debugging-node.md) (`why`, `conn`, `capture`, `doctor`).

| you want to know | ask |
|---|---|
| why a pod is not in the mesh, or not wholly | `headgate why POD` |
| what becomes of one connection, and by whose rule | `headgate rules explain POD --to ADDR:PORT` |
| what the kernel really does with it | `headgate rules trace POD --to ADDR:PORT` |
| which connections go past the proxy, and why | `headgate conn POD --unsteered` |
| what is on the wire, and where it was meant to go | `headgate capture POD` |
| what else is wrong with the node | `headgate doctor -o wide` |

"""


def recorded(stories: Sequence[Story] = STORIES) -> str:
    """The whole page: every story happens. WrongTurn."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(Story.recorded, stories))
    return _HEAD + _contents(stories) + "\n" + "\n".join(told)


def _contents(stories: Sequence[Story]) -> str:
    lines = (f"{at}. [{one.title}](#{anchor(one.title)})" for at, one in enumerate(stories, 1))
    return "\n".join(lines) + "\n"


def anchor(title: str) -> str:
    """As the places that show Markdown name a heading."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("stories happen in network namespaces of their own: run it as root")
    PAGE.write_text(recorded(), encoding="utf-8")
    print(f"{PAGE}: {len(STORIES)} stories")
