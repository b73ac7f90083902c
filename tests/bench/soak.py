"""A day's churn in some minutes, and whether anything grew: `make soak`. Exit status 1 when something did.

24 h of a busy node are some 6,000 pods (one every 14 s); at 20 a second, with what stands still while an agent is away,
they pass in less than ten minutes on two cores. In the first half the same agent and proxy serve them, beside an API
server that cuts watches and forgets its history; in the second half proxies are upgraded and agents killed as well.
"""

import argparse
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import fields
from types import FrameType
from typing import Final

from agent.lab.figures import percentile
from tests.bench import churn, flatness
from tests.bench.churn import Accident, Churn, Pace
from tests.bench.cluster_node import cluster_node
from tests.bench.flatness import Holding

_SAMPLES: Final = 60
"""In each half."""
_ACCIDENTS: Final = 16
"""In each half."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)  # what it made goes, whoever ends it
    half_s = options.seconds / 2
    pace = Pace(options.pods, options.a_second, half_s / _ACCIDENTS, half_s / _SAMPLES)
    with cluster_node() as node:
        node.start()
        with churn.churning(node, pace) as pods:
            pods.fill()
            before = pods.at_rest()
            same = _half(pods, "one agent, one proxy", half_s, churn.OF_THE_SERVER)
            between = pods.at_rest()
            replaced = _half(pods, "agents killed, proxies upgraded", half_s, churn.ALL)
            after = pods.at_rest()
    for name, held in (("before", before), ("between", between), ("after", after)):
        print(f"at rest {name}: {_line(held)}")
    return 1 if [*same, *replaced, *_left_behind(before, after)] else 0


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench.soak")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--pods", type=int, default=250)
    parser.add_argument("--a-second", type=float, default=20.0)
    return parser.parse_args(arguments)


def _half(pods: Churn, what: str, seconds: float, accidents: Sequence[Accident]) -> list[str]:
    tally = pods.tally
    ended, again, happened = tally.ended, tally.again, tally.accidents
    tally.adds_ms.clear()
    samples = pods.run(seconds, accidents)
    grown = flatness.grown(samples)
    adds_ms = sorted(tally.adds_ms)
    p50_ms, p99_ms = percentile(adds_ms, 0.5), percentile(adds_ms, 0.99)
    print(
        f"{what}: {seconds:g} s, {len(adds_ms)} pods began, {tally.ended - ended} ended, "
        f"{tally.accidents - happened} accidents, {tally.again - again} ADDs tried again; "
        f"ADD p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms"
    )
    third = max(1, len(samples) // 3)
    print(f"  first third: {_line(_median(samples[:third]))}\n  last third:  {_line(_median(samples[-third:]))}")
    print("\n".join(f"  GROWN {text}" for text in grown) or "  flat")
    return grown


def _left_behind(before: Holding, after: Holding) -> list[str]:
    found = flatness.not_returned(before, after)
    print("\n".join(f"LEFT BEHIND {text}" for text in found) or "nothing is left behind")
    return found


def _median(samples: Sequence[Holding]) -> Holding:
    return Holding(*(statistics.median(getattr(one, field.name) for one in samples) for field in fields(Holding)))


def _line(held: Holding) -> str:
    return ", ".join(f"{field.name} {getattr(held, field.name):.4g}" for field in fields(Holding))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
