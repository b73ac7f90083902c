"""`headgate install | kubectl apply -f -`, and `headgate uninstall`."""

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from agent.cli import main
from tests.kube.manifests.rendered import CLUSTERS, ROOT

_DIGEST = f"sha256:{'0' * 64}"


def _run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def _printed(*words: str) -> list[dict[str, Any]]:
    done = _run(*words)
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.stdout))


def _names(found: list[dict[str, Any]]) -> list[str]:
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_prints_what_was_rendered(cluster: str) -> None:
    words = ("--overlay", cluster) if cluster != "base" else ()
    assert _run("install", *words).stdout == (ROOT / f"agent/manifests/{cluster}.yaml").read_text()


def test_what_others_need_comes_first() -> None:
    names = _names(_printed("install", "--overlay", "openshift", "--pod-monitor"))
    assert names[0] == "Namespace/headgate-system"
    assert names.index("ServiceAccount/headgate-agent") < names.index("DaemonSet/headgate-agent")
    assert names[-1] == "PodMonitor/headgate"


@pytest.mark.parametrize(
    "image",
    [
        "mesh/headgate:1.2.3",
        "registry.example:5000/a/b_c/headgate:v1",
        f"headgate@{_DIGEST}",
        f"[::1]:5000/x:1@{_DIGEST}",
    ],
)
def test_another_image_is_every_containers(image: str) -> None:
    found = [one for one in _printed("install", "--image", image) if one["kind"] == "DaemonSet"]
    assert [one["spec"]["template"]["spec"]["containers"][0]["image"] for one in found] == [image, image]


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("registry.example/headgate", "names no version"),
        ("registry.example:5000/headgate", "names no version"),
        ("headgate:", "is no reference"),
        ("Headgate/UPPER:1", "is no reference"),
        ("headgate:1\nhostPID: true", "is no reference"),
        ("x" * 600 + ":1", "is no reference"),
        ("a" + "_a" * 250 + "!", "is no reference"),
    ],
)
def test_an_image_that_is_no_version_of_anything_is_refused(image: str, told: str) -> None:
    done = _run("install", "--image", image)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr


def test_another_namespace_is_everywhere() -> None:
    found = _printed("install", "--overlay", "openshift", "--namespace", "mesh", "--pod-monitor")
    assert "headgate-system" not in yaml.safe_dump_all(found)
    assert found[0]["metadata"]["name"] == "mesh"
    (agent,) = (one for one in found if one["kind"] == "DaemonSet" and one["metadata"]["name"] == "headgate-agent")
    arguments = agent["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--exclude-namespace=mesh" in arguments  # else the plugin would hold the agent's own pods
    (constraints,) = (one for one in found if one["kind"] == "SecurityContextConstraints")
    assert constraints["users"][0] == "system:serviceaccount:mesh:headgate-agent"


@pytest.mark.parametrize("namespace", ["kube-system", "default", "UPPER", "a" * 64, "a.b", "-a", "a\n"])
def test_a_namespace_that_cannot_be_ours_is_refused(namespace: str) -> None:
    done = _run("install", "--namespace", namespace)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "namespace" in done.stderr


def test_leaving_is_an_agent_that_takes_the_rules_away_when_it_ends() -> None:
    """On each node: the former agent has ended, then the plugin goes, then no agent chains it again."""
    (found,) = _printed("uninstall", "--image", "x:1", "--namespace", "mesh")
    assert found["metadata"] == _printed("install", "--namespace", "mesh")[-1]["metadata"]
    assert found["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "100%"}
    spec = found["spec"]["template"]["spec"]
    (before,) = spec["initContainers"]
    assert before["args"][:2] == ["cni", "remove"]
    assert before["image"] == "x:1"
    assert before["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (agent,) = spec["containers"]
    assert agent["args"][-1] == "--cleanup-on-exit"
    assert [one["name"] for one in agent["env"]] == ["NODE_NAME", "HEADGATE_PROC", "HEADGATE_NODE_NETNS"]


def test_without_a_plugin_none_is_removed() -> None:
    (found,) = _printed("uninstall", "--overlay", "openshift")
    assert "initContainers" not in found["spec"]["template"]["spec"]


def test_leaving_says_what_comes_next_on_standard_error() -> None:
    told = _run("uninstall", "--namespace", "mesh").stderr
    steps = ["rollout status daemonset/headgate-agent", "delete daemonset headgate-agent", "uninstall --step remove"]
    places = [told.index(step) for step in steps]
    assert places == sorted(places)
    assert "kubectl -n mesh" in told


@pytest.mark.parametrize("cluster", ["gke", "openshift"])
def test_the_two_steps_take_all_that_was_installed(cluster: str) -> None:
    """Step by step: nobody is deleted before those who need him."""
    words = ["--pod-monitor", "--overlay", cluster]
    taken = [*_names(_printed("uninstall", *words)), *_names(_printed("uninstall", *words, "--step", "remove"))]
    assert sorted(taken) == sorted(_names(_printed("install", *words)))
    assert taken[0] == "DaemonSet/headgate-agent"
    assert taken[-1] == "Namespace/headgate-system"
    assert taken.index("DaemonSet/headgate-proxy") < taken.index("ServiceAccount/headgate-proxy")


def test_a_namespace_that_may_have_been_there_before_is_left() -> None:
    done = _run("uninstall", "--step", "remove", "--namespace", "mesh")
    assert "Namespace" not in {one["kind"] for one in yaml.safe_load_all(done.stdout)}
    assert "kubectl delete namespace mesh" in done.stderr


def test_nothing_that_needs_linux_is_imported() -> None:
    code = (
        "import sys, json; sys.argv = ['headgate', 'install']\n"
        "import agent.cli.install\n"
        "print(json.dumps(sorted(m for m in sys.modules if m.split('.')[0] in ('agent', 'proxy', 'bpf', 'aiohttp'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [
        "agent", "agent.cli", "agent.cli.install", "agent.manifests", "agent.manifests.documents", "agent.printable",
    ]  # fmt: skip
