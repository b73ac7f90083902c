"""A node's pods from an API server, their namespaces by the processes in them: enrolled by label, proved, let go."""

from __future__ import annotations

from tests.netns.kubernetes.conftest import ENABLED, Cluster
from tests.netns.life import kernel
from tests.netns.life.talk import Echo, Talk, address

OUT = 15001


def test_a_labelled_pod_is_enrolled_and_its_label_taken_away_lets_it_go(cluster: Cluster) -> None:
    cluster.stop()
    lab = cluster.lab
    client, server = lab.pod("client"), lab.pod("server")
    cluster.run_in(client, cluster.apply(client, ENABLED), 70)
    cluster.run_in(server, cluster.apply(server, {}), 71)
    cluster.start()
    lab.wait_proved("client")
    assert cluster.states()["server"].startswith("skipped: neither the pod nor namespace default has")
    with Echo(server):
        with Talk(client, address(server, 4)) as steered:
            steered.says()
            assert steered.steered_to() == OUT
        cluster.apply(server, ENABLED)
        lab.wait_proved("server")
        cluster.apply(client, {})
        lab.wait("the client to be let go", lambda: cluster.states()["client"] == "disabled")
        assert "headgate" not in kernel.rules(client.netns)
        with Talk(client, address(server, 6)) as direct:
            direct.says()
            assert direct.steered_to() is None


def test_b51_an_agent_that_starts_without_an_api_server_touches_nothing_and_says_what_it_waits_for(
    cluster: Cluster,
) -> None:
    cluster.stop()
    lab = cluster.lab
    client, server = lab.pod("client"), lab.pod("server")
    for pid, pod in enumerate((client, server), start=70):
        cluster.run_in(pod, cluster.apply(pod, ENABLED), pid, "v2, cgroupfs")
    cluster.start()
    lab.wait_proved("client", "server")
    held = kernel.without_handles(kernel.rules(client.netns))
    with Echo(server), Talk(client, address(server, 4)) as steered:
        steered.says()
        lab.kill_agent()
        cluster.api.down()
        cluster.start_agent()
        lab.wait("the agent to say what it waits for", lambda: "pods: " in str(cluster.problems()))
        assert kernel.without_handles(kernel.rules(client.netns)) == held
        steered.says(20)
        with Talk(client, address(server, 6)) as new:
            new.says()
            assert new.steered_to() == OUT
        cluster.serve()
        lab.wait_proved("client", "server")
        assert kernel.without_handles(kernel.rules(client.netns)) == held
        steered.says(20)


def test_an_agent_that_waits_for_an_api_server_ends_when_it_is_asked_to(cluster: Cluster) -> None:
    cluster.stop()
    cluster.api.down()
    cluster.start_agent()
    cluster.lab.wait("the agent to say what it waits for", lambda: "pods: " in str(cluster.problems()))
    assert cluster.lab.stop_agent() == 0
    cluster.serve()
