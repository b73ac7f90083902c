"""Pods for the packet-path cases: under the plan's rules alone, the tests themselves being the proxy."""

import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from agent.kernel import iproute, nft
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.plan import PlanSettings, RedirectPlan, build_plan
from agent.plan.render.nft import ANCHOR_TABLE, TABLE
from agent.pods import PodRef
from agent.supervisor import inside
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROXY_MARK
from tests.netns.cases.wire import V4, V6, Family, is_untouched, listen


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


@dataclass(frozen=True, slots=True)
class Ruled:
    """A pod that holds the plan, and a neighbour that holds nothing."""

    pod: LabPod
    peer: LabPod
    plan: RedirectPlan


@pytest.fixture(scope="module")
def ruled() -> Iterator[Ruled]:
    """The rules by the agent's own kernel modules, in a real pod; no agent and no proxy run. Taken out again, they
    leave the namespace as it was."""
    settings = PlanSettings()
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab:
        pod = lab.pod("pod")
        plan = build_plan(PodRef("1", "default", "pod"), settings)
        before = _held(pod)
        pod.call(inside.install, plan, settings)
        assert pod.call(inside.in_force, plan)
        yield Ruled(pod, lab.pod("peer"), plan)
        pod.call(inside.remove, plan)
        assert [pod.call(nft.list_table, name) for name in (TABLE, ANCHOR_TABLE)] == [None, None]
        assert not pod.call(iproute.return_path_present, plan.return_path)
        assert _held(pod) == before


def _held(pod: LabPod) -> list[str]:
    commands = (
        ["nft", "list", "ruleset"],
        ["ip", "-4", "rule"],
        ["ip", "-6", "rule"],
        ["ip", "route", "show", "table", "all"],
    )
    return [pod.run(command).stdout for command in commands]


@dataclass(frozen=True, slots=True)
class Steered:
    """A pod under the rules, seen in one address family, with plain listeners where the proxy's would be."""

    pod: LabPod
    peer: LabPod
    family: Family
    pod_address: str
    peer_address: str
    outbound: socket.socket
    inbound: socket.socket

    def assert_nothing_captured(self) -> None:
        assert is_untouched(self.outbound), "a connection was led to the outbound port"
        assert is_untouched(self.inbound), "a connection was led to the inbound port"


@pytest.fixture
def steered(ruled: Ruled, family: Family) -> Iterator[Steered]:
    with _listening(ruled, family) as steered:
        yield steered


@pytest.fixture(params=[V6], ids=["v6"])
def steered6(ruled: Ruled, request: pytest.FixtureRequest) -> Iterator[Steered]:
    """For what IPv4 does not have."""
    with _listening(ruled, request.param) as steered:
        yield steered


@contextmanager
def _listening(ruled: Ruled, family: Family) -> Iterator[Steered]:
    with ExitStack() as stack:
        outbound, inbound = (
            stack.enter_context(listen(ruled.pod.netns, family.any, port, mark=PROXY_MARK, backlog=4096))
            for port in (OUTBOUND_PORT, INBOUND_PORT)
        )
        yield Steered(ruled.pod, ruled.peer, family, family.of(ruled.pod), family.of(ruled.peer), outbound, inbound)


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
