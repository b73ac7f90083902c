"""A pod that our rules stand in."""

from collections.abc import Iterator

import pytest

from tests.netns.rules.here import NFT, NODE, Here, pod


@pytest.fixture
def enrolled() -> Iterator[Here]:
    with pod() as here:
        here.install(NFT, NODE)
        yield here
