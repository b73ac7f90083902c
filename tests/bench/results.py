"""From samples to the figures that are told: medians, and ratios paired within a round. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.bench.rows import METRICS, Comparison, Sample, Wanted


@dataclass(frozen=True, slots=True)
class Ratio:
    """Over the rounds. Paired: the machine's speed moves by a third between rounds, and hits both sides alike."""

    comparison: Comparison
    median: float
    min: float
    max: float

    @property
    def met(self) -> bool | None:
        """None: no bound."""
        bound = self.comparison.bound
        if bound is None:
            return None
        return self.median >= bound if self.comparison.wanted is Wanted.AT_LEAST else self.median <= bound


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of its own; `bound` is the most it may be, or the least (`wanted`)."""

    key: str
    what: str
    value: float
    unit: str
    bound: float | None = None
    wanted: Wanted = Wanted.AT_MOST

    @property
    def met(self) -> bool | None:
        if self.bound is None:
            return None
        return self.value <= self.bound if self.wanted is Wanted.AT_MOST else self.value >= self.bound


@dataclass(frozen=True, slots=True)
class Results:
    """Everything measured. `repeated` are measurements that failed and were taken again."""

    rows: tuple[tuple[str, Sample], ...]
    ratios: tuple[Ratio, ...]
    footprint: tuple[Fact, ...]
    rounds: int
    seconds_each: int
    repeated: int

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": {name: asdict(sample) for name, sample in self.rows},
            "ratios": {
                ratio.comparison.name: {"median": ratio.median, "min": ratio.min, "max": ratio.max}
                for ratio in self.ratios
            },
            "footprint": {fact.key: fact.value for fact in self.footprint},
            "rounds": self.rounds,
            "seconds_each": self.seconds_each,
            "repeated": self.repeated,
        }


def medians(samples: Sequence[Sample]) -> Sample:
    """Metric by metric."""
    return Sample(*(median(getattr(sample, metric) for sample in samples) for metric in METRICS))


def ratios(samples: Mapping[str, Sequence[Sample]], comparisons: Sequence[Comparison]) -> tuple[Ratio, ...]:
    """`samples` by row, one a round, in the order of the rounds."""
    return tuple(_ratio(one, samples[one.ours], samples[one.theirs]) for one in comparisons)


def _ratio(comparison: Comparison, ours: Sequence[Sample], theirs: Sequence[Sample]) -> Ratio:
    paired = [
        getattr(mine, comparison.metric) / getattr(other, comparison.metric)
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return Ratio(comparison, median(paired), min(paired), max(paired))
