"""The listeners outlive the proxy: killed, or replaced by another, with clients that connect all the time (issue 3).

Light load here; the same faults under heavy load, and their loss counts, are in tests/netns/faults.
"""

from __future__ import annotations

import signal
import time
from typing import Final

from agent.lab.node import Lab, LabPod
from tests.netns.faults.traffic import ARRIVING, KEPT, PAUSING, Traffic
from tests.netns.fd_store.conftest import listening, stopped

ALL_LISTENERS: Final = {"4:15001", "6:15001", "4:15006", "6:15006"}
GAP_S: Final = 2.0


def queues_of(pod: LabPod) -> set[str]:
    """Inodes of the listeners: the same sockets, not others on the same ports."""
    lines = pod.run(["ss", "-Hltne"]).stdout.splitlines()
    return {
        word
        for line in lines
        for word in line.split()
        if word.startswith("ino:") and any(f":{port} " in line for port in (15001, 15006))
    }


def test_killed_proxy_refuses_and_resets_no_new_connection_in_a_gap_of_2_s(lab: Lab) -> None:
    before = queues_of(lab.pod("client"))
    assert len(before) == len(ALL_LISTENERS)
    with Traffic(lab, (ARRIVING,)) as traffic:
        traffic.kill_named("proxy")
        time.sleep(GAP_S)  # the length of the gap is what is tested
        assert listening(lab.pod("client")) == ALL_LISTENERS
        lab.start_proxy()
        lab.wait_ready()
        traffic.goes_on()
        verdict = traffic.end()
    assert verdict.failed == {}, traffic.losses
    assert verdict.connections > GAP_S * 100
    assert queues_of(lab.pod("client")) == before


def test_stopped_and_started_proxy_lets_new_connections_wait_and_ends_the_old_ones_in_peace(lab: Lab) -> None:
    """A DaemonSet that replaces pod by pod: the old one is gone before the new one comes."""
    before = queues_of(lab.pod("client"))
    with Traffic(lab, (KEPT, ARRIVING)) as traffic:
        assert lab.stop_proxy() == 0
        assert listening(lab.pod("client")) == ALL_LISTENERS
        lab.start_proxy()
        lab.wait_ready()
        traffic.goes_on()
        verdict = traffic.end()
    assert verdict.failed == {}, traffic.losses
    assert queues_of(lab.pod("client")) == before


def test_restarted_agent_gets_the_listeners_again_and_a_proxy_killed_then_loses_none(lab: Lab) -> None:
    lab.kill_agent()
    lab.start_agent(cleanup_on_exit=False)
    lab.wait_proved()
    lab.wait("the deposits", lambda: lab.log("proxy").count("connected to the agent's store of listeners") == 2)
    before = queues_of(lab.pod("client"))
    with Traffic(lab, (ARRIVING,)) as traffic:
        traffic.kill_named("proxy")
        lab.start_proxy()
        lab.wait_ready()
        traffic.goes_on()
        verdict = traffic.end()
    assert verdict.failed == {}, traffic.losses
    assert queues_of(lab.pod("client")) == before


def test_proxy_that_takes_over_loses_nothing_and_the_former_one_ends_by_itself(lab: Lab) -> None:
    before = queues_of(lab.pod("client"))
    with Traffic(lab, (KEPT, PAUSING, ARRIVING)) as traffic:
        former = lab.take_over_proxy("--drain-s", "10")
        lab.wait_ready()
        traffic.goes_on()
        assert former.wait(15) == 0
        traffic.goes_on()
        verdict = traffic.end()
    assert verdict.failed == {}, traffic.losses
    assert queues_of(lab.pod("client")) == before
    assert {pod["state"] for pod in lab.proxy_get("/pods")} == {"served"}


def test_agent_restarted_in_the_instant_of_a_take_over_costs_nothing(lab: Lab) -> None:
    """The new proxy is told of pods before the former one has deposited them again: it asks the store until it has."""
    with Traffic(lab, (KEPT, ARRIVING)) as traffic:
        lab.kill_agent()
        lab.start_agent(cleanup_on_exit=False)
        former = lab.take_over_proxy()
        lab.wait_ready()
        assert former.wait(15) == 0
        traffic.goes_on()
        verdict = traffic.end()
    assert verdict.failed == {}, traffic.losses
    lab.wait_proved()


def test_new_proxy_that_is_killed_before_it_is_ready_leaves_the_former_one_untouched(lab: Lab) -> None:
    with Traffic(lab, (KEPT, ARRIVING)) as traffic, stopped(lab.pid("agent")):
        # Without the agent's answer it cannot become ready.
        former = lab.take_over_proxy()
        lab.wait("the new one", lambda: "taking over from the proxy" in lab.log("proxy"))
        lab.kill("proxy")
        traffic.goes_on()
        verdict = traffic.end()
    assert verdict.failed == {}, traffic.losses
    assert former.poll() is None
    former.send_signal(signal.SIGTERM)
    assert former.wait(15) == 0


def test_replaced_proxy_that_is_to_stay_gives_its_connections_their_time_and_ends_only_when_told(lab: Lab) -> None:
    """As in a DaemonSet with maxSurge: its container would be started again, and the SIGTERM comes while it drains."""
    stay = ("--when-replaced", "stay", "--drain-s", "10")
    lab.stop_proxy()
    lab.start_proxy("--take-over", *stay)
    lab.wait_ready()
    with Traffic(lab, (KEPT,)) as traffic:
        former = lab.take_over_proxy(*stay)
        lab.wait_ready()
        former.send_signal(signal.SIGTERM)
        traffic.goes_on()
        verdict = traffic.end()
    assert verdict.failed == {}, traffic.losses
    assert former.wait(15) == 0
    latest = lab.take_over_proxy()
    lab.wait("it to have nothing left", lambda: "nothing is left to do" in _former_log(lab))
    assert latest.poll() is None, "until it is told"
    latest.send_signal(signal.SIGTERM)
    assert latest.wait(15) == 0


def _former_log(lab: Lab) -> str:
    return "".join(path.read_text(errors="replace") for path in lab.paths.logs.glob("proxy*"))


def test_listeners_are_closed_when_no_proxy_comes_for_the_park_timeout(lab: Lab) -> None:
    lab.stop_agent()
    lab.start_agent("--park-timeout", "1", cleanup_on_exit=False)
    lab.wait_proved()
    lab.wait("the deposits", lambda: lab.log("proxy").count("connected to the agent's store of listeners") == 2)
    lab.kill("proxy")
    client = lab.pod("client")
    assert listening(client) == ALL_LISTENERS
    lab.wait("the end of waiting", lambda: listening(client) == set())
    refused = client.run(["curl", "-s", "--max-time", "5", "http://10.96.0.10/"], check=False)
    assert refused.returncode == 7, "connection refused at once"
    assert "the listeners of 3 pods are closed" in lab.log("agent")
    lab.start_proxy()
    lab.wait_ready()
    lab.wait_proved()
    client.run(["curl", "-sf", "http://10.96.0.10/"])
