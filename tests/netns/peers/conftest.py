"""A lab for real peers: agent, proxy and two enrolled pods, one for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab.node import Lab
from agent.lab.spec import load_spec

VIPS = {4: "10.96.0.20", 6: "fd96::20"}


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab(load_spec(Path(__file__).with_name("lab.yaml"))) as made:
        made.start()
        yield made


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def vip(request: pytest.FixtureRequest) -> str:
    """The Service's address in each family."""
    return VIPS[request.param]


@pytest.fixture
def url_host(vip: str) -> str:
    return f"[{vip}]" if ":" in vip else vip


@pytest.fixture
def client_address(lab: Lab, vip: str) -> str:
    client = lab.pod("client")
    return str(client.address6 if ":" in vip else client.address4)
