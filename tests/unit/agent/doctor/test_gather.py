"""Facts from faked trees: files of CNI, /proc, modules, locks, objects; and bpf(2) without a right to it."""

import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.doctor.facts import CniFile, MeshProcess, Process
from agent.doctor.gather import admin, clock, cni, features, ipvs, locks, objects, processes
from agent.pods import NetnsId
from tests.unit.agent.doctor.nodes import write

RUN = Path("/var/run/headgate")


# ── CNI ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_cni_files_come_in_the_order_of_the_runtime_and_others_not_at_all(tmp_path: Path) -> None:
    write(tmp_path / "20-b.conflist", '{"name": "b", "plugins": [{"type": "calico"}, {"type": "istio-cni"}]}')
    write(tmp_path / "10-a.conf", '{"name": "a", "type": "bridge"}')
    write(tmp_path / "00-readme.txt", "no configuration")
    write(tmp_path / "30-c.json", '{"name": "c", "type": "ptp"}')
    found = cni.directory(tmp_path)
    assert found.path == str(tmp_path)
    assert found.files == (
        CniFile("10-a.conf", "a", ("bridge",)),
        CniFile("20-b.conflist", "b", ("calico", "istio-cni")),
        CniFile("30-c.json", "c", ("ptp",)),
    )


def test_cni_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    for name, text in (
        ("1.conflist", "{"),
        ("2.conflist", "[]"),
        ("3.conflist", '{"plugins": []}'),
        ("4.conflist", '{"plugins": [{"type": 7}]}'),
        ("5.conf", "{}"),
        ("6.conflist", '{"plugins": "x"}'),
        ("7.conf", "[" * 100_000),
    ):
        write(tmp_path / name, text)
    write(tmp_path / "8.conf", " " * (1 << 20) + "{}")
    found = cni.directory(tmp_path).files
    assert len(found) == 8 and all(file.problem and not file.plugins for file in found)
    assert found[0].problem.startswith("no JSON") and found[-1].problem.startswith("larger than")


# ── Processes ──────────────────────────────────────────────────────────────────────────────────────────────────────
def process(
    proc: Path,
    pid: int | str,
    words: tuple[str, ...],
    *,
    capabilities: int = 0,
    cgroup: str = "/pod",
    mounts: str | None = None,
) -> None:
    made = proc / str(pid)
    (made / "ns").mkdir(parents=True)
    (made / "fd").mkdir()
    (made / "fd/0").symlink_to(f"socket:[{pid}0]")
    write(made / "ns/net", "")
    (made / "ns/mnt").symlink_to(mounts or proc / "mounts")
    write(made / "cmdline", "\0".join(words))
    write(made / "comm", f"{words[0]}\n")
    write(made / "cgroup", f"1:cpu:/x\n0::{cgroup}\n")
    write(made / "limits", "Limit Soft Hard Units\nMax open files            1024                 4096      files\n")
    write(made / "status", f"Name:\t{words[0]}\nCapEff:\t{capabilities:016x}\nCapBnd:\t{capabilities | 1:016x}\n")


def test_processes_are_told_by_their_namespace_and_ours_by_their_command_line(tmp_path: Path) -> None:
    write(tmp_path / "mounts", "")
    process(tmp_path, "self", ("doctor",))
    process(tmp_path, 10, ("web",), capabilities=1 << 13)
    process(tmp_path, 16, ("headgate", "proxy", "--config-dir", "/evil"), mounts=str(write(tmp_path / "others", "")))
    process(tmp_path, 11, ("python3", "-m", "agent", "proxy", "--config-dir=/etc/policy", "--run-dir", str(RUN)))
    process(tmp_path, 12, ("python3", "/opt/bin/headgate", "agent", "--run-dir", "/lab", "--objects-dir", "/x"))
    process(tmp_path, 13, ("headgate", "pods"))
    process(tmp_path, 14, ("python3", "-m", "proxy.worker", "--link-fd", "18"))
    process(tmp_path, 15, ("vi", "-m", "agent"))
    write(tmp_path / "uptime", "1")
    wanted = {NetnsId(status.st_dev, status.st_ino) for status in ((tmp_path / "10/ns/net").stat(),)}
    seen = processes.processes(wanted, RUN, tmp_path)
    assert list(seen.by_netns.values()) == [[Process(10, "web", 1 << 13, 1 << 13 | 1)]]
    assert sorted(seen.mesh, key=lambda one: one.pid) == [
        MeshProcess(11, "proxy", 1024, 1),
        MeshProcess(12, "agent", 1024, 1),
        MeshProcess(14, "worker", 1024, 1),
        MeshProcess(16, "proxy", 1024, 1),
    ]
    assert seen.objects == Path("/etc/policy")
    assert seen.cgroups == {"/pod"} and seen.unreadable == 0


def test_holders_of_sockets_are_found_and_the_lowest_pid_counts(tmp_path: Path) -> None:
    process(tmp_path, 10, ("web",))
    process(tmp_path, 9, ("forked",))
    (tmp_path / "9/fd/1").symlink_to("socket:[100]")
    found = processes.owners([100], tmp_path)
    assert {inode: (owner.pid, owner.command) for inode, owner in found.items()} == {100: (9, "forked")}
    assert processes.owners([], tmp_path) == {}


def test_the_nodes_file_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "sys/fs").mkdir(parents=True)
    write(tmp_path / "sys/fs/file-nr", "592\t0\t2465620\n")
    found = processes.descriptors([], tmp_path)
    assert (found.allocated, found.maximum) == (592, 2465620)


# ── Kernel ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_modules_are_known_by_the_names_of_modprobe(tmp_path: Path) -> None:
    assert not features.modules(tmp_path).loadable
    (tmp_path / os.uname().release).mkdir()
    text = "kernel/net/netfilter/nft_redir.ko.xz: kernel/a.ko\nkernel/net/xt-owner.ko:\n"
    write(tmp_path / os.uname().release / "modules.dep", text)
    found = features.modules(tmp_path)
    assert found.loadable and found.known == {"nft_redir", "xt_owner"}


def test_the_unified_tree_is_found_among_mounts(tmp_path: Path) -> None:
    head = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"
    mounts = write(tmp_path / "mounts", f"{head}cgroup2 /a\\040b cgroup2 rw 0 0\n")
    assert features.cgroup2(mounts) == "/a b"
    assert features.cgroup2(write(mounts, head)) is None


def test_the_clock_answers_and_does_not_jump() -> None:
    found = clock.clock(clock.now())
    assert abs(found.jump_s) < 0.1 and 0 <= found.looked_s < 10 and found.max_error_s >= 0


# ── Locks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_who_holds_a_lock_from_one_look_to_the_next_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "xtables.lock", "")
    wanted = locks.files((path, path, tmp_path / "missing"))
    assert list(wanted.values()) == [str(path)] and locks.holders(wanted) == frozenset()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = locks.holders(wanted)
        (held,) = locks.held(before, locks.holders(wanted), 0.5)
        assert (held.file, held.pid, held.looked_s) == (str(path), os.getpid(), 0.5) and held.command
    assert locks.held(before, locks.holders(wanted), 0.5) == ()


# ── Objects, IPVS, proxy ───────────────────────────────────────────────────────────────────────────────────────────
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, selector: {a: b}}\n"


def test_objects_are_read_and_a_file_that_cannot_be_is_told(tmp_path: Path) -> None:
    write(tmp_path / "1.yaml", SERVICE)
    write(tmp_path / "2.yaml", SERVICE.replace("10.96.0.1", "10.96.0.2"))
    write(tmp_path / "3.yml", "kind: [")
    write(tmp_path / ".hidden.yaml", SERVICE)
    declared, unseen = objects.read(tmp_path)
    assert [str(address) for service in declared.services for address in service.addresses] == ["10.96.0.1"]
    (told,) = unseen
    assert told.where == f"file {tmp_path / '3.yml'}" and "no YAML" in told.reason


def test_a_proxy_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        admin.self_calls(tmp_path / "missing.sock")


@contextmanager
def answering(path: Path, answer: bytes | None) -> Iterator[None]:
    """Somebody who says so to the first who asks, or takes the question and says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def say() -> None:
            asked, _ = listener.accept()
            with asked:
                asked.recv(4096)
                asked.sendall(answer or b"")

        speaker = threading.Thread(target=say)
        if answer is not None:
            speaker.start()
        yield
        if answer is not None:
            speaker.join()


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_the_proxys_refusals_are_added_up(tmp_path: Path) -> None:
    page = (
        b'headgate_self_calls_total{direction="inbound"} 3.0\nheadgate_self_calls_total{direction="outbound"} 4\nx 9\n'
    )
    with answering(tmp_path / "proxy.sock", http(page)):
        assert admin.self_calls(tmp_path / "proxy.sock") == 7


POD = {"namespace": "a", "name": "b", "state": "proved", "addresses": ["10.0.0.1"], "netns": "/x", "netns_id": "4:7"}


def test_pods_of_the_agent_but_those_that_are_gone(tmp_path: Path) -> None:
    body = json.dumps({"pods": [POD, {**POD, "state": "gone"}, {**POD, "netns_id": "None"}], "problems": ["line 3"]})
    with answering(tmp_path / "admin.sock", http(body.encode())):
        places, unseen = admin.pods(tmp_path)
    assert [(place.where, str(place.path)) for place in places] == [("pod a/b", "/x")] * 2
    assert [place.expected for place in places] == [NetnsId(4, 7), None]
    assert [one.reason for one in unseen] == ["line 3"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(b"{}"), "of another version"),
        (http(b"\x1b[2J"), "of another version"),
        (b"SSH-2.0\r\n", "no HTTP"),
        (None, "timed out"),
    ],
)
def test_an_agent_that_says_nonsense_or_nothing_is_told_and_waited_for_a_second(
    tmp_path: Path, answer: bytes | None, says: str
) -> None:
    with answering(tmp_path / "admin.sock", answer):
        places, (told,) = admin.pods(tmp_path)
    assert places == () and says in told.reason and told.reason.isprintable()


def test_virtual_services_of_ipvs_are_counted(tmp_path: Path) -> None:
    text = (
        "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600001:01BB rr\n"
        "  -> 0A4D0002:1F90      Masq    1      0          0\nUDP  0A60000A:0035 rr\n"
    )
    assert ipvs.ipvs(write(tmp_path / "ip_vs", text)) == 2
    assert ipvs.ipvs(tmp_path / "missing") == 0
