"""B51, B41: an agent that begins finds what the one before it left, takes it over, and changes nothing of it."""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.plan import PlanSettings, build_plan
from agent.pods import PodRef
from agent.reconcile.life import Held
from agent.supervisor import inside
from tests.netns.life import kernel
from tests.netns.life.talk import Chatter, Echo, Talk, address, until

MESH = "headgate.io/mesh"
_numbers = itertools.count()
OUT = 15001
SETTINGS = PlanSettings()
PLAN = build_plan(PodRef("uid-1", "default", "a"), SETTINGS)


@contextmanager
def monitored(pod: LabPod) -> Iterator[list[str]]:
    """What `nft monitor` says of the pod's namespace meanwhile; nothing else may change its rules."""
    said: list[str] = []
    with tempfile.TemporaryFile("w+") as output:
        monitor = subprocess.Popen(
            ["nsenter", f"--net={pod.netns_path}", "nft", "monitor"], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            until("the monitor hears", lambda: _hears(pod, output))
            yield said
            until("the monitor has heard all", lambda: _hears(pod, output))
        finally:
            monitor.terminate()
            monitor.wait(10)
        output.seek(0)
        said += [line for line in output.read().splitlines() if "hg-monitor" not in line and not _is_frame(line)]


def _hears(pod: LabPod, output: IO[str]) -> bool:
    """A table of another name comes and goes, and is said to."""
    name = f"hg-monitor{next(_numbers)}"
    pod.run(["nft", f"add table ip {name}; delete table ip {name}"])
    output.seek(0)
    return name in output.read()


def _is_frame(line: str) -> bool:
    """`# new generation 7 by process 12 (nft)`."""
    return line.startswith("# new generation") and line.endswith("(nft)")


# ── Real agents ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b51_agent_killed_and_started_again_under_load_changes_nothing_and_knows_who_is_unsteered(
    unsteered_lab: Lab, family: int
) -> None:
    lab = unsteered_lab
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    try:
        with Echo(server), Talk(client, to) as before:
            lab.set_label("client", MESH, None)
            lab.wait_proved("client")
            with Chatter(client, to, 8) as load:
                rules, routing = kernel.rules(client.netns), kernel.routing(client.netns)
                counted = kernel.packets(lab, "client")
                with monitored(client) as changes:
                    lab.kill_agent()
                    assert load.all_hear_more()
                    lab.start_agent()
                    lab.wait_proved("client")
                assert changes == [], "nobody touches rules, sets or elements"
                assert (kernel.rules(client.netns), kernel.routing(client.netns)) == (rules, routing)
                now = kernel.packets(lab, "client")
                assert all((now[rule] or 0) >= (packets or 0) for rule, packets in counted.items())
                assert kernel.pod_state(lab, "client")["unsteered_connections"] == kernel.unsteered(1, 0)
                assert load.all_hear_more()
                before.says()
                assert {talk.steered_to() for talk in load.talks} == {OUT}
    finally:
        lab.set_label("client", MESH, "disabled")
        kernel.wait_state(lab, "client", "disabled")


def test_b49_pod_that_was_labelled_out_while_no_agent_ran_is_drained_and_left_clean(unsteered_lab: Lab) -> None:
    lab = unsteered_lab
    client, server = lab.pod("client"), lab.pod("server")
    try:
        with Echo(server):
            lab.set_label("client", MESH, None)
            lab.wait_proved("client")
            with Talk(client, address(server, 4)) as steered:
                steered.says()
                lab.kill_agent()
                lab.set_label("client", MESH, "disabled")
                lab.start_agent("--drain-s", "20")
                until("the drain form", lambda: "out-capture" not in kernel.rules(client.netns), timeout_s=20)
                assert kernel.pod_state(lab, "client")["state"] == "leaving"
                steered.says()
                with Talk(client, address(server, 4)) as past:
                    past.says()
                    assert (steered.steered_to(), past.steered_to()) == (OUT, None)
            kernel.wait_state(lab, "client", "disabled")
            assert kernel.rules(client.netns) == kernel.NO_RULES
    finally:
        lab.set_label("client", MESH, "disabled")
        kernel.wait_state(lab, "client", "disabled")


def test_b49_agent_and_proxy_killed_together_rules_stay_and_are_adopted_before_a_proxy_comes() -> None:
    """Fail closed: nothing goes past the mesh while neither lives; the agent takes over without a proxy."""
    with Lab(LabSpec((PodSpec("client"), PodSpec("server", labels=((MESH, "disabled"),))))) as lab:
        lab.start()
        client, server = lab.pod("client"), lab.pod("server")
        with Echo(server):
            rules = kernel.rules(client.netns)
            lab.kill_agent()
            lab.kill("proxy")
            until("the orphaned workers to end", lambda: _is_refused(client, address(server, 4)))
            lab.start_agent()
            adopted = kernel.wait_state(lab, "client", "installed")
            assert "no proxy" in adopted["reason"]
            assert kernel.rules(client.netns) == rules
            lab.start_proxy()
            lab.wait_proved("client")
            assert kernel.rules(client.netns) == rules
            with Talk(client, address(server, 4)) as talk:
                talk.says()
                assert talk.steered_to() == OUT


def _is_refused(client: LabPod, to: object) -> bool:
    """A worker outlives its supervisor by the moment in which it notices, and serves on until then."""
    try:
        client.netns.connect(to, 9000, timeout_s=0.5).close()
    except OSError:
        return True
    return False


def test_b49_rules_damaged_while_no_agent_ran_are_put_right_and_who_slipped_by_is_told() -> None:
    with Lab(LabSpec((PodSpec("client"), PodSpec("server", labels=((MESH, "disabled"),))))) as lab:
        lab.start()
        client, server = lab.pod("client"), lab.pod("server")
        wanted = kernel.without_handles(kernel.rules(client.netns))
        with Echo(server):
            lab.kill_agent()
            client.run(["nft", "delete", "table", "inet", "headgate"])
            with Talk(client, address(server, 4)) as slipped:
                slipped.says()
                lab.start_agent()
                lab.wait_proved("client")
                assert kernel.pod_state(lab, "client")["unsteered_connections"] == kernel.unsteered(0, 1)
                (event,) = _events(lab, "RedirectionHealed")
                assert f"{slipped.local[0]}:{slipped.local[1]} - {slipped.remote[0]}:9000" in event["message"]
                lab.kill_agent()
                lab.start_agent()  # and the next agent knows why it is outside: the kernel keeps it
                lab.wait_proved("client")
                assert kernel.pod_state(lab, "client")["unsteered_connections"] == kernel.unsteered(0, 1)
                slipped.says()
            lab.wait("its end to be seen", lambda: kernel.unsteered_now(lab, "client") == kernel.unsteered())
        assert kernel.without_handles(kernel.rules(client.netns)) == wanted


def _events(lab: Lab, reason: str) -> list[dict[str, Any]]:
    return [event for event in lab.agent_get("/events")["items"] if event["reason"] == reason]


# ── What a look tells ──────────────────────────────────────────────────────────────────────────────────────────────
def test_b49_a_look_tells_what_a_former_agent_left(bare_lab: Lab) -> None:
    client = bare_lab.pod("client")

    def held() -> Held:
        return client.call(inside.inspect, SETTINGS).held

    def sabotage(*words: str) -> Held:
        client.run([*words])
        return held()

    assert held() is Held.NOTHING
    client.call(inside.install, PLAN, SETTINGS)
    assert held() is Held.RULES
    client.call(inside.drain, PLAN)
    assert held() is Held.DRAIN_FORM
    drained = kernel.rules(client.netns)
    client.call(inside.drain, PLAN)
    assert kernel.rules(client.netns) == drained, "a second draining changes nothing, handles included"
    assert sabotage("nft", "flush", "table", "inet", "headgate") is Held.RULES
    assert sabotage("nft", "delete", "table", "inet", "headgate") is Held.RULES
    assert sabotage("nft", "delete", "table", "inet", "headgate-anchor") is Held.RULES, "the return path is left"
    assert sabotage("ip", "rule", "del", "preference", "32764") is Held.RULES
    client.call(inside.remove, PLAN)
    assert held() is Held.NOTHING
    client.run(["nft", "add", "table", "inet", "users-own"])
    assert held() is Held.NOTHING
    assert re.fullmatch(r"[1-9]\d*", str(client.call(inside.inspect, SETTINGS).netns_cookie))
