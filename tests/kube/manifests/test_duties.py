"""`headgate install --with repair --with taint`: the agent is told by what brings the rights, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from agent.cli import main
from agent.pods.taint import Taint
from tests.kube.manifests.rendered import CLUSTERS, container, documents, of_kind


def _printed(*words: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _option(name: str) -> Any:
    (found,) = of_kind(documents(name), "ConfigMap")
    return found


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("name", ["repair", "taint"])
def test_the_agent_reads_the_option_from_the_config_map_that_comes_with_its_rights(cluster: str, name: str) -> None:
    option = _option(name)
    (variable,) = (one for one in container(cluster, "agent")["env"] if one["name"] == f"HEADGATE_{name.upper()}")
    asked = variable["valueFrom"]["configMapKeyRef"]
    assert asked == {"name": option["metadata"]["name"], "key": name, "optional": True}
    assert list(option["data"]) == [name]


def test_what_they_say_the_agent_understands() -> None:
    import click

    from agent.cli.kubernetes import cluster_options

    @click.command()
    @cluster_options
    def command(**given: Any) -> None:
        click.echo(f"{given['repair']} {given['taint']}")

    said = {f"HEADGATE_{name.upper()}": _option(name)["data"][name] for name in ("repair", "taint")}
    done = CliRunner().invoke(command, [], env=said)
    assert done.output == "delete-pod headgate.io/agent-not-ready:NoSchedule\n"


def test_the_rights_are_not_there_without() -> None:
    for found in (documents("base"), documents("openshift")):
        rules = [rule for role in of_kind(found, "ClusterRole") for rule in role["rules"]]
        assert not any("delete" in rule["verbs"] for rule in rules)
        assert not any("nodes" in rule["resources"] for rule in rules)


@pytest.mark.parametrize(
    ("name", "rights"),
    [
        ("repair", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]),
        ("taint", [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]),
    ],
)
def test_each_brings_its_own_right_and_no_other(name: str, rights: list[Any]) -> None:
    (role,) = of_kind(documents(name), "ClusterRole")
    (binding,) = of_kind(documents(name), "ClusterRoleBinding")
    assert role["rules"] == rights
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == of_kind(documents("base"), "ClusterRoleBinding")[0]["subjects"]


def test_the_policy_names_the_taint_that_the_agent_takes() -> None:
    (policy,) = of_kind(documents("taint"), "ValidatingAdmissionPolicy")
    key = Taint.read(_option("taint")["data"]["taint"]).key
    assert any(f"t.key != '{key}'" in one["expression"] for one in policy["spec"]["validations"])


def test_installed_and_taken_out_with_the_same_words() -> None:
    words = ("--with", "repair", "--with", "taint", "--namespace", "mesh")
    there = {(one["kind"], one["metadata"]["name"]) for one in _printed("install", *words)}
    steps = (*_printed("uninstall", *words), *_printed("uninstall", *words, "--step", "remove"))
    gone = {(one["kind"], one["metadata"]["name"]) for one in steps}
    assert there - gone == {("Namespace", "mesh")}
    assert {("ConfigMap", "headgate-repair"), ("ConfigMap", "headgate-taint")} <= gone
