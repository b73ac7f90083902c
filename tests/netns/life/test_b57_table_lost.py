"""B57: the table `headgate` is deleted under load. Steered connections live through the loss and through the heal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.life.talk import Chatter, Echo, Talk, address

OUT = 15001


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("client"), PodSpec("server")))) as made:
        made.start()
        yield made


def _goes_on(lab: Lab) -> None:
    """By the agent itself, which was stopped while the table was away."""
    os.kill(lab.pid("agent"), signal.SIGCONT)


def _restart_agent(lab: Lab) -> None:
    """By a new agent, which finds the kernel otherwise than planned."""
    os.kill(lab.pid("agent"), signal.SIGCONT)
    lab.kill_agent()
    lab.start_agent()


@pytest.mark.parametrize("heal", [_goes_on, _restart_agent], ids=["by itself", "agent-restart"])
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b57_steered_connections_survive_the_loss_of_the_table_and_its_return(
    lab: Lab, family: int, heal: Callable[[Lab], None]
) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    lab.wait_proved("client", "server")
    for pod in lab.pods:  # who slipped by in the case before this one has ended: only its own counts here
        assert kernel.unsteered_now(lab, pod.name) == kernel.unsteered()
    wanted = [kernel.without_handles(kernel.rules(pod.netns)) for pod in lab.pods]
    with Echo(server), Chatter(client, to, 8) as load, Talk(client, to) as steered:
        assert load.all_hear_more()
        steered.says()  # the proxy dials when it has heard what is said: not in the gap
        assert {talk.steered_to() for talk in (*load.talks, steered)} == {OUT}
        os.kill(lab.pid("agent"), signal.SIGSTOP)  # else it would heal before anything can slip by
        try:
            for pod in lab.pods:
                pod.run(["nft", "delete", "table", "inet", "headgate"])
            assert load.all_hear_more()
            steered.says(20)
            past = Talk(client, to)
            past.says()
        finally:
            heal(lab)
        with past:
            assert past.steered_to() is None, "without the table nothing new is captured: that is what heals"
            for name in ("client", "server"):
                lab.wait("it to be found", lambda name=name: _slipped(lab, name) == 1)  # type: ignore[misc]
            lab.wait_proved("client", "server")
            assert load.all_hear_more()
            steered.says(20)
            past.says()  # it slipped by, is told, and lives on
        with Talk(client, to) as new:
            new.says()
            assert new.steered_to() == OUT
    assert _tables([kernel.without_handles(kernel.rules(pod.netns)) for pod in lab.pods]) == _tables(wanted)


def _slipped(lab: Lab, pod: str) -> int:
    return int(kernel.pod_state(lab, pod).get("unsteered_connections", {}).get("drift", 0))


def _tables(rulesets: list[str]) -> list[list[str]]:
    """Without the elements of sets: who is older than the rules differs."""
    return [
        [line for line in ruleset.splitlines() if "elements = {" not in line and " . " not in line.replace("type", "")]
        for ruleset in rulesets
    ]
