"""Who holds a listening socket: told to a person, so made printable."""

import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.kernel import socket_owners
from agent.kernel.sock_diag import Listener
from agent.kernel.socket_owners import SocketOwner, owner_of

LISTENER = Listener(IPv4Address("0.0.0.0"), 15001, 77, uid=1000)


def process(proc: Path, pid: int, command: bytes, *links: str) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "comm").write_bytes(command + b"\n")
    for number, link in enumerate(links):
        (proc / str(pid) / "fd" / str(number)).symlink_to(link)


def test_lowest_pid_that_holds_the_socket_is_named(tmp_path: Path) -> None:
    process(tmp_path, 30, b"worker", "socket:[77]")
    process(tmp_path, 4, b"master", "/dev/null", "pipe:[77]", "socket:[77]")
    process(tmp_path, 5, b"other", "socket:[777]", "socket:[7]")
    (tmp_path / "self").mkdir()
    assert owner_of(LISTENER, tmp_path) == SocketOwner(4, "master")


def test_nobody_visible_is_none(tmp_path: Path) -> None:
    process(tmp_path, 4, b"other", "socket:[1]")
    (tmp_path / "9").mkdir()  # ended meanwhile: no fd directory any more
    assert owner_of(LISTENER, tmp_path) is None


def test_command_that_a_process_gave_itself_is_made_printable(tmp_path: Path) -> None:
    process(tmp_path, 4, b"\x1b]0;evil\x07\nx\xff", "socket:[77]")
    assert owner_of(LISTENER, tmp_path) == SocketOwner(4, "\\x1b]0;evil\\x07\\nx\ufffd")


def test_of_a_user_whose_descriptors_cannot_be_listed_who_runs_here_under_one_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, root without CAP_DAC_READ_SEARCH."""
    for pid in (30, 31):
        process(tmp_path, pid, b"nginx")
        (tmp_path / str(pid) / "ns").mkdir()
        (tmp_path / str(pid) / "ns/net").symlink_to("/proc/thread-self/ns/net")
        os.chown(tmp_path / str(pid), 1000, -1)
    process(tmp_path, 7, b"elsewhere")
    (tmp_path / "7/ns").mkdir()
    (tmp_path / "7/ns/net").write_bytes(b"")

    def refused(directory: str) -> set[int]:
        raise PermissionError(directory)

    monkeypatch.setattr(socket_owners, "_sockets_of", refused)
    assert owner_of(LISTENER, tmp_path) == SocketOwner(30, "nginx")
    (tmp_path / "31/comm").write_bytes(b"sidecar\n")
    assert owner_of(LISTENER, tmp_path) is None  # one of the two, and nobody can tell which
