"""Counts and times of a load, reduced to what a person reads. Pure: numbers in, numbers and text out."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Final

FIRST_BOUND_NS: Final = 62_500
"""Upper bound of the first bucket, 1/16 ms: below what a connection through two hops takes on any machine."""
_STEPS: Final = 32
BOUNDS_NS: Final = tuple(round(FIRST_BOUND_NS * 2 ** (step / 2)) for step in range(_STEPS))
"""Upper bounds of the latency buckets, ns, each the one before times √2; the last is 2.9 s."""


def percentile(ordered: Sequence[int], share: float) -> int:
    """The value (nearest rank) that `share` (0 to 1) of the ascending values do not exceed; 0 of none."""
    if not ordered:
        return 0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def buckets(latencies_ns: Sequence[int]) -> tuple[int, ...]:
    """How many latencies fall into each of BOUNDS_NS (value <= bound), and last how many are above all."""
    counts = [0] * (len(BOUNDS_NS) + 1)
    for latency in latencies_ns:
        counts[bisect.bisect_left(BOUNDS_NS, latency)] += 1
    return tuple(counts)


def histogram(counts: Sequence[int], *, width: int = 50) -> list[str]:
    """Text lines, one a bucket from the first to the last that holds something: bound, bar, count."""
    used = [index for index, count in enumerate(counts) if count]
    if not used:
        return ["  (no request)"]
    highest = max(counts)
    lines = []
    for index in range(used[0], used[-1] + 1):
        bar = "█" * round(width * counts[index] / highest)
        if counts[index] and not bar:
            bar = "▏"  # few is not none
        bound = f"≤ {milliseconds(BOUNDS_NS[index]):>8}" if index < len(BOUNDS_NS) else "above     "
        lines.append(f"  {bound} {bar:<{width}} {counts[index]:>6}")
    return lines


def milliseconds(nanoseconds: int) -> str:
    """A duration as an operator reads it: three significant digits."""
    value = nanoseconds / 1e6
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def within_three_sigma(counts: Mapping[str, int], weights: Mapping[str, int]) -> bool:
    """Whether the counts can be a draw by these weights: each within 3 standard deviations of a binomial's mean, and
    nothing counted that has no weight."""
    total = sum(counts.values())
    whole = sum(weights.values())
    if total == 0 or set(counts) - set(weights):
        return False
    for name, weight in weights.items():
        share = weight / whole
        sigma = math.sqrt(total * share * (1 - share))
        if abs(counts.get(name, 0) - total * share) > 3 * sigma:
            return False
    return True
