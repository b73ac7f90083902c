"""`headgate doctor` on a lab's node: the pods are those of its agent, and a healthy one has no serious finding."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agent.cli import main
from agent.lab.node import Lab


def doctor(lab: Lab, *words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(main, ["doctor", "-o", "json", "--run-dir", str(lab.paths.run), *words])
    assert done.stdout, done.output
    return done.exit_code, json.loads(done.stdout)


def of_pods(said: dict[str, Any], *ids: str) -> list[tuple[str, str]]:
    return [(one["id"], one["where"]) for one in said["findings"] if one["id"] in ids]


def test_a_healthy_node_with_agent_and_proxy_has_no_serious_finding(web_lab: Lab, tmp_path: Path) -> None:
    status, said = doctor(web_lab, "--cni-dir", str(tmp_path), "--directory", str(tmp_path))
    assert status == 0 and said["serious"] == 0
    assert said["pods"] == 3 and [one["what"] for one in said["unseen"] if one["what"] != "processes"] == []


PROBED = """\
apiVersion: v1
kind: Pod
metadata: {name: web-v1, namespace: default}
spec:
  containers:
  - {name: app, livenessProbe: {tcpSocket: {port: 9}}}
"""


def test_a_probe_of_a_pod_that_does_not_listen_yet(web_lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(PROBED)
    _, said = doctor(web_lab, "--directory", str(tmp_path))
    assert of_pods(said, "probe-too-early") == [("probe-too-early", "pod default/web-v1")]


def test_a_client_that_dials_a_pods_address_through_the_mesh(web_lab: Lab, tmp_path: Path) -> None:
    server = web_lab.pod("web-v1")
    _, before = doctor(web_lab, "--directory", str(tmp_path))
    with web_lab.pod("client").netns.connect(server.address4, 8080):
        _, said = doctor(web_lab, "--directory", str(tmp_path))
    assert of_pods(before, "dials-address") == []
    assert of_pods(said, "dials-address") == [("dials-address", "pod default/client")]


def test_b32_calls_of_the_proxys_own_port_that_it_refused_are_counted(web_lab: Lab, tmp_path: Path) -> None:
    _, before = doctor(web_lab, "--directory", str(tmp_path))
    with suppress(ConnectionResetError), web_lab.pod("client").netns.connect("127.0.0.1", 15001) as called:
        assert called.recv(1) == b""
    _, said = doctor(web_lab, "--directory", str(tmp_path))
    assert of_pods(before, "localhost-loop") == []
    assert of_pods(said, "localhost-loop") == [("localhost-loop", "node")]
