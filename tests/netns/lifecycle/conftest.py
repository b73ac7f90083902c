"""One node for all tests of this directory; each leaves it as it found it: agent and proxy ready, and no pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube.cni.plugin import build
from tests.netns.faults.conftest import loss
from tests.netns.lifecycle.node import Node, node

__all__ = ["loss"]  # a fixture


@pytest.fixture(scope="package")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Nothing of ours runs."""
    at = tmp_path_factory.mktemp("n")
    plugin = build(at / "headgate-cni", "-static")
    with node(at, plugin) as made:
        yield made


@pytest.fixture
def steered(bare: Node) -> Iterator[Node]:
    """Agent and proxy are ready."""
    bare.bring_up()
    yield bare
    bare.clear()
