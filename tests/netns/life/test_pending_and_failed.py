"""A pod that cannot be enrolled now stays as it was, says why, and is enrolled by itself as soon as it can be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.life.talk import Echo, Talk, address

OUT = 15001


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("client"), PodSpec("server")))) as made:
        yield made


def _works_unsteered(lab: Lab) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server):
        for family in (4, 6):
            with Talk(client, address(server, family)) as talk:
                talk.says()
                assert talk.steered_to() is None
    assert kernel.rules(client.netns) == kernel.NO_RULES
    assert "fwmark" not in kernel.routing(client.netns)


@pytest.mark.parametrize("port", [15001, 15008])
def test_b31_port_that_an_application_holds_fails_the_pod_before_any_rule_and_is_tried_again(
    lab: Lab, port: int
) -> None:
    client = lab.pod("client")
    lab.start_proxy()
    with closing(client.netns.listen("0.0.0.0", port)):
        lab.start_agent()
        reason = kernel.wait_state(lab, "client", "failed")["reason"]
        assert f"port {port} is taken by process {os.getpid()} (" in reason
        assert "move the application to another port" in reason
        lab.wait_proved("server")
        assert [pod["name"] for pod in lab.proxy_get("/pods")] == ["server"], "it was never announced"
        _works_unsteered(lab)  # and reaches a pod that is in the mesh
    lab.wait_proved("client")
    with Echo(lab.pod("server")), Talk(client, address(lab.pod("server"), 4)) as talk:
        talk.says()
        assert talk.steered_to() == OUT


def test_without_a_proxy_pods_stay_pending_and_unsteered_and_are_proved_when_one_comes(lab: Lab) -> None:
    lab.start_agent()
    for name in ("client", "server"):
        reason = kernel.wait_state(lab, name, "pending")["reason"]
        assert "no proxy is connected to the agent's zds.sock" in reason
    assert lab.agent_get("/pods")["proxy_connected"] is False
    _works_unsteered(lab)
    lab.start_proxy()
    lab.wait_proved("client", "server")
    with Echo(lab.pod("server")), Talk(lab.pod("client"), address(lab.pod("server"), 6)) as talk:
        talk.says()
        assert talk.steered_to() == OUT


def test_proved_pod_stays_closed_while_the_proxy_is_away_and_works_again_when_it_is_back(lab: Lab) -> None:
    """Fail closed (DESIGN 5): the rules stay, so nothing goes past the mesh; a new proxy finds every pod by itself."""
    client, server = lab.pod("client"), lab.pod("server")
    lab.start()
    rules = kernel.rules(client.netns)
    lab.stop_proxy()
    lab.wait("the proxy to be missed", lambda: lab.agent_get("/pods")["proxy_connected"] is False)
    with Echo(server) as echo, Talk(client, address(server, 4)) as four, Talk(client, address(server, 6)) as six:
        for waiting in (four, six):  # in the queue of a listener that the agent keeps for the next proxy
            assert waiting.steered_to() == OUT
            waiting.socket.settimeout(0.3)
            waiting.socket.sendall(b"<<queued>>\n")
            with pytest.raises(TimeoutError):
                waiting.socket.recv(1)
        assert echo.callers == []
        assert kernel.rules(client.netns) == rules
        lab.start_proxy()
        lab.wait_ready()
        lab.wait_proved("client", "server")
        for waiting in (four, six):
            waiting.socket.settimeout(5)
            assert waiting.socket.recv(1024) == b"<<queued>>\n"
            waiting.says()
    assert kernel.rules(client.netns) == rules
