"""A lab file: what it may say, and how it is refused."""

from pathlib import Path

import pytest

from agent.lab.errors import LabError
from agent.lab.spec import LabSpec, PodSpec, address4, address6, default_spec, load_spec


def _lab(tmp_path: Path, text: str) -> LabSpec:
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    return load_spec(file)


def test_the_packaged_lab_is_a_client_and_two_versions_of_a_server() -> None:
    spec = default_spec()
    assert [pod.name for pod in spec.pods] == ["client", "web-v1", "web-v2"]
    assert [server.ports for pod in spec.pods for server in pod.servers] == [(8080,), (8080,)]
    assert [path.name for path in spec.objects] == ["web.yaml", "split.yaml"]


def test_addresses_follow_from_the_place_in_the_list() -> None:
    assert [str(address4(0)), str(address4(252))] == ["10.77.0.2", "10.77.0.254"]
    assert [str(address6(0)), str(address6(252))] == ["fd77::2", "fd77::fe"]


def test_a_pod_has_both_families_and_kubernetes_defaults_unless_told(tmp_path: Path) -> None:
    spec = _lab(tmp_path, "pods: [{name: a}, {name: b, namespace: shop, families: [4], labels: {app: b}}]")
    assert spec.pods == (
        PodSpec("a", "default", "default", (), (), (4, 6), ()),
        PodSpec("b", "shop", "default", (("app", "b"),), (), (4,), ()),
    )


def test_objects_are_files_or_directories_beside_the_lab_file(tmp_path: Path) -> None:
    (tmp_path / "k8s").mkdir()
    for name in ("b.yaml", "a.yml", "notes.txt"):
        (tmp_path / "k8s" / name).write_text("")
    (tmp_path / "one.yaml").write_text("")
    spec = _lab(tmp_path, "pods: [{name: a}]\nobjects: [one.yaml, k8s]")
    assert [path.name for path in spec.objects] == ["one.yaml", "a.yml", "b.yaml"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pods: [{name: a}, {name: a}]", "'a' is given twice"),
        ("pods: [{name: node}]", "pod name 'node'"),
        ("pods: [{name: ../x}]", "pod name '../x'"),
        ("pods: [{}]", "pods[0].name: a non-empty string is needed"),
        ("pods: [{name: a, port: 80}]", "pods[0]: unknown field 'port'"),
        ("pods: [{name: a, families: [5]}]", "pods[0].families: 4, 6 or both"),
        ("pods: [{name: a, labels: {version: 1}}]", "pods[0].labels: a mapping of strings"),
        ("pods: [{name: a, servers: [{name: s}]}]", "servers[0].command: a server needs a command"),
        ("pods: [{name: a, servers: [{name: ../s, command: [x]}]}]", "'../s' is no plain file name"),
        ("pods: [{name: a, servers: [{name: s, command: [x], ports: [70000]}]}]", "70000 is no TCP port"),
        ("pods: {a: b}", "pods: a list of Mapping is needed"),
        ("pods: []\nobjects: [none.yaml]", "objects: 'none.yaml': no such file"),
        ("[]", "a mapping of fields is needed, not list"),
        ("pods: [", "not YAML"),
    ],
)
def test_a_wrong_lab_file_is_refused_with_place_and_remedy(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(LabError) as refused:
        _lab(tmp_path, text)
    assert told in str(refused.value)
    assert str(tmp_path / "lab.yaml") in str(refused.value) or "pod name" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"none\.yaml: No such file"):
        load_spec(tmp_path / "none.yaml")


def test_more_pods_than_the_nodes_network_holds_are_refused() -> None:
    with pytest.raises(LabError, match="at most 253"):
        LabSpec(tuple(PodSpec(f"p{number}") for number in range(254)))
