"""B57: the table `headgate` is deleted under load. Steered connections live through the loss and through the heal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.life.talk import Chatter, Echo, Talk, address

MESH = "headgate.io/mesh"
OUT = 15001


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("client"), PodSpec("server")))) as made:
        made.start()
        yield made


def _relabel(lab: Lab) -> None:
    """By the operator: out of the mesh and back in."""
    for pod in ("client", "server"):
        lab.set_label(pod, MESH, "disabled")
        kernel.wait_state(lab, pod, "leaving")
        lab.set_label(pod, MESH, None)


def _restart_agent(lab: Lab) -> None:
    """By a new agent, which finds the kernel otherwise than planned."""
    lab.kill_agent()
    lab.start_agent()


@pytest.mark.parametrize("heal", [_relabel, _restart_agent], ids=["label", "agent-restart"])
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b57_steered_connections_survive_the_loss_of_the_table_and_its_return(
    lab: Lab, family: int, heal: Callable[[Lab], None]
) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    wanted = [kernel.without_handles(kernel.rules(pod.netns)) for pod in lab.pods]
    with Echo(server), Chatter(client, to, 8) as load, Talk(client, to) as steered:
        assert load.all_hear_more()
        assert {talk.steered_to() for talk in (*load.talks, steered)} == {OUT}
        for pod in lab.pods:
            pod.run(["nft", "delete", "table", "inet", "headgate"])
        assert load.all_hear_more()
        steered.says(20)
        with Talk(client, to) as past:
            past.says()
            assert past.steered_to() is None, "without the table nothing new is captured: that is what heals"
            _is_noticed(lab)
            heal(lab)
            lab.wait_proved("client", "server")
            assert load.all_hear_more()
            steered.says(20)
            past.says()  # it is older than the rules that came back
        with Talk(client, to) as new:
            new.says()
            assert new.steered_to() == OUT
    assert _tables([kernel.without_handles(kernel.rules(pod.netns)) for pod in lab.pods]) == _tables(wanted)


def _is_noticed(lab: Lab) -> None:
    """`headgate rules verify` and `pods` say that the redirection is gone, in which direction, and do not call it
    proved."""
    for pod in ("client", "server"):
        verified = lab.agent_get(f"/pods/default/{pod}/verify", method="POST", timeout_s=20)
        assert verified["state"] == "installed"
        assert verified["reason"].startswith("redirection is not proved: ")
        assert {name: proof["result"] for name, proof in verified["proofs"].items()} == dict.fromkeys(
            ("out4", "out6", "in4", "in6"), "failed"
        )
        assert kernel.packets(lab, pod)["out-capture"] is None


def _tables(rulesets: list[str]) -> list[list[str]]:
    """Without the elements of sets: who is older than the rules differs."""
    return [
        [line for line in ruleset.splitlines() if "elements = {" not in line and " . " not in line.replace("type", "")]
        for ruleset in rulesets
    ]
