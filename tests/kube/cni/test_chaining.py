"""Our plugin in the node's CNI directory: put in, put back, taken out, and everything else as it was."""

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from agent.chaining import node
from agent.chaining.conflist import BadConflist, Chained, first_of, with_ours, without_ours
from agent.chaining.node import NodeChain, NodeDirectories
from agent.cli.cni import cni

OURS = Chained("/var/run/headgate/cni.sock", ("headgate-system", "kube-system"))
CALICO: dict[str, Any] = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}, {"type": "portmap", "snat": True}],
    "their own": [1, {"deep": None}],
}
FLANNEL: dict[str, Any] = {
    "cniVersion": "0.3.1",
    "name": "cbr0",
    "type": "flannel",
    "delegate": {"isDefaultGateway": True},
}


@pytest.fixture
def at(tmp_path: Path) -> NodeDirectories:
    for name in ("net.d", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "plugin").write_text("first")
    return NodeDirectories(tmp_path / "net.d", tmp_path / "bin", tmp_path / "plugin")


def chain(at: NodeDirectories, own_file: str = "") -> NodeChain:
    return NodeChain(NodeDirectories(at.conf_dir, at.bin_dir, at.plugin, own_file), OURS)


def put(at: NodeDirectories, name: str, config: object) -> Path:
    path = at.conf_dir / name
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def types(path: Path) -> list[str]:
    return [plugin["type"] for plugin in json.loads(path.read_text())["plugins"]]


def names(at: NodeDirectories) -> set[str]:
    return {path.name for path in at.conf_dir.iterdir()}


# ── The text ───────────────────────────────────────────────────────────────────────────────────────────────────────
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
plugins = st.fixed_dictionaries({"type": st.sampled_from(["calico", "bridge", "portmap"])}, optional={"more": values})
lists = st.fixed_dictionaries(
    {"name": st.text(max_size=5), "plugins": st.lists(plugins, min_size=1, max_size=3)}, optional={"other": values}
)


@given(config=lists)
def test_what_is_put_in_and_taken_out_again_leaves_all_else_as_it_was(config: dict[str, Any]) -> None:
    text = json.dumps(config)
    once = with_ours(text, OURS)
    assert json.loads(once)["plugins"] == [*config["plugins"], OURS.entry()]
    assert with_ours(once, OURS) == once
    assert json.loads(without_ours(once)) == config
    assert without_ours(text) == text


def test_other_options_of_ours_replace_the_former_ones_and_it_stays_the_last() -> None:
    once = json.loads(with_ours(json.dumps(CALICO), Chained("/old.sock", ())))
    once["plugins"].append({"type": "bandwidth"})
    assert json.loads(with_ours(json.dumps(once), OURS))["plugins"] == [
        *CALICO["plugins"],
        {"type": "bandwidth"},
        OURS.entry(),
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": 1}', '{"name": "a", "plugins": {}}', '{"name": "a"}', "[" * 9999]
)
def test_what_is_no_configuration_is_left_alone(text: str) -> None:
    for change in (lambda: with_ours(text, OURS), lambda: without_ours(text)):
        with pytest.raises(BadConflist):
            change()


def test_alone_in_a_list_ours_would_give_no_pod_a_network() -> None:
    with pytest.raises(BadConflist, match="no plugin is in it that gives a pod its network"):
        with_ours(json.dumps({"name": "x", "plugins": [OURS.entry()]}), OURS)


def test_the_first_file_is_the_one_a_runtime_takes() -> None:
    assert first_of(["87-podman.conflist", "10-calico.conflist", "calico-kubeconfig", ".05.conf", "00.txt"]) == (
        "10-calico.conflist"
    )
    assert first_of(["10-a.conflist", "10-a.conf"]) == "10-a.conf"
    assert first_of(["readme"]) is None


# ── The directory ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_put_into_the_first_and_the_program_beside_the_others(at: NodeDirectories) -> None:
    path, other = put(at, "10-calico.conflist", CALICO), put(at, "87-podman.conflist", CALICO)
    made = chain(at)
    made.look()
    assert made.problem == ""
    assert types(path) == ["calico", "portmap", "headgate-cni"]
    assert types(other) == ["calico", "portmap"]
    assert path.stat().st_mode & 0o777 == 0o600
    program = at.bin_dir / "headgate-cni"
    assert (program.read_text(), program.stat().st_mode & 0o777) == ("first", 0o755)
    assert names(at) == {"10-calico.conflist", "87-podman.conflist"}


def test_another_cni_that_writes_its_file_anew_has_ours_put_back_within_a_second(at: NodeDirectories) -> None:
    async def scenario() -> None:
        path = put(at, "10-calico.conflist", CALICO)
        made, looks = chain(at), 0

        async def sleep(seconds: float) -> None:
            nonlocal looks
            assert seconds == 1.0
            assert types(path)[-1] == "headgate-cni"
            looks += 1
            if looks == 3:
                raise asyncio.CancelledError
            put(at, "10-calico.conflist", CALICO)
            at.plugin.write_text("second")

        with pytest.raises(asyncio.CancelledError):
            await made.keep(sleep)
        assert (at.bin_dir / "headgate-cni").read_text() == "second"

    asyncio.run(scenario())


def test_what_is_as_it_should_be_is_not_written_again(at: NodeDirectories) -> None:
    path = put(at, "10-calico.conflist", CALICO)
    made = chain(at)
    made.look()
    before = path.stat().st_mtime_ns, path.stat().st_ino, (at.bin_dir / "headgate-cni").stat().st_ino
    made.look()
    assert (path.stat().st_mtime_ns, path.stat().st_ino, (at.bin_dir / "headgate-cni").stat().st_ino) == before


@pytest.mark.parametrize("name", ["10-flannel.conf", "10-flannel.json"])
def test_a_single_plugins_file_becomes_a_list_and_comes_back_at_the_end(at: NodeDirectories, name: str) -> None:
    path = put(at, name, FLANNEL)
    before = path.read_bytes()
    made = chain(at)
    made.look()
    made.look()
    assert names(at) == {"10-flannel.conflist", f"{name}.before-headgate"}
    config = json.loads((at.conf_dir / "10-flannel.conflist").read_text())
    assert (config["name"], config["cniVersion"]) == ("cbr0", "0.3.1")
    assert types(at.conf_dir / "10-flannel.conflist") == ["flannel", "headgate-cni"]
    assert made.remove()
    assert names(at) == {name}
    assert path.read_bytes() == before
    assert list(at.bin_dir.iterdir()) == []


def test_a_single_plugins_file_beside_a_list_of_the_same_name_is_left_alone(at: NodeDirectories) -> None:
    put(at, "10-flannel.conf", FLANNEL)
    other = put(at, "10-flannel.conflist", CALICO)
    made = chain(at)
    made.look()
    assert "10-flannel.conf cannot become a list" in made.problem
    assert (json.loads(other.read_text()), names(at)) == (CALICO, {"10-flannel.conf", "10-flannel.conflist"})


def test_what_was_broken_off_between_list_and_file_is_finished(at: NodeDirectories) -> None:
    """The agent was killed after the list was written, and before the file was out of its way."""
    path = put(at, "10-flannel.conf", FLANNEL)
    chain(at).look()
    path.with_name("10-flannel.conf.before-headgate").rename(path)
    made = chain(at)
    made.look()
    assert made.problem == ""
    assert names(at) == {"10-flannel.conflist", "10-flannel.conf.before-headgate"}


def test_a_directory_named_as_a_list_is_none(at: NodeDirectories) -> None:
    """libcni passes it over; and it sorts before the cluster's own."""
    (at.conf_dir / "00-kept.conflist").mkdir()
    path = put(at, "10-calico.conflist", CALICO)
    made = chain(at)
    made.look()
    assert (made.problem, types(path)[-1]) == ("", "headgate-cni")
    made.remove()
    assert json.loads(path.read_text()) == CALICO


def test_a_file_that_cannot_be_read_keeps_ours_in_no_other(at: NodeDirectories) -> None:
    """Or no pod would start any more, for what somebody else has left in the directory."""
    path = put(at, "10-calico.conflist", CALICO)
    made = chain(at)
    made.look()
    (at.conf_dir / "05-dangling.conflist").symlink_to(at.conf_dir / "nothing")
    with pytest.raises(FileNotFoundError, match=r"05-dangling\.conflist"):
        made.remove()
    assert json.loads(path.read_text()) == CALICO
    assert (at.bin_dir / "headgate-cni").exists()
    (at.conf_dir / "05-dangling.conflist").unlink()
    assert made.remove() == (f"removed {at.bin_dir / 'headgate-cni'}",)


def test_removed_twice_is_removed_once(at: NodeDirectories) -> None:
    path = put(at, "10-calico.conflist", CALICO)
    made = chain(at)
    made.look()
    assert len(made.remove()) == 2
    assert json.loads(path.read_text()) == CALICO
    assert made.remove() == ()


def test_a_list_of_our_own_leaves_the_others_as_they_are_and_follows_them(at: NodeDirectories) -> None:
    path = put(at, "10-calico.conflist", CALICO)
    before = path.read_bytes()
    made = chain(at, "02-headgate.conflist")
    made.look()
    own = at.conf_dir / "02-headgate.conflist"
    assert types(own) == ["calico", "portmap", "headgate-cni"]
    put(at, "10-calico.conflist", {**CALICO, "plugins": [{"type": "calico"}]})
    made.look()
    assert types(own) == ["calico", "headgate-cni"]
    put(at, "10-calico.conflist", before.decode())
    made.remove()
    assert names(at) == {"10-calico.conflist"}
    assert path.read_bytes() == before


def test_a_list_of_our_own_that_no_runtime_would_take_is_refused(at: NodeDirectories) -> None:
    put(at, "01-first.conflist", CALICO)
    made = chain(at, "02-headgate.conflist")
    made.look()
    assert "would not be the first, 01-first.conflist is" in made.problem
    assert names(at) == {"01-first.conflist"}


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}', ""])
def test_a_broken_file_is_told_and_left_alone(at: NodeDirectories, text: str) -> None:
    path = put(at, "10-broken.conflist", text)
    made = chain(at)
    made.look()
    assert str(path) in made.problem
    assert path.read_text() == text
    path.unlink()
    made.look()
    assert "holds no configuration yet" in made.problem
    put(at, "10-calico.conflist", CALICO)
    made.look()
    assert made.problem == ""


def test_a_full_disk_changes_nothing_and_is_told(at: NodeDirectories, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(at, "10-calico.conflist", CALICO)
    before = path.read_bytes()
    made = chain(at)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(node.os, "fsync", full)
    made.look()
    assert "No space left on device" in made.problem
    assert path.read_bytes() == before
    assert names(at) == {"10-calico.conflist"}
    monkeypatch.undo()
    made.look()
    assert (made.problem, types(path)[-1]) == ("", "headgate-cni")


@pytest.mark.parametrize(("runtime", "stays"), [("crio", True), ("containerd", False), ("my crio", False)])
def test_a_runtime_that_remembers_a_pods_chain_keeps_the_program_that_it_will_ask(
    at: NodeDirectories, tmp_path: Path, runtime: str, stays: bool
) -> None:
    """cri-o asks for DEL whom it asked for ADD: without the program no such pod would end."""
    put(at, "10-calico.conflist", CALICO)
    chain(at).look()
    process = tmp_path / "proc/7"
    process.mkdir(parents=True)
    (process / "comm").write_text(f"{runtime}\n")
    (tmp_path / "proc/8").mkdir()  # it has ended
    words = ["--conf-dir", str(at.conf_dir), "--bin-dir", str(at.bin_dir), "--proc", str(tmp_path / "proc")]
    done = CliRunner().invoke(cni, ["remove", *words])
    assert done.exit_code == 0
    assert types(at.conf_dir / "10-calico.conflist") == ["calico", "portmap"]
    assert (at.bin_dir / "headgate-cni").exists() is stays
    assert ("cri-o asks it at the end of each pod" in done.stderr) is stays
