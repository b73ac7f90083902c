"""Labs of this directory: a client and a server that begin their lives outside the mesh, agent and proxy running."""

from collections.abc import Iterator

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec
from tests.netns.life.talk import outside


@pytest.fixture(scope="module")
def unsteered_lab() -> Iterator[Lab]:
    """Pods `client` and `server`, labelled out of the mesh; one for all tests of a module, which change it back."""
    with Lab(LabSpec((outside("client"), outside("server")))) as lab:
        lab.start_proxy()
        lab.start_agent("--drain-s", "20")
        lab.wait_ready()
        yield lab
