"""Pods for the packet-path cases: under the plan's rules alone, the tests themselves being the proxy."""

import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.plan import RedirectPlan
from agent.plan.steering import Steering
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROXY_MARK
from tests.netns.cases.setups import PROXY_UID, SETUPS, Setup
from tests.netns.cases.wire import (
    V4,
    V6,
    Endpoint,
    Family,
    accept,
    assert_talk,
    dial,
    dial_as,
    is_untouched,
    listen,
    original_destination,
    own,
    peer,
)


@pytest.fixture(params=[V4, V6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="module", autouse=True)
def many_descriptors() -> Iterator[None]:
    """2,000 connections with both ends in this process need more than the usual soft limit of 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module", params=SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    """A module whose cases are of one mode only overrides this with NODE_SETUPS or INIT_SETUPS."""
    chosen: Setup = request.param
    return chosen


@dataclass(frozen=True, slots=True)
class Place:
    """A pod, and a neighbour that never holds rules; what the rules will be is the test's own choice."""

    setup: Setup
    pod: LabPod
    peer: LabPod

    @contextmanager
    def steered(self, steering: Steering, family: Family) -> "Iterator[Steered]":
        with self.setup.applied(self.pod, steering) as plan, Ruled(self, plan).listening(family) as steered:
            yield steered


@dataclass(frozen=True, slots=True)
class Ruled:
    """A pod that holds the plan."""

    place: Place
    plan: RedirectPlan

    @contextmanager
    def listening(self, family: Family) -> "Iterator[Steered]":
        """With plain listeners where the proxy's would be; they carry its mark where it has one."""
        mark = 0 if self.place.setup.init else PROXY_MARK
        with ExitStack() as stack:
            outbound, inbound = (
                stack.enter_context(listen(self.place.pod.netns, family.any, port, mark=mark, backlog=4096))
                for port in (OUTBOUND_PORT, INBOUND_PORT)
            )
            yield Steered(self.place, family, outbound, inbound)


@dataclass(frozen=True, slots=True)
class Steered:
    """A pod under rules, seen in one address family."""

    place: Place
    family: Family
    outbound: socket.socket
    inbound: socket.socket

    @property
    def pod(self) -> LabPod:
        return self.place.pod

    @property
    def peer(self) -> LabPod:
        return self.place.peer

    @property
    def pod_address(self) -> str:
        return self.family.of(self.pod)

    @property
    def peer_address(self) -> str:
        return self.family.of(self.peer)

    def dial_as_proxy(self, address: str, port: int, *, source: str = "") -> socket.socket:
        """As the proxy of this setup does: by its mark, or by its user."""
        if self.place.setup.init:
            return dial_as(PROXY_UID, self.pod.netns, address, port, source=source)
        return dial(self.pod.netns, address, port, mark=PROXY_MARK, source=source)

    def assert_nothing_captured(self) -> None:
        assert is_untouched(self.outbound), "a connection was led to the outbound port"
        assert is_untouched(self.inbound), "a connection was led to the inbound port"

    def assert_captured(self, client: socket.socket, target: Endpoint) -> None:
        """Met at the outbound port, and nowhere else."""
        _assert_met(self.outbound, client, target)

    def assert_captured_inbound(self, client: socket.socket, target: Endpoint) -> None:
        _assert_met(self.inbound, client, target)


def _assert_met(listener: socket.socket, client: socket.socket, target: Endpoint) -> None:
    with accept(listener) as met:
        assert original_destination(met) == target
        assert peer(met) == own(client)
        assert peer(client) == target, "who dials must not notice"
        assert_talk(client, met)


@pytest.fixture(scope="module")
def place(setup: Setup) -> Iterator[Place]:
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab:
        yield Place(setup, lab.pod("pod"), lab.pod("peer"))


@pytest.fixture(scope="module")
def ruled(place: Place) -> Iterator[Ruled]:
    """The plan of nobody's wishes, in a real pod; no agent and no proxy run."""
    with place.setup.applied(place.pod, Steering()) as plan:
        yield Ruled(place, plan)


@pytest.fixture
def steered(ruled: Ruled, family: Family) -> Iterator[Steered]:
    with ruled.listening(family) as steered:
        yield steered


@pytest.fixture(params=[V6], ids=["v6"])
def steered6(ruled: Ruled, request: pytest.FixtureRequest) -> Iterator[Steered]:
    """For what IPv4 does not have."""
    with ruled.listening(request.param) as steered:
        yield steered


ENDS = ["both ends", "source", "destination"]


def link_local_ends(source: LabPod, destination: LabPod, which: str) -> tuple[str, str]:
    """Source and destination address of a connection: of the ends that `which` names the link-local ones."""
    return (
        V6.of(source) if which == "destination" else _link_local(source),
        V6.of(destination) if which == "source" else _link_local(destination),
    )


def _link_local(pod: LabPod) -> str:
    (link,) = json.loads(pod.run(["ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link"]).stdout)
    (found,) = filter(None, link["addr_info"])  # iproute2 leaves {} for each address it was not asked for
    return f"{found['local']}%eth0"
