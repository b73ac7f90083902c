"""One walk over the processes finds the owners of all sockets; what is not ours to read is counted."""

from pathlib import Path

import pytest

from agent.kernel import socket_owners
from agent.kernel.socket_owners import owners_of


def process(proc: Path, pid: int, command: bytes, *links: str) -> Path:
    directory = proc / str(pid)
    (directory / "fd").mkdir(parents=True)
    (directory / "comm").write_bytes(command + b"\n")
    for number, link in enumerate(links):
        (directory / "fd" / str(number)).symlink_to(link)
    return directory


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    process(tmp_path, 9, b"nginx", "socket:[1]", "/dev/null", "socket:[2]")
    process(tmp_path, 10, b"nginx-child", "socket:[1]", "socket:[3]", "pipe:[4]")
    (tmp_path / "self").mkdir()
    return tmp_path


def test_each_socket_has_the_process_with_the_lowest_pid(proc: Path) -> None:
    found = owners_of({1, 2, 3, 4}, proc)
    assert {inode: owner.pid for inode, owner in found.by_inode.items()} == {1: 9, 2: 9, 3: 10}
    assert found.refused == 0


def test_a_socket_without_a_descriptor_is_nobodys(proc: Path) -> None:
    process(proc, 1, b"odd", "socket:[0]")
    assert owners_of({0}, proc).by_inode == {}


def test_a_hostile_name_is_printable(proc: Path) -> None:
    process(proc, 11, b"\x1b[2J\nx\xff" + b"y" * 100, "socket:[5]")
    command = owners_of({5}, proc).by_inode[5].command
    assert command.isprintable() and command.startswith("\\x1b[2J\\nx") and len(command) <= 64


def test_what_may_not_be_read_is_counted_and_the_rest_found(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket_owners._sockets_of

    def refusing(directory: str) -> set[int]:
        if directory.endswith("/9/fd"):
            raise PermissionError(13, "Permission denied")
        return real(directory)

    monkeypatch.setattr(socket_owners, "_sockets_of", refusing)
    found = owners_of({1, 2, 3}, proc)
    assert found.refused == 1 and found.by_inode.keys() == {1, 3}


def test_the_walk_ends_when_all_are_found(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = socket_owners._sockets_of
    monkeypatch.setattr(socket_owners, "_sockets_of", lambda directory: looked.append(directory) or real(directory))
    owners_of({1, 2}, proc)
    assert [Path(directory).parent.name for directory in looked] == ["9"]


def test_where_proc_cannot_be_read_nothing_is_known(tmp_path: Path) -> None:
    found = owners_of({1}, tmp_path / "none")
    assert (found.refused, found.privileged) == (1, False)


@pytest.mark.parametrize(("effective", "privileged"), [("000001ffffffffff", True), ("0000000000001000", False)])
def test_whether_the_capability_is_missing(proc: Path, effective: str, privileged: bool) -> None:
    (proc / "self" / "status").write_text(f"Name:\tx\nCapEff:\t{effective}\n")
    assert owners_of({99}, proc).privileged is privileged
