"""Rules that nobody tells the agent of: a former one's in a pod that has lost its label meanwhile, or a sidecar's."""

from __future__ import annotations

import pytest

from agent.lab.node import headgate
from tests.netns.kubernetes.conftest import ENABLED, Cluster
from tests.netns.life import kernel
from tests.netns.life.talk import Echo, Talk, address


def both_killed_while_enrolled(cluster: Cluster) -> str:
    """The client's uid; nobody listens where its rules lead."""
    lab = cluster.lab
    cluster.stop()
    client = lab.pod("client")
    uid = cluster.apply(client, ENABLED)
    cluster.run_in(client, uid, 70)
    cluster.start()
    lab.wait_proved("client")
    lab.kill_agent()
    lab.kill("proxy")
    assert "inet headgate" in kernel.rules(client.netns)
    return uid


@pytest.mark.parametrize("since", ["the label was taken away", "it has finished"])
def test_a_pod_that_is_no_longer_ours_is_let_go_by_an_agent_that_never_knew_it(cluster: Cluster, since: str) -> None:
    both_killed_while_enrolled(cluster)
    lab = cluster.lab
    client, server = lab.pod("client"), lab.pod("server")
    if since == "it has finished":
        cluster.apply(client, ENABLED, status=False)
        cluster.api.server.store.resources["", "pods"].objects["default", "client"]["status"]["phase"] = "Succeeded"
    else:
        cluster.apply(client, {})
    cluster.start()
    lab.wait("the client to be let go", lambda: cluster.states().get("client") == "disabled")
    assert "headgate" not in kernel.rules(client.netns)
    with Echo(server), Talk(client, address(server, 4)) as direct:
        direct.says()
        assert direct.steered_to() is None


@pytest.mark.parametrize(
    ("labels", "state"),
    [({}, "skipped: neither"), ({"headgate.io/mesh": "disabled"}, "disabled"), (ENABLED, "failed")],
    ids=["none", "disabled", "enabled"],
)
def test_a_pod_that_steers_itself_keeps_its_rules_whatever_its_label_says(
    cluster: Cluster, labels: dict[str, str], state: str
) -> None:
    """Its container is called something else than a proxy's: only the rules tell."""
    cluster.stop()
    lab = cluster.lab
    client = lab.pod("client")
    client.run([*headgate(), "init", "--proxy-uid", "1337"])
    try:
        before = kernel.without_handles(kernel.rules(client.netns))
        assert "headgate" in before
        cluster.run_in(client, cluster.apply(client, labels), 70)
        cluster.start()
        lab.wait("the agent to have looked", lambda: cluster.states().get("client", "").startswith(state))
        cluster.stop()
        assert kernel.without_handles(kernel.rules(client.netns)) == before, "an agent that cleans up at its end, too"
    finally:
        client.run([*headgate(), "init", "--cleanup"])
