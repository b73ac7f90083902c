"""B47: rules never go into a namespace that was not meant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
import yaml

from agent.events import Events
from agent.handoff.fds import FdStore
from agent.handoff.objects import ObjectsServer
from agent.handoff.zds import ZdsServer
from agent.kernel.netns import NetnsThreads, open_netns
from agent.lab import namespaces
from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.metrics import AgentMetrics
from agent.plan import OnUnsteered, PlanSettings, build_plan
from agent.pods import NetnsId, PodRef
from agent.reconcile.life import Drain, Event, Inspect, Install, Life, NetnsLost, NetnsUnfit, Remove
from agent.supervisor.drift_watch import DriftWatch
from agent.supervisor.effects import Effect, Effects
from agent.supervisor.reports import PodReports
from tests.netns.life import kernel

POD = PodRef("uid-1", "default", "replaced")
PLAN = build_plan(POD, PlanSettings())


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.start_proxy()
        made.wait("the proxy", lambda: made.proxy_get("/pods") == [])
        yield made


def _start_with(lab: Lab, **changes: object) -> None:
    """The agent, with the entry of `client` changed in its pods file."""
    document = yaml.safe_load(lab.pods_file.read_text())
    next(pod for pod in document["pods"] if pod["name"] == "client").update(changes)
    lab.pods_file.write_text(yaml.safe_dump(document))
    lab.start_agent()


def _untouched(lab: Lab, *places: Netns) -> None:
    lab.wait_proved("web-v1", "web-v2")  # a bad entry costs that pod only
    for netns in places:
        assert kernel.rules(netns) == kernel.NO_RULES
        assert "fwmark" not in kernel.routing(netns)


def test_b47_the_nodes_own_namespace_is_refused_and_nothing_is_put_there(lab: Lab) -> None:
    node_before = kernel.routing(lab.node)
    _start_with(lab, netns=lab.node.name)
    try:
        failed = kernel.wait_state(lab, "client", "failed")
        assert (
            "is the agent's own, the node's: a hostNetwork pod cannot be enrolled; label it disabled"
            in failed["reason"]
        )
        _untouched(lab, lab.node, lab.pod("client").netns)
        assert kernel.routing(lab.node) == node_before
        assert "default/client is failed" in lab.log("agent")
    finally:
        lab.stop_agent()
        lab.set_label("client", "app", "client")


def test_b47_namespace_without_the_pods_address_is_refused_with_what_it_holds(lab: Lab) -> None:
    _start_with(lab, addresses=["10.77.0.99", "fd77::99"])
    try:
        reason = kernel.wait_state(lab, "client", "failed")["reason"]
        assert f"{lab.pod('client').netns_path} does not hold the pod's address 10.77.0.99, fd77::99" in reason
        assert str(lab.pod("client").address4) in reason and "correct the pod's `netns` or `addresses`" in reason
        _untouched(lab, lab.pod("client").netns)
    finally:
        lab.stop_agent()
        lab.set_label("client", "app", "client")


def test_b47_pod_refused_for_its_address_is_enrolled_as_soon_as_the_file_is_right(lab: Lab) -> None:
    _start_with(lab, addresses=["10.77.0.99"])
    try:
        kernel.wait_state(lab, "client", "failed")
        lab.set_label("client", "app", "client")  # writes the file anew, with the addresses as they are
        lab.wait_proved("client")
    finally:
        lab.stop_agent()


@pytest.mark.parametrize(
    "effect", [Inspect(), Install(PLAN), Drain(PLAN), Remove(PLAN)], ids=["inspect", "install", "drain", "remove"]
)
def test_b47_path_that_names_another_namespace_than_the_one_looked_up_is_not_entered(effect: Effect) -> None:
    """Between look-up and entry the pod was replaced under the same name: the decision was not made for this one."""
    name = f"hg-guard{os.getpid()}-x"
    netns = namespaces.create(name)
    try:
        life = Life(POD, str(netns.path), _identity(netns))
        # Held as long as the look-up is remembered, so that the number of the first cannot be given to the second.
        with open_netns(netns.path):
            namespaces.delete(netns)
            netns = namespaces.create(name)
            outcome = asyncio.run(_performed(life, effect))
        assert isinstance(outcome, NetnsLost | NetnsUnfit)
        assert "was meant: the pod was replaced" in outcome.reason
        assert kernel.rules(netns) == kernel.NO_RULES
    finally:
        namespaces.delete(netns)


async def _performed(life: Life, effect: Effect) -> Event:
    threads = NetnsThreads()
    store = FdStore(1.0, lambda _: True, lambda _: None)
    metrics = AgentMetrics()
    effects = Effects(
        PlanSettings(),
        OnUnsteered.REPORT,
        threads,
        ZdsServer(lambda: ()),
        ObjectsServer(),
        metrics,
        store,
        DriftWatch(PlanSettings(), lambda *_: None, lambda *_: None),
        PodReports(metrics, Events(lambda: 0.0)),
    )
    try:
        return await effects.perform(life, effect)
    finally:
        effects.close()
        threads.close()


def _identity(netns: Netns) -> NetnsId:
    return NetnsId(*netns.identity)
