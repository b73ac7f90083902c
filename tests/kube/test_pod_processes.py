"""A pod's namespace is found by its processes, on every layout of cgroups, and never mistaken for another."""

from pathlib import Path

import pytest

from agent.kernel.pod_processes import Remembered, sandboxes
from agent.pods import NetnsId
from agent.pods.sandbox import Sandbox
from tests.kube.fake_proc import LAYOUTS, OTHER, UID, FakeProc, cgroup


def identity(path: Path) -> NetnsId:
    status = path.stat()
    return NetnsId(status.st_dev, status.st_ino)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_found_on_every_layout_of_cgroups(proc: FakeProc, layout: str) -> None:
    own = proc.namespace("pod")
    proc.process(77, cgroup(layout), own)
    found = sandboxes(proc.root, ())
    assert {uid: one.netns_id for uid, one in found.items()} == {UID: identity(own)}
    assert found[UID].netns_path == str(proc.root / "77/ns/net")


def test_a_static_pods_uid_has_no_dashes(proc: FakeProc) -> None:
    uid = "d41d8cd98f00b204e9800998ecf8427e"
    proc.process(77, f"0::/kubepods/burstable/pod{uid}/4f5e\n", proc.namespace("pod"))
    assert set(sandboxes(proc.root, ())) == {uid}


def test_the_oldest_process_wins_over_one_that_made_itself_a_namespace(proc: FakeProc) -> None:
    own = proc.namespace("pod")
    proc.process(900, cgroup("v2, cgroupfs"), own, started=500)
    proc.process(12, cgroup("v2, cgroupfs"), proc.namespace("nested"), started=501)
    assert sandboxes(proc.root, ())[UID].netns_id == identity(own)


def test_b48_with_drop_infra_ctr_a_containers_own_process_tells_where_the_pod_is(proc: FakeProc) -> None:
    """cri-o starts no pause: the first process in the pod is the application's, or an init container's, and conmon is
    on the node. The next one is in the same namespace, whose path is its name's and not a process'."""
    own = proc.namespace("pod")
    name = proc.bound(own, "c8c9f3f0-5a6c-4ac2-9a06-0ca0ec7a0e4b")
    proc.process(50, cgroup("v2, systemd, cri-o"), proc.node, started=99)
    proc.process(51, cgroup("v2, systemd, cri-o"), own, started=100)
    init = sandboxes(proc.root, (name.parent,))
    assert init == {UID: Sandbox(str(name), identity(own))}
    proc.end(51)
    assert sandboxes(proc.root, (name.parent,)) == {}, "no process tells of it"
    proc.process(12, cgroup("v2, systemd, cri-o"), own, started=5000)
    assert sandboxes(proc.root, (name.parent,)) == init


def test_processes_in_the_nodes_own_namespace_are_nobodys(proc: FakeProc) -> None:
    """conmon, and every pod on the host's network."""
    proc.process(50, cgroup("v2, systemd, cri-o"), proc.node, started=5)
    proc.process(51, cgroup("v2, systemd, cri-o"), proc.namespace("pod"), started=9)
    proc.process(60, cgroup("v2, systemd, cri-o", OTHER), proc.node)
    assert {uid: one.netns_path for uid, one in sandboxes(proc.root, ()).items()} == {UID: str(proc.root / "51/ns/net")}


def test_what_a_pod_calls_its_own_cgroups_makes_it_no_other_pod(proc: FakeProc) -> None:
    named = cgroup("v2, cgroupfs").rstrip("\n") + f"/pod{OTHER}\n"
    proc.process(77, named, proc.namespace("pod"))
    assert set(sandboxes(proc.root, ())) == {UID}


@pytest.mark.parametrize(
    "cgroups",
    ["0::/system.slice/containerd.service\n", "", "0::/user.slice/podman-1\n", f"0::/kubepods/podx{UID}/1\n", "\xff"],
)
def test_what_is_no_pods_is_passed_over(proc: FakeProc, cgroups: str) -> None:
    proc.process(77, cgroups, proc.namespace("pod"))
    assert sandboxes(proc.root, ()) == {}


def test_a_process_that_ends_meanwhile_is_passed_over(proc: FakeProc) -> None:
    proc.process(77, cgroup("v2, cgroupfs"), proc.namespace("pod"))
    (proc.root / "77/stat").unlink()
    proc.process(78, cgroup("v2, cgroupfs", OTHER), proc.root / "gone")
    assert sandboxes(proc.root, ()) == {}


def test_a_name_that_the_namespace_has_is_its_path_for_a_process_may_end(proc: FakeProc, tmp_path: Path) -> None:
    own = proc.namespace("pod")
    proc.process(77, cgroup("v2, cgroupfs"), own)
    mounts = tmp_path / "netns"
    mounts.mkdir()
    (mounts / "cni-1").symlink_to(own)
    assert sandboxes(proc.root, (tmp_path / "none", mounts))[UID].netns_path == str(mounts / "cni-1")


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_one_before(
    proc: FakeProc, tmp_path: Path
) -> None:
    remembered: Remembered = {}
    proc.process(77, cgroup("v2, cgroupfs"), proc.namespace("pod"))
    assert set(sandboxes(proc.root, (), remembered)) == {UID}
    proc.process(78, cgroup("v2, cgroupfs", OTHER), proc.namespace("other"))
    (proc.root / "77").rename(tmp_path / "ended")
    (proc.root / "78").rename(proc.root / "77")
    assert set(sandboxes(proc.root, (), remembered)) == {OTHER}
    assert set(remembered) == {"77"}


def test_a_containers_first_process_is_found_once_its_runtime_has_moved_it_into_the_pod(proc: FakeProc) -> None:
    remembered: Remembered = {}
    proc.process(77, "0::/system.slice/containerd.service\n", proc.namespace("pod"))
    assert sandboxes(proc.root, (), remembered) == {}
    (proc.root / "77/cgroup").write_text(cgroup("v2, cgroupfs"))
    assert set(sandboxes(proc.root, (), remembered)) == {UID}


def test_what_is_remembered_of_a_process_is_not_its_namespace(proc: FakeProc) -> None:
    remembered: Remembered = {}
    proc.process(77, cgroup("v2, cgroupfs"), proc.namespace("pod"))
    sandboxes(proc.root, (), remembered)
    moved = proc.namespace("moved")
    proc.process(77, cgroup("v2, cgroupfs"), moved)
    assert sandboxes(proc.root, (), remembered)[UID].netns_id == identity(moved)
