"""The agent with rules made of iptables, new and old: a pod's whole life, with agent and proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.life.talk import Chatter, Echo, Talk, address, outside, until

MESH = "headgate.io/mesh"
EXCLUDE = "headgate.io/exclude-outbound-ports"
OUT = 15001


@pytest.fixture(scope="module", params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(variant: str) -> Iterator[Lab]:
    """`client` is enrolled, `server` is not."""
    with Lab(LabSpec((PodSpec("client"), outside("server")))) as made:
        made.start_proxy()
        made.start_agent("--drain-s", "20", "--backend", f"iptables-{variant}")
        made.wait_ready()
        made.wait_proved("client")
        yield made


def saved(pod: LabPod, variant: str) -> str:
    """Rules of both families, without counters, comments and dates."""
    texts = [pod.run([f"{tool}-{variant}-save"]).stdout for tool in ("iptables", "ip6tables")]
    lines = [line for text in texts for line in text.splitlines() if not line.startswith((":", "#"))]
    return "\n".join(lines)


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_pod_is_steered_by_iptables_alone(lab: Lab, variant: str, family: int) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server), Talk(client, address(server, family)) as talk:
        talk.says()
        assert talk.steered_to() == OUT
    assert "HEADGATE" in saved(client, variant)
    assert client.run(["nft", "list", "tables", "inet"]).stdout == ""
    assert (kernel.packets(lab, "client")["out-capture"] or 0) > 0


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_an_exclusion_comes_and_goes_under_load_and_cuts_nobody(lab: Lab, variant: str, family: int) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    drifts = kernel.pod_state(lab, "client")["drifts"]

    def is_there() -> bool:
        return "out-capture-skip-ports" in saved(client, variant)

    try:
        with Echo(server), Chatter(client, to, 4) as load:
            lab.set_annotation("client", EXCLUDE, "9000")
            lab.wait("the exclusion", is_there)
            lab.wait_proved("client")
            assert load.all_hear_more()
            assert [talk.steered_to() for talk in load.talks] == [OUT] * 4
            with Talk(client, to) as direct:
                direct.says()
                assert direct.steered_to() is None
                lab.set_annotation("client", EXCLUDE, None)
                lab.wait("its end", lambda: not is_there())
                lab.wait_proved("client")
                assert load.all_hear_more()
                direct.says()
                found = kernel.pod_state(lab, "client")["unsteered_connections"]
                assert found == kernel.unsteered(rules_changed=1)
                with Talk(client, to) as again:
                    again.says()
                    assert again.steered_to() == OUT
        assert kernel.pod_state(lab, "client")["drifts"] == drifts
    finally:
        lab.set_annotation("client", EXCLUDE, None)


def test_a_restart_of_the_agent_changes_no_rule(lab: Lab, variant: str) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server), Chatter(client, address(server, 4), 4) as load:
        before, counted = saved(client, variant), kernel.packets(lab, "client")["out-capture"]
        lab.kill_agent()
        lab.start_agent("--drain-s", "20", "--backend", f"iptables-{variant}")
        lab.wait_proved("client")
        assert saved(client, variant) == before
        assert (kernel.packets(lab, "client")["out-capture"] or 0) >= (counted or 0) > 0
        assert load.all_hear_more()


def test_a_rule_that_somebody_deletes_is_put_back_and_steered_connections_live(lab: Lab, variant: str) -> None:
    """iptables-legacy counts no generation: there it is found by the look of each minute, or when asked."""
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server), Chatter(client, address(server, 4), 4) as load:
        before = saved(client, variant)
        client.run([f"iptables-{variant}", "-t", "nat", "-F", "HEADGATE_CAPTURE_OUT"])
        if variant == "legacy":
            answer = lab.agent_get("/rules/default/client/diff?fix=1", method="POST", timeout_s=30)
            assert answer["changes"] and answer["fixed"], answer
        lab.wait("it to be put back", lambda: saved(client, variant) == before)
        lab.wait_proved("client")
        assert load.all_hear_more()
        assert kernel.pod_state(lab, "client")["drifts"] == 1


def test_a_pod_that_leaves_is_drained_and_nothing_is_left(lab: Lab, variant: str) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    try:
        with Echo(server):
            with Chatter(client, address(server, 4), 4) as load:
                lab.set_label("client", MESH, "disabled")
                kernel.wait_state(lab, "client", "leaving")
                until("the drain form", lambda: "--to-ports" not in saved(client, variant))
                assert load.all_hear_more()
                with Talk(client, address(server, 4)) as direct:
                    direct.says()
                    assert direct.steered_to() is None
            kernel.wait_state(lab, "client", "disabled")
        assert "HEADGATE" not in saved(client, variant)
        assert kernel.rules(client.netns) == kernel.NO_RULES
    finally:
        lab.set_label("client", MESH, None)
        lab.wait_proved("client")


def test_an_agent_with_another_backend_takes_over_and_cuts_nobody(lab: Lab, variant: str) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server), Chatter(client, address(server, 6), 4) as load:
        lab.kill_agent()
        lab.start_agent("--drain-s", "20", "--backend", "nft")
        lab.wait_proved("client")
        assert "HEADGATE" not in saved(client, variant)
        assert "table inet headgate" in kernel.rules(client.netns)
        assert load.all_hear_more()
        assert kernel.pod_state(lab, "client")["unsteered_connections"] == kernel.unsteered()
        lab.kill_agent()
        lab.start_agent("--drain-s", "20", "--backend", f"iptables-{variant}")
        lab.wait_proved("client")
        assert "HEADGATE" in saved(client, variant)
        assert client.run(["nft", "list", "tables", "inet"]).stdout == ""
        assert load.all_hear_more()
