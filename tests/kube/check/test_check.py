"""`headgate check` beside a stand-in, whose agents answer through the API server's own proxy."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from click.testing import CliRunner, Result

from agent.check.reading import agent_status
from agent.cli import main
from agent.cli.install import rendered
from agent.supervisor.status import status_view
from agent.webhook.certificates import fresh
from agent.webhook.secret import trusting
from tests.kube.beside import Beside, standing_beside
from tests.kube.manifests.rendered import ROOT
from tests.kube.store import Body
from tests.unit.agent.lives import enrolled

_OURS = "headgate-system"
_NODES = ("n1", "n2")


def _status(*pods: Body, **changes: Any) -> Body:
    return {"version": "0.1.0", "proxy_connected": True, "problems": [], "pods": list(pods)} | changes


def _told(name: str, state: str = "proved", reason: str = "") -> Body:
    return {"namespace": "shop", "name": name, "uid": name, "state": state, "reason": reason, "failed_proofs": []}


@dataclass
class Cluster:
    """`agents`: by pod, what /status of its agent says; a number is an HTTP status instead."""

    beside: Beside
    kubeconfig: Path
    agents: dict[str, Any] = field(default_factory=dict)

    def check(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["check", "--kubeconfig", str(self.kubeconfig), *words])

    def checked(self, *words: str) -> dict[str, Body]:
        """By id."""
        done = self.check("-o", "json", *words)
        assert done.exit_code in (0, 1), done.output
        found = json.loads(done.stdout)
        assert found["success"] is (done.exit_code == 0)
        return {line["id"]: line for line in found["checks"]}

    async def _proxied(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        told = self.agents.get(name.removesuffix(":15014"), 404)
        if isinstance(told, int):
            return web.Response(status=told, text="no such agent")
        return web.Response(body=told) if isinstance(told, bytes) else web.json_response(told)


@contextmanager
def _cluster(at: Path) -> Iterator[Cluster]:
    with standing_beside() as beside:
        listener = socket.create_server(("127.0.0.1", 0))
        beside.up(listener)  # and closes it
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        config = {
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        kubeconfig = at / "kubeconfig"
        kubeconfig.write_text(json.dumps({**config, "contexts": [context], "current-context": "x"}))
        made = Cluster(beside, kubeconfig)
        beside.server.pod_proxy = made._proxied
        for name in _NODES:
            beside.put("Node", _node(name))
        beside.put("Namespace", {"metadata": {"name": "shop", "labels": {"headgate.io/mesh": "enabled"}}})
        yield made


def _node(name: str) -> Body:
    info = {"operatingSystem": "linux", "kubeletVersion": "v1.34.4"}
    return {
        "metadata": {"name": name},
        "status": {"nodeInfo": info, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _ready_pod(name: str, node: str, namespace: str = "shop", **labels: str) -> Body:
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "a", "image": "a"}]},
        "status": {"phase": "Running", "conditions": ready},
    }


def _install(made: Cluster) -> None:
    """And all has come up: a pod on each node, both enrolled."""
    for body in yaml.safe_load_all(rendered(None, (), pod_monitor=False, webhook=True)):
        if body["kind"] == "DaemonSet":
            body["status"] = {"desiredNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 2}
        if body["kind"] == "Deployment":
            body["status"] = {"readyReplicas": 2}
        if body["kind"] == "MutatingWebhookConfiguration":
            body = trusting(body, fresh("headgate-webhook.headgate-system.svc", time.time()).bundle) or body
        made.beside.put(body["kind"], body, body["metadata"].get("namespace", ""))
    for which in ("agent", "proxy"):
        for node in _NODES:
            labels = {"app.kubernetes.io/name": "headgate", "app.kubernetes.io/component": which}
            made.beside.put("Pod", _ready_pod(f"{which}-{node}", node, _OURS, **labels), _OURS)
    for name, node in (("web", "n1"), ("db", "n2")):
        made.beside.put("Pod", _ready_pod(name, node), "shop")
        made.agents[f"agent-{node}"] = _status(_told(name))


def test_an_empty_cluster_takes_an_installation(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        done = made.check("--pre", "--webhook")
        assert done.exit_code == 0, done.output
        assert "√ may make all that is installed" in done.stdout
        assert "Status check results are √" in done.stdout
        reviews = [path for method, path, _ in made.beside.server.asked if method == "POST"]
        assert set(reviews) == {"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}  # nothing was changed


def test_without_an_installation_the_later_check_says_what_is_missing(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        found = made.checked()
        wrong = {identity for identity, line in found.items() if line["result"] == "failed"}
        assert wrong == {"headgate-agent", "headgate-proxy", "nodes-without"}


def test_an_installation_that_works(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        _install(made)
        found = made.checked()
        assert {identity for identity, line in found.items() if line["result"] != "ok"} == set()
        assert found["pods-proved"]["what"].endswith("(2)")
        assert all(method == "GET" for method, _, _ in made.beside.server.asked)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (503, "503"),
        (b"[]", "an answer that is none: no object"),
        (b"{}", "an answer that is none"),
        (b"<html>", "an answer that is none"),
        (b'{"version":"0.1.0","proxy_connected":true,"problems":[],"pods":[7]}', "an answer that is none"),
        (b"[" * 100_000, "an answer that is none"),
        (b" " * (5 << 20), "an answer that is none: more than"),
    ],
)
def test_an_agent_that_says_no_sense_is_told_and_harms_nobody(tmp_path: Path, told: Any, why: str) -> None:
    with _cluster(tmp_path) as made:
        _install(made)
        made.agents["agent-n1"] = told
        found = made.checked()
        assert found["agent-answers"]["result"] == "failed"
        assert f"agent-n1 on n1: {why}" in found["agent-answers"]["why"]
        assert "shop/web on n1" in found["pods-without-agent"]["why"]


def test_a_pod_that_its_agent_could_not_enrol(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        _install(made)
        made.agents["agent-n1"] = _status(_told("web", "failed", "15001 is taken\x1b[2J"))
        done = made.check()
        assert done.exit_code == 1
        assert r"shop/web: failed: 15001 is taken\x1b[2J" in done.stdout


def test_an_agent_that_ends_beside_its_successor_is_not_asked(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        _install(made)
        labels = {"app.kubernetes.io/name": "headgate", "app.kubernetes.io/component": "agent"}
        former = _ready_pod("agent-n1-former", "n1", _OURS, **labels)
        former["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        made.beside.put("Pod", former, _OURS)
        assert {line["id"] for line in made.checked().values() if line["result"] != "ok"} == set()


def test_what_may_not_be_read_names_the_rule(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        _install(made)
        made.beside.server.faults.refuse = {"nodes": 403}
        found = made.checked()
        assert found["nodes-without"]["result"] == "warning"
        assert "nodes" in found["nodes-without"]["why"]
        assert "403 Forbidden" in found["nodes-without"]["why"]


def test_an_api_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        made.beside.down()
        done = made.check()
        assert done.exit_code == 1
        assert "× can query the API server" in done.stdout
        assert "(1 checks, 1 failed, 0 warnings)" in done.stdout


def test_waiting_ends_when_the_last_pod_is_proved(tmp_path: Path) -> None:
    with _cluster(tmp_path) as made:
        _install(made)
        asked = []

        async def later(request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
            asked.append(name)
            state = "pending" if len(asked) <= len(_NODES) else "proved"
            told = _status(_told("web", state)) if "n1" in name else _status(_told("db"))
            return web.json_response(told)

        made.beside.server.pod_proxy = later
        done = made.check("--wait", "60")
        assert (done.exit_code, len(asked)) == (0, 2 * len(_NODES))
        assert "Status check results are √ " in done.stdout


def test_options_that_say_nothing_together_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["check", "--webhook"])
    assert done.exit_code == 2
    assert "need --pre" in done.stderr


def test_what_an_agent_says_is_what_is_read() -> None:
    life = enrolled().life
    facts = {"proxy_connected": True, "problems": ["a problem"], "skipped": []}
    told = agent_status(json.loads(json.dumps(status_view(facts, [life]))))
    assert (told.proxy_connected, told.problems) == (True, ("a problem",))
    (pod,) = told.pods
    assert (pod.namespace, pod.name, pod.state) == (life.pod.namespace, life.pod.name, "proved")


def test_nothing_that_needs_linux_is_imported() -> None:
    """With the socket module as macOS has it, and nothing of kernel, rules or proxy."""
    code = (
        "import json, socket, sys\n"
        "for name in ('TCP_USER_TIMEOUT', 'TCP_KEEPIDLE'): delattr(socket, name)\n"
        "import agent.cli.check, agent.check.gather, agent.check.after, agent.check.before, agent.check.view\n"
        "import agent.kube.client\n"
        "print(json.dumps(sorted({'.'.join(m.split('.')[:2]) for m in sys.modules"
        " if m.split('.')[0] in ('agent', 'proxy', 'bpf', 'nftables', 'bcc', 'pyroute2')})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(json.loads(done.stdout)) <= {
        "agent", "agent.check", "agent.cli", "agent.inject", "agent.kube", "agent.manifests", "agent.pods",
        "agent.printable", "agent.sources", "agent.webhook", "proxy", "proxy.api",
    }  # fmt: skip
