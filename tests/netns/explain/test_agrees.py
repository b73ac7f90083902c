"""Explanation and kernel, on rulesets and packets drawn at random: 600 pairs here, 10,000 in `make test-nightly`.

A seed that fails is shown whole by `python -m tests.netns.explain.show SEED`.
"""

from collections.abc import Iterator

import pytest

from agent.explain.outcome import Fate
from tests.netns.explain.generate import PACKETS, case, peers
from tests.netns.explain.run import Pair, pairs
from tests.netns.explain.scenes import Scenes
from tests.netns.explain.tally import ELSEWHERE, GONE, Tally

_SEEDS = range(24)


@pytest.fixture(scope="module")
def scenes() -> Iterator[Scenes]:
    with Scenes() as made:
        yield made


@pytest.fixture(scope="module")
def seen() -> dict[int, list[Pair]]:
    return {}


@pytest.mark.parametrize("seed", _SEEDS)
def test_the_kernel_does_what_is_explained(scenes: Scenes, seen: dict[int, list[Pair]], seed: int) -> None:
    seen[seed] = list(pairs(scenes.of(seed), case(seed)))
    assert len(seen[seed]) == PACKETS
    assert [f"{pair.packet}: {pair.difference}" for pair in seen[seed] if pair.difference] == []


def test_the_draw_is_worth_something(scenes: Scenes, seen: dict[int, list[Pair]]) -> None:
    """Not all accepted, nor all unknown: what a lucky agreement could hide behind."""
    tally = Tally()
    for seed in _SEEDS:
        for pair in seen.get(seed) or pairs(scenes.of(seed), case(seed)):
            tally.add(pair)
    assert tally.pairs == len(_SEEDS) * PACKETS
    assert tally.share(ELSEWHERE) > 0.2
    assert tally.share(GONE) > 0.15
    assert tally.share((Fate.UNKNOWN,)) < 0.1
    assert tally.unheard < 0.05 * tally.pairs


def test_every_peer_is_drawn_in_turn() -> None:
    turns = [case(seed).maker.partition(" (")[0] for seed in range(0, 4 * len(peers()), 4)]
    assert tuple(turns) == peers()


def test_a_seed_is_one_case_for_ever() -> None:
    assert case(5) == case(5)
    assert case(5) != case(6)
