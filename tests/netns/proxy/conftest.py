"""One worker for all tests of the data path; after each of them it must live and have said nothing."""

import os
from collections.abc import Iterator

import pytest

from tests.netns.proxy.mesh import Mesh


@pytest.fixture(scope="session")
def shared_mesh() -> Iterator[Mesh]:
    with Mesh(f"hg-dp{os.getpid()}") as mesh:
        yield mesh


@pytest.fixture
def mesh(shared_mesh: Mesh) -> Iterator[Mesh]:
    yield shared_mesh
    shared_mesh.check()
