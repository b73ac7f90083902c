"""What `headgate inject` asks a cluster, and that it needs none."""

import json
import socket
from pathlib import Path

from click.testing import CliRunner, Result

from agent.cli import main
from tests.kube.beside import standing_beside

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\nspec:\n  containers:\n  - name: a\n"


def run(*words: object, stdin: str) -> Result:
    return CliRunner().invoke(main, ["inject", *map(str, words)], input=stdin)


def kubeconfig(at: Path, url: str) -> Path:
    named = {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": "t"}}]}
    contexts = [{"name": "x", "context": {"cluster": "c", "user": "u"}}]
    path = at / "kubeconfig"
    path.write_text(json.dumps({**named, "apiVersion": "v1", "contexts": contexts, "current-context": "x"}))
    return path


def test_a_clusters_version_and_pod_security(tmp_path: Path) -> None:
    with standing_beside() as beside:
        beside.up(socket.create_server(("127.0.0.1", 0)))
        level = {"pod-security.kubernetes.io/enforce": "baseline"}
        beside.put(
            "Namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": level}}
        )
        access = ("--kubeconfig", kubeconfig(tmp_path, beside.server.url))
        done = run(*access, "-n", "shop", "-", stdin=POD.format("a"))
        assert done.exit_code == 0
        assert "-: warning: namespace shop enforces pod security baseline, which refuses NET_ADMIN" in done.stderr
        assert "warning" not in run(*access, "-n", "not-yet-there", "-", stdin=POD.format("a")).stderr
        beside.server.faults.refuse["namespaces"] = 403
        refused = run(*access, "-n", "shop", "-", stdin=POD.format("a"))
        assert refused.exit_code == 0
        assert "warning: namespace shop cannot be read: " in refused.stderr


def test_a_cluster_that_is_away_stops_nothing(tmp_path: Path) -> None:
    done = run("--kubeconfig", kubeconfig(tmp_path, "http://127.0.0.1:9"), "-", stdin=POD.format("a"))
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: the cluster does not tell its version or pod security: ")
    assert "headgate-proxy" in done.stdout


def test_a_context_that_is_not_there_is_wrong(tmp_path: Path) -> None:
    done = run("--kubeconfig", kubeconfig(tmp_path, "http://127.0.0.1:9"), "--context", "y", "-", stdin=POD.format("a"))
    assert (done.exit_code, done.stdout) == (1, "")
