"""The agent's Unix sockets: who may connect, and who may listen."""

import os
import socket
from pathlib import Path

import pytest

from agent.handoff.listening import SocketTaken, listen, peer_is_trusted
from tests.unit.agent_handoff.client import open_descriptors

KINDS = [socket.SOCK_SEQPACKET, socket.SOCK_STREAM]


@pytest.mark.parametrize("kind", KINDS)
def test_socket_file_has_mode_0600_whatever_the_umask(tmp_path: Path, kind: socket.SocketKind) -> None:
    before = os.umask(0)
    try:
        listening = listen(tmp_path / "s", kind)
    finally:
        os.umask(before)
    assert (tmp_path / "s").stat().st_mode & 0o7777 == 0o600
    listening.close()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_file_of_a_dead_agent_is_replaced(tmp_path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(tmp_path / "s"))
    listening = listen(tmp_path / "s", kind)
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(str(tmp_path / "s"))
    listening.close()


@pytest.mark.parametrize("living", KINDS)
def test_second_agent_is_refused_and_the_first_stays(tmp_path: Path, living: socket.SocketKind) -> None:
    before = open_descriptors()
    first = listen(tmp_path / "s", living)
    with pytest.raises(SocketTaken, match="listens there already"):
        listen(tmp_path / "s", socket.SOCK_SEQPACKET)
    with socket.socket(socket.AF_UNIX, living) as client:
        client.connect(str(tmp_path / "s"))
    first.close()
    assert open_descriptors() == before


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SocketTaken, match="no socket"):
        listen(tmp_path / "s", socket.SOCK_STREAM)
    assert (tmp_path / "s").read_text() == "precious"


def test_close_leaves_the_file_of_a_successor(tmp_path: Path) -> None:
    first = listen(tmp_path / "s", socket.SOCK_STREAM)
    (tmp_path / "s").rename(tmp_path / "old")
    second = listen(tmp_path / "s", socket.SOCK_STREAM)
    first.close()
    assert (tmp_path / "s").exists()
    second.close()


def test_missing_directory_is_an_os_error_and_leaks_nothing(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        listen(tmp_path / "none" / "s", socket.SOCK_STREAM)
    assert open_descriptors() == before


def test_peer_of_our_own_user_is_trusted() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_is_trusted(left)


def test_peer_of_another_user_is_not(tmp_path: Path) -> None:
    """A child that gave up root connects: the kernel noted its user at connect(2)."""
    listening = listen(tmp_path / "s", socket.SOCK_STREAM)
    tmp_path.chmod(0o755)
    (tmp_path / "s").chmod(0o666)  # somebody opened it up
    with socket.socket(socket.AF_UNIX) as client:
        os.chdir(tmp_path)  # the directories above belong to root alone
        os.seteuid(65534)
        try:
            client.connect("s")
        finally:
            os.seteuid(0)
            os.chdir("/")
        listening.socket.setblocking(True)
        accepted, _ = listening.socket.accept()
        with accepted:
            assert not peer_is_trusted(accepted)
    listening.close()
