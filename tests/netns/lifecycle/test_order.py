"""Who comes first: pods, agent, proxy, API server; on a node that starts anew and on one that headgate is new to."""

from __future__ import annotations

import threading

from agent.lab.load import Shape
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import Kind, Traffic
from tests.netns.life import kernel
from tests.netns.lifecycle import web
from tests.netns.lifecycle.node import Node, Started

CALM = Kind(16, Shape(per_s=50, timeout_s=30))


def test_a_node_starts_anew_system_pods_start_at_once_and_the_others_wait_until_they_are_steered(steered: Node) -> None:
    before = steered.run("survivor", web.sleeper())
    steered.wait_proved("survivor")
    former = steered.ours.copy()
    steered.reboot()
    again: list[Started] = []
    waiting = threading.Thread(target=lambda: again.append(steered.again(before, web.sleeper())))
    waiting.start()
    system = steered.run("dns", web.sleeper(), labels={}, namespace="kube-system")
    assert system.refused == ()
    for which, (old,) in former.items():
        steered.forget(which, old)
    steered.bring_up()
    waiting.join()
    (pod,) = again
    assert pod.refused, "it waited"
    assert all("the agent of this node does not answer" in one or "no proxy is connected" in one for one in pod.refused)
    steered.wait_proved("survivor")
    assert "headgate" in kernel.rules(steered.netns(pod.pod))
    assert kernel.rules(steered.netns(system.pod)) == ""


def test_headgate_comes_to_a_node_with_pods_and_enrols_them_in_place_without_loss(steered: Node, loss: Record) -> None:
    steered.end_all()
    steered.unchain()
    servers = tuple(steered.run(f"web-{number}", web.server(steered)) for number in (1, 2))
    client = steered.run("client", web.sleeper())
    place = steered.place(client)
    steered.wait("the servers to answer", lambda: all(web.answers(place, url) for url in web.direct(servers)))
    with Traffic(steered.lab, (CALM,), urls=web.direct(servers), pod=place, seconds=120) as traffic:
        steered.bring_up()
        steered.wait_proved("web-1", "web-2", "client")
        traffic.goes_on()
        verdict = traffic.end()
    loss("node-3-installed", verdict, note="three pods that ran already were enrolled in place")
    nothing_failed(verdict, traffic)
    assert verdict.cut == 0


def test_the_agent_comes_before_the_proxy_and_pods_wait_for_both(steered: Node) -> None:
    steered.end_all()
    steered.start("agent")
    steered.wait("the agent's answer", lambda: steered.pods() == {})
    begun: list[Started] = []
    waiting = threading.Thread(target=lambda: begun.append(steered.run("early", web.sleeper())))
    waiting.start()
    steered.wait("the pod to be held back", lambda: steered.pods().get("early") == "pending")
    steered.bring_up()
    waiting.join()
    assert len(begun) == 1, "whether it was refused meanwhile, or held back for as long"
    steered.wait_proved("early")


def test_the_api_server_comes_last_and_what_runs_is_left_as_it_is_until_then(steered: Node) -> None:
    kept = steered.run("kept", web.sleeper())
    steered.wait_proved("kept")
    netns = steered.netns(kept.pod)
    held = kernel.rules(netns)
    steered.end_all()
    steered.api.down()
    try:
        # Their objects are told when there is a server again.
        for which in steered.ours:
            steered.start(which)
        steered.wait("the agent to say what it waits for", lambda: bool(steered.lab.agent_get("/pods")["problems"]))
        steered.wait("the proxy to say that it does not know the policy", lambda: steered.readiness("proxy") == 503)
        assert kernel.rules(netns) == held
    finally:
        steered.serve()
    steered.bring_up()
    steered.wait_proved("kept")
    assert kernel.rules(netns) == held
