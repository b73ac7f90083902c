"""The command lines in the manifests, read by the commands themselves: no option of theirs is misspelt or gone, and
every directory that they name is mounted."""

from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from agent.cli import main
from agent.manifests.documents import Choice, leaving
from tests.kube.manifests.rendered import CLUSTERS, container, documents

_PLUGIN = "/usr/lib/headgate/headgate-cni"
"""In the image, like the programs."""


def _parsed(found: dict[str, Any], at: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The container's command with what it gives its function; its mounts are directories below `at`."""
    here = {}
    for mount in found["volumeMounts"]:
        (at / mount["mountPath"].strip("/")).mkdir(parents=True)
        here[mount["mountPath"]] = str(at / mount["mountPath"].strip("/"))
    if "/host/proc" in here:
        node = Path(here["/host/proc"], "1/ns/net")
        node.parent.mkdir(parents=True)
        node.touch()
        here["/host/proc/1/ns/net"] = str(node)
    plugin = at / "plugin"
    plugin.touch()
    here[_PLUGIN] = str(plugin)
    for one in found.get("env", []):
        if "value" in one:
            monkeypatch.setenv(one["name"], here.get(one["value"], one["value"]))
    words = []
    for word in found["args"]:
        option, equals, value = word.partition("=")
        words.append(f"{option}={here[value]}" if equals and value.startswith("/") else word)
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        name = words.pop(0)
        found_command = command.get_command(context, name)
        assert found_command is not None, name
        command = found_command
    return command.make_context(command.name, words).params


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_agents(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _parsed(container(cluster, "agent"), tmp_path, monkeypatch)
    assert given["kubernetes"] is True
    assert given["excluded"] == ("kube-system", "headgate-system")
    assert given["proc"] == tmp_path / "host/proc"
    assert given["node_netns"] == tmp_path / "host/proc/1/ns/net"
    assert (given["cni_conf_dir"] is None) is (cluster == "openshift")
    assert (given["cni_plugin"] is None) is (cluster == "openshift")


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_proxys(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _parsed(container(cluster, "proxy"), tmp_path, monkeypatch)
    assert given["take_over"] is True
    assert given["drain_s"] == 300
    assert given["config_dir"] is None


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_leaving_agents(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = yaml.safe_dump_all(documents(cluster))
    (found,) = yaml.safe_load_all(leaving(rendered, Choice()))
    spec = found["spec"]["template"]["spec"]
    given = _parsed(spec["containers"][0], tmp_path / "agent", monkeypatch)
    assert given["cleanup_on_exit"] is True
    assert given["node_netns"] is not None, "the node's own rules are to go, too"
    assert given["cni_conf_dir"] is None
    for one in spec.get("initContainers", []):
        removed = _parsed(one, tmp_path / "init", monkeypatch)
        assert removed["conf_dir"] == tmp_path / "init/host/cni/net.d"
        assert removed["bin_dir"] == tmp_path / "init/host/cni/bin"
        assert removed["proc"] == tmp_path / "init/host/proc", "whether its runtime is cri-o"


def test_a_misspelt_option_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = container("base", "proxy")
    with pytest.raises(click.UsageError, match="No such option"):
        _parsed({**found, "args": [*found["args"], "--takeover"]}, tmp_path, monkeypatch)
