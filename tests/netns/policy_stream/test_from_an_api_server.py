"""Policy from an API server: the agent lists and watches, the proxy serves by it; the server's faults change nothing
that is in force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab.node import Lab
from tests.kube.beside import Beside, standing_beside
from tests.netns.policy_stream.callers import Callers

VIPS = ("10.96.0.10", "fd96::10")
PORT = 6443


def all_to(subset: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: default}}
spec: {{hosts: [web], http: [{{route: [{{destination: {{host: web, subset: {subset}}}}}]}}]}}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.remove_object("split")
        yield made


@pytest.fixture
def api(lab: Lab) -> Iterator[Beside]:
    """In the node's namespace, with what the lab's directory has."""
    with standing_beside() as beside:
        beside.apply_directory(lab.config_directory)
        beside.up(lab.node.listen("127.0.0.1", PORT))
        yield beside


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "current-context: lab\n"
        f"clusters: [{{name: lab, cluster: {{server: 'http://127.0.0.1:{PORT}'}}}}]\n"
        "contexts: [{name: lab, context: {cluster: lab}}]\n"
    )
    return path


def start(lab: Lab, kubeconfig: Path) -> None:
    lab.start_agent("--kubernetes", "--kubeconfig", str(kubeconfig), "--spread", "0")
    lab.start_proxy(own_objects=False)


def who_answers(lab: Lab, callers: Callers, wanted: str) -> None:
    """Waits until the last calls were all answered by that pod."""
    seen = len(callers.answers)

    def decided() -> bool:
        last = callers.answers[seen:][-40:]
        return len(last) == 40 and {(answer.status, answer.pod) for answer in last} == {(200, wanted)}

    lab.wait(f"{wanted} to answer everything", decided)


def test_a_route_that_is_applied_and_changed_holds_and_stays_in_force_while_the_server_is_away(
    lab: Lab, api: Beside, kubeconfig: Path
) -> None:
    start(lab, kubeconfig)
    lab.wait_ready()
    lab.wait_proved()
    api.apply(all_to("v2"))
    with Callers(lab.pod("client"), VIPS) as callers:
        who_answers(lab, callers, "web-v2")
        api.apply(all_to("v1"))
        who_answers(lab, callers, "web-v1")
        api.down()
        lab.wait("the trouble to be told", lambda: len(lab.agent_get("/pods")["problems"]) > 10)
        who_answers(lab, callers, "web-v1")
        api.apply(all_to("v2"))  # while nobody can ask
        api.up(lab.node.listen("127.0.0.1", PORT))
        who_answers(lab, callers, "web-v2")
        lab.wait("the trouble to be over", lambda: lab.agent_get("/pods")["problems"] == [])
    assert callers.losses == []


def test_nothing_is_served_while_a_kind_may_not_be_listed_and_the_missing_rule_is_named(
    lab: Lab, api: Beside, kubeconfig: Path
) -> None:
    api.server.faults.refuse["virtualservices"] = 403
    start(lab, kubeconfig)
    lab.wait("the agent to tell of it", lambda: lab.agent_get("/pods")["problems"] != [])
    (problem,) = lab.agent_get("/pods")["problems"]
    assert problem.startswith("virtualservices.networking.istio.io: may not list them: 403 Forbidden")
    assert "the ClusterRole must permit get, list and watch" in problem
    states = {pod["state"] for pod in lab.proxy_get("/pods")}
    assert "serving" not in states
    api.server.faults.refuse.clear()
    lab.wait_ready()
    lab.wait_proved()
