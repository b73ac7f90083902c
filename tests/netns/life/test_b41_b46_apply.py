"""B41 and B46: rules that are applied twice, or by two at once, are the same rules."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from agent.kernel.netns import NetnsThreads, open_netns
from agent.kernel.refused import KernelRefused
from agent.lab import namespaces
from agent.lab.admin import AdminError
from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.plan import PlanSettings, build_plan
from agent.pods import PodRef
from agent.supervisor import inside
from agent.supervisor.unsteered import Unsteered
from tests.netns.life import kernel
from tests.netns.life.talk import Echo, Talk, address, until

MESH = "headgate.io/mesh"
SETTINGS = PlanSettings()
PLAN = build_plan(PodRef("uid-1", "default", "a"), SETTINGS)


@pytest.fixture
def fresh_netns() -> Iterator[Netns]:
    netns = namespaces.create(f"hg-apply{os.getpid()}-x")
    try:
        netns.run(["ip", "link", "set", "lo", "up"])
        yield netns
    finally:
        namespaces.delete(netns)


# ── B41 ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b41_applied_twice_is_byte_for_byte_the_same_with_counters_and_grandfathered(
    bare_lab: Lab, family: int
) -> None:
    """No proxy listens, so the counters stand still between the two readings: a change of any of them would show."""
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    with Echo(server), Talk(client, address(server, family)) as before:
        client.call(inside.install, PLAN, SETTINGS)
        with pytest.raises(ConnectionRefusedError):
            client.netns.connect(address(server, family), 9001)
        before.says()
        first = kernel.rules_and_counters(client.netns), kernel.routing(client.netns)
        assert re.search(r'packets [1-9]\d* bytes \d+ redirect to :15001 comment "headgate:out-capture"', first[0])
        assert f"{before.local[0]} . {before.local[1]} . {before.remote[0]} . 9000" in first[0]

        applied = client.call(inside.install, PLAN, SETTINGS)
        assert (kernel.rules_and_counters(client.netns), kernel.routing(client.netns)) == first
        assert not applied.changed
        assert applied.unsteered == Unsteered(grandfathered=frozenset({(*before.local, *before.remote)}))
        before.says()


def test_b41_agent_killed_and_started_again_replaces_no_rule_and_resets_no_counter(web_lab: Lab) -> None:
    """The kernel is the state: what was applied is found there and applied again, which changes nothing."""
    pods = web_lab.pods
    pods[0].run(["curl", "-sf", "http://10.96.0.10/"])
    before = [(kernel.rules(pod.netns), kernel.routing(pod.netns)) for pod in pods]
    counted = [kernel.packets(web_lab, pod.name) for pod in pods]
    web_lab.kill_agent()
    assert [(kernel.rules(pod.netns), kernel.routing(pod.netns)) for pod in pods] == before
    web_lab.start_agent()
    web_lab.wait_proved()
    assert _applied(web_lab) == len(pods)
    assert [(kernel.rules(pod.netns), kernel.routing(pod.netns)) for pod in pods] == before
    for pod, then in zip(pods, counted, strict=True):
        now = kernel.packets(web_lab, pod.name)
        assert now.keys() == then.keys()
        assert all((now[rule] or 0) >= (packets or 0) for rule, packets in then.items())
        assert any((now[rule] or 0) > 0 for rule in then)


def _applied(lab: Lab) -> int:
    metrics = lab.node.run(["curl", "-sf", "http://127.0.0.1:15014/metrics"]).stdout
    found = re.search(r"^headgate_apply_seconds_count ([\d.]+)$", metrics, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


# ── B46 ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_b46_two_applies_at_once_end_as_one(fresh_netns: Netns) -> None:
    """CNI ADD and the informer, in two threads that start together, twenty times."""
    fresh_netns.call(inside.install, PLAN, SETTINGS)
    wanted = kernel.without_handles(kernel.rules(fresh_netns)), kernel.routing(fresh_netns)
    for _ in range(20):
        fresh_netns.call(inside.remove, PLAN)
        assert kernel.rules(fresh_netns) == kernel.NO_RULES
        together = threading.Barrier(2)

        def apply(together: threading.Barrier = together) -> None:
            together.wait(5)
            inside.install(PLAN, SETTINGS)

        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(fresh_netns.call, apply) for _ in range(2)]:
                done.result(timeout=10)
        assert (kernel.without_handles(kernel.rules(fresh_netns)), kernel.routing(fresh_netns)) == wanted


def test_b46_apply_and_removal_at_once_end_as_one_of_the_two(fresh_netns: Netns) -> None:
    """Through the agent's own threads: what is left is whole or nothing, also when the kernel refused the apply."""
    fresh_netns.call(inside.install, PLAN, SETTINGS)
    whole = kernel.without_handles(kernel.rules(fresh_netns))

    async def both(threads: NetnsThreads) -> None:
        with open_netns(fresh_netns.path) as netns:
            apply, removal = await asyncio.gather(
                threads.run(netns, inside.install, PLAN, SETTINGS),
                threads.run(netns, inside.remove, PLAN),
                return_exceptions=True,
            )
            assert removal is None
            assert isinstance(apply, inside.Applied | KernelRefused)

    threads = NetnsThreads()
    try:
        for _ in range(10):
            asyncio.run(both(threads))
            assert kernel.without_handles(kernel.rules(fresh_netns)) in (whole, kernel.NO_RULES)
    finally:
        threads.close()
    fresh_netns.call(inside.install, PLAN, SETTINGS)
    assert kernel.without_handles(kernel.rules(fresh_netns)) == whole


def _more(counts: Sequence[int], then: Sequence[int]) -> Callable[[], bool]:
    return lambda: all(now > before for now, before in zip(counts, then, strict=True))


def test_b46_verify_from_two_sides_while_the_label_flaps_ends_proved_with_one_set_of_rules(web_lab: Lab) -> None:
    client = web_lab.pod("client")
    wanted = kernel.without_handles(kernel.rules(client.netns)), kernel.routing(client.netns)
    stopping = threading.Event()
    answered = [0, 0]

    def verify(caller: int) -> None:
        while not stopping.is_set():
            with suppress(AdminError):  # not installed just now: an answer too
                web_lab.agent_get("/pods/default/client/verify", method="POST", timeout_s=20)
            answered[caller] += 1

    callers = [threading.Thread(target=verify, args=(caller,)) for caller in range(2)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(4):
            then = tuple(answered)
            web_lab.set_label("client", MESH, "disabled")
            kernel.wait_state(web_lab, "client", "disabled")
            web_lab.set_label("client", MESH, None)
            until("both callers were answered", _more(answered, then))
    finally:
        stopping.set()
        for caller in callers:
            caller.join()
    web_lab.wait_proved("client")
    assert (kernel.without_handles(kernel.rules(client.netns)), kernel.routing(client.netns)) == wanted
    assert client.run(["curl", "-sf", "--max-time", "5", "http://10.96.0.10/"]).returncode == 0
