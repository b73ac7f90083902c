"""Labs of this directory: client, two web servers, the Service `web`; agent and proxy as processes to be killed."""

from collections.abc import Callable, Iterator

import pytest

from agent.lab.node import Lab
from tests.netns.faults.record import Line, record
from tests.netns.faults.traffic import Traffic
from tests.netns.faults.verdict import Verdict


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Every pod is proved. An agent that ends leaves its rules: what an upgrade and a crash have in common."""
    with Lab() as made:
        made.start_proxy()
        made.start_agent(cleanup_on_exit=False)
        made.wait_ready()
        made.wait_proved()
        yield made


Record = Callable[..., None]


@pytest.fixture
def loss(request: pytest.FixtureRequest) -> Record:
    """Writes the loss count of this test down, before it is judged."""

    def write(key: str, verdict: Verdict, **more: object) -> None:
        test = request.node.nodeid.rpartition("/")[2]
        record(Line(key, test, verdict, **more))  # type: ignore[arg-type]

    return write


def nothing_failed(verdict: Verdict, traffic: Traffic) -> None:
    """AssertionError with the first losses."""
    assert verdict.failed == {}, (verdict, traffic.losses)
