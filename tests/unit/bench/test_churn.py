"""Pods come and go at their pace; where none can begin for a while, ends wait instead of failing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.lab.errors import LabError
from tests.bench import churn
from tests.bench.churn import Churn, Pace
from tests.bench.cluster_node import ClusterNode

STEADY, ENDING, TRIES = 3, 10, 6


@dataclass
class Stalling:
    """A node whose agent refuses every pod's first ADDs, but for those that fill it. Any pod can end."""

    adds: Counter[int] = field(default_factory=Counter)
    ended: list[int] = field(default_factory=list)

    def make(self, number: int) -> Any:
        return SimpleNamespace(name=f"pod-{number}", number=number)

    def add(self, pod: Any) -> float:
        self.adds[pod.number] += 1
        if pod.number >= STEADY and self.adds[pod.number] < TRIES:
            raise LabError("no agent answers")
        return 1.0

    def end(self, pod: Any) -> None:
        self.ended.append(pod.number)

    def wait_all(self, names: set[str], states: frozenset[str], timeout_s: float) -> None:
        assert len(names) == STEADY


@pytest.fixture
def node() -> Stalling:
    return Stalling()


@pytest.fixture
def churning(node: Stalling, monkeypatch: pytest.MonkeyPatch) -> Iterator[Churn]:
    monkeypatch.setattr(churn, "_RETRY_S", 0.01)
    monkeypatch.setattr(Churn, "_sample", lambda self: None)
    with churn.churning(cast("ClusterNode", node), Pace(STEADY, 500, 0.0, samples_every_s=1.0)) as made:
        yield made


def test_ends_wait_where_an_agent_is_away_for_longer_than_the_pods_last(churning: Churn, node: Stalling) -> None:
    churning.fill()
    churning.run(ENDING / 500, ())
    assert churning.tally.again == ENDING * (TRIES - 1)
    assert (churning.tally.ended, len(set(node.ended))) == (ENDING, ENDING)
    assert len(churning.names) == STEADY
