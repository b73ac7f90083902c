"""What the tests on the real kernel share: labs, and the promise that the machine is as it was before them."""

import os
from collections.abc import Callable, Iterator

import pytest

from agent.lab import machine, namespaces, state
from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec


@pytest.fixture(scope="session", autouse=True)
def untouched_machine() -> Iterator[None]:
    """Labs of killed test runs go first; at the end namespaces, nft rules, ip rules and mounts are what they were."""
    state.remove_abandoned()
    before = machine.read()
    yield
    after = machine.read()
    others = tuple(paths.prefix for paths in state.known())
    left = [name for name in after.namespaces - before.namespaces if not name.startswith(others)]
    assert left == [], "network namespaces left by the tests"
    leftovers = machine.leftovers(before, after, "")
    # The directory of all labs stays for as long as one of somebody else's is up.
    assert [what for what in leftovers if not (others and what.startswith("directory "))] == []


@pytest.fixture
def bare_lab() -> Iterator[Lab]:
    """Pods `client` and `server` on a node; no server process, no agent, no proxy."""
    with Lab(
        LabSpec((PodSpec("client", labels=(("app", "client"),)), PodSpec("server", labels=(("app", "web"),))))
    ) as lab:
        yield lab


@pytest.fixture(scope="module")
def web_lab() -> Iterator[Lab]:
    """The packaged lab (client, web-v1, web-v2, Service `web`) with agent and proxy running and every pod proved. One
    for all tests of a module: a test that changes it changes it back."""
    with Lab() as lab:
        lab.start()
        yield lab


@pytest.fixture
def make_netns() -> Iterator[Callable[[], Netns]]:
    """Fresh namespaces with loopback up, removed afterwards."""
    made: list[Netns] = []

    def make() -> Netns:
        netns = namespaces.create(f"hg-test{os.getpid()}-{len(made)}")
        made.append(netns)
        netns.run(["ip", "link", "set", "lo", "up"])
        return netns

    yield make
    for netns in made:
        namespaces.delete(netns)
