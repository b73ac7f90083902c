"""Pods that come and go leave nothing behind, whatever happens meanwhile: the short form of `make soak`."""

from collections.abc import Iterator

import pytest

from tests.bench import churn, flatness
from tests.bench.churn import Churn, Pace
from tests.bench.cluster_node import cluster_node
from tests.bench.flatness import Holding


@pytest.fixture
def churning() -> Iterator[Churn]:
    with cluster_node() as node:
        node.start()
        with churn.churning(node, Pace(pods=15, a_second=8, accidents_every_s=1.5, samples_every_s=1.0)) as made:
            made.fill()
            yield made


@pytest.mark.timeout(400)  # the kernel's own patience with connections to pods that have gone: tests.bench.churn
def test_after_churn_with_every_accident_the_node_holds_what_it_held_before(churning: Churn) -> None:
    before = churning.at_rest()
    churning.run(6.5, churn.ALL)
    assert churning.tally.accidents >= len(churn.ALL)
    assert churning.tally.ended > 40

    def agent_as_before(held: Holding) -> bool:
        return held.agent_mb <= before.agent_mb + flatness.TOLERANCES["agent_mb"].amount

    after = churning.at_rest(lambda held: agent_as_before(held) and not flatness.not_returned(before, held))
    assert flatness.not_returned(before, after) == []
    assert agent_as_before(after), (before, after)
