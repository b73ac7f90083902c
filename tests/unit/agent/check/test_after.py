"""An installed headgate: each thing that may be wrong is a line of its own, and nothing else is."""

from typing import Any

import pytest

from agent.check.after import after
from agent.check.facts import Agent, Cluster, Namespace, Node, PodState, Unseen, Webhook
from agent.check.lines import Level, Line
from tests.unit.agent.check.clusters import DAY_S, NOW_S, agent, cluster, daemonset, own, pod, proved


def _wrong(found: Cluster) -> list[Line]:
    return [line for line in after(found) if line.level is not Level.OK]


def _one(found: Cluster) -> Line:
    (line,) = _wrong(found)
    return line


def test_a_healthy_cluster_has_nothing_to_tell() -> None:
    assert _wrong(cluster()) == []


def test_without_an_api_server_nothing_else_is_said() -> None:
    (line,) = after(cluster(version=Unseen("connection refused")))
    assert (line.id, line.level) == ("api-reachable", Level.FAILED)
    assert "https://10.96.0.1:443: connection refused" in line.why


@pytest.mark.parametrize(
    ("changes", "identity", "level", "told"),
    [
        ({"version": "v1.29.10"}, "api-version", Level.FAILED, "it runs v1.29.10"),
        ({"version": "weird"}, "api-version", Level.FAILED, "it runs weird"),
        ({"daemonsets": (daemonset("headgate-agent"),)}, "headgate-proxy", Level.FAILED, "there is no DaemonSet"),
        (
            {"daemonsets": (daemonset("headgate-agent", ready=1), daemonset("headgate-proxy"))},
            "headgate-agent", Level.FAILED, "1 of 2 ready, 2 of this version",
        ),
        (
            {"daemonsets": (daemonset("headgate-agent", updated=1), daemonset("headgate-proxy"))},
            "headgate-agent", Level.FAILED, "2 of 2 ready, 1 of this version",
        ),
        (
            {"nodes": (*cluster().nodes, Node("n3", "linux", ready=True, kubelet_version="v1.34.4"))},
            "nodes-without", Level.FAILED, "lacking: n3 (agent and proxy)",
        ),
        (
            {"own": (own("agent", "n1"), own("proxy", "n1"), own("agent", "n2"))},
            "nodes-without", Level.FAILED, "lacking: n2 (proxy)",
        ),
        (
            {"agents": (agent("n1", proved("web"), proxy_connected=False), agent("n2", proved("db")))},
            "agent-proxy", Level.FAILED, "none is connected on n1",
        ),
        (
            {"agents": (agent("n1", proved("web"), problems=("CNI: disk full",)), agent("n2", proved("db")))},
            "cni-chain", Level.FAILED, "n1: disk full",
        ),
        (
            {"agents": tuple(agent(node, proved(name), problems=("may not list x",))
                             for node, name in (("n1", "web"), ("n2", "db")))},
            "agent-problems", Level.WARNING, "may not list x (on n1, n2)",
        ),
        (
            {"agents": (agent("n1", proved("web"), version="0.0.9"), agent("n2", proved("db")))},
            "version-skew", Level.WARNING, "agents: 0.0.9, 0.1.0; this one: 0.1.0",
        ),
        ({"client_version": "0.2.0"}, "version-skew", Level.WARNING, "agents: 0.1.0; this one: 0.2.0"),
    ],
)  # fmt: skip
def test_one_thing_wrong_is_one_line(changes: dict[str, Any], identity: str, level: Level, told: str) -> None:
    line = _one(cluster(**changes))
    assert (line.id, line.level) == (identity, level)
    assert told in line.why
    assert line.remedy


def test_a_windows_node_needs_none() -> None:
    nodes = (*cluster().nodes, Node("w1", "windows", ready=True, kubelet_version="v1.34.4"))
    assert _wrong(cluster(nodes=nodes)) == []


def test_a_pod_of_ours_that_is_not_ready_is_named_with_why() -> None:
    pods = (*cluster().own[:1], own("agent", "n2", ready=False, waiting="ImagePullBackOff: no such image"),
            *cluster().own[2:])  # type: ignore[index]  # fmt: skip
    found = cluster(own=pods, daemonsets=(daemonset("headgate-agent", ready=1), daemonset("headgate-proxy")))
    assert "headgate-agent-n2 on n2: ImagePullBackOff: no such image" in _one(found).why


def test_an_agent_that_does_not_answer_leaves_its_pods_unproved() -> None:
    silent = Agent("headgate-agent-n2", "n2", Unseen("timeout"))
    lines = _wrong(cluster(agents=(agent("n1", proved("web")), silent)))
    assert [line.id for line in lines] == ["agent-answers", "pods-without-agent"]
    assert "headgate-agent-n2 on n2: timeout" in lines[0].why
    assert "shop/db on n2" in lines[1].why


def test_agents_that_keep_no_chain_are_told_and_no_failure() -> None:
    sets = (daemonset("headgate-agent", variables={}), daemonset("headgate-proxy"))
    line = _one(cluster(daemonsets=sets))
    assert (line.id, line.level) == ("cni-chain", Level.WARNING)


# ── Pods ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _with_web(state: PodState) -> Cluster:
    return cluster(agents=(agent("n1", state), agent("n2", proved("db"))))


def test_a_pod_that_failed_is_told_with_reason_and_proofs() -> None:
    line = _one(_with_web(PodState("shop", "web", "failed", "not proved", ("out4: went direct",))))
    assert (line.id, line.level) == ("pods-proved", Level.FAILED)
    assert line.why == "shop/web: failed: not proved; out4: went direct"
    assert "headgate why" in line.remedy


@pytest.mark.parametrize("state", ["pending", "installed", "drifted", "announced"])
def test_one_on_its_way_is_a_warning(state: str) -> None:
    line = _one(_with_web(PodState("shop", "web", state, "waits for the proxy")))
    assert (line.id, line.level) == ("pods-pending", Level.WARNING)


def test_a_selected_pod_that_its_agent_does_not_have_fails() -> None:
    found = cluster(agents=(agent("n1"), agent("n2", proved("db"))))
    line = _one(found)
    assert (line.id, line.level) == ("pods-unknown", Level.FAILED)
    assert "shop/web" in line.why


@pytest.mark.parametrize(
    "other",
    [
        pod("out", **{"headgate.io/mesh": "disabled"}),
        pod("elsewhere", namespace="other"),
        pod("dns", namespace="kube-system", **{"headgate.io/mesh": "enabled"}),
        pod("unscheduled", node=""),
    ],
    ids=["opted out", "no label", "excluded namespace", "on no node"],
)
def test_who_is_not_selected_is_not_missed(other: Any) -> None:
    assert _wrong(cluster(pods=(*cluster().pods, other))) == []  # type: ignore[misc]


def test_the_agents_own_options_select() -> None:
    words = ("agent", "--select=istio-injection=enabled", "--exclude-namespace=private")
    sets = (daemonset("headgate-agent", arguments=words), daemonset("headgate-proxy"))
    spaces = (Namespace("old", {"istio-injection": "enabled"}), Namespace("private", {"istio-injection": "enabled"}))
    both = (pod("a", namespace="old"), pod("b", namespace="private"))
    line = _one(cluster(daemonsets=sets, namespaces=spaces, pods=both))
    assert (line.id, "old/a" in line.why, "private/b" in line.why) == ("pods-unknown", True, False)


def test_many_are_told_by_the_first_and_their_number() -> None:
    states = [PodState("shop", f"p{number}", "failed", "") for number in range(9)]
    line = _one(cluster(agents=(agent("n1", proved("web"), *states), agent("n2", proved("db"))),
                        pods=tuple(pod(one.name) for one in states)))  # fmt: skip
    assert line.why.endswith("shop/p4: failed and 4 more")


# ── The webhook ────────────────────────────────────────────────────────────────────────────────────────────────────
_LATER_S = NOW_S + 300 * DAY_S


@pytest.mark.parametrize(
    ("webhook", "identity", "level", "told"),
    [
        (Webhook(("Fail",), (_LATER_S,), 0), "webhook", Level.FAILED, "none of its replicas is ready: no pod that it"),
        (Webhook(("Fail",), (_LATER_S,), None), "webhook", Level.FAILED, "its Deployment is gone: no pod that it"),
        (Webhook(("Ignore",), (_LATER_S,), 0), "webhook", Level.FAILED, "none of its replicas is ready"),
        (Webhook(("Fail",), (NOW_S - 1,), 2), "webhook-certificates", Level.FAILED, "they have expired"),
        (Webhook(("Fail",), (NOW_S + 5 * DAY_S,), 2), "webhook-certificates", Level.WARNING, "expire in 5 days"),
        (Webhook(("Fail", "Fail"), (_LATER_S, None), 2), "webhook-certificates", Level.FAILED, "a caBundle is missing"),
        (Webhook((), (), 2), "webhook-certificates", Level.FAILED, "a caBundle is missing"),
    ],
)
def test_the_webhook(webhook: Webhook, identity: str, level: Level, told: str) -> None:
    line = _one(cluster(webhook=webhook))
    assert (line.id, line.level) == (identity, level)
    assert told in line.why


def test_no_webhook_is_nothing_to_tell() -> None:
    assert not any(line.section == "webhook" for line in after(cluster(webhook=None)))


def test_what_may_not_be_asked_is_no_clean_bill() -> None:
    no = Unseen("403 Forbidden: nodes is forbidden")
    found = cluster(
        nodes=no, daemonsets=no, own=no, agents=(), pods=no, webhook=no, namespaces=no, mutating=no, cilium=no
    )
    lines = [line for line in after(found) if line.id not in ("api-reachable", "api-version")]
    assert {line.level for line in lines} == {Level.WARNING}
    assert all("403 Forbidden" in line.why for line in lines)
