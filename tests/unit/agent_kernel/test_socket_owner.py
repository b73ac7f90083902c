"""Who holds a listening socket: told to a person, so made printable."""

from pathlib import Path

from agent.kernel.sock_diag import SocketOwner, owner_of


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
    assert owner_of(77, tmp_path) == SocketOwner(4, "master")


def test_nobody_visible_is_none(tmp_path: Path) -> None:
    process(tmp_path, 4, b"other", "socket:[1]")
    (tmp_path / "9").mkdir()  # ended meanwhile: no fd directory any more
    assert owner_of(77, tmp_path) is None


def test_command_that_a_process_gave_itself_is_made_printable(tmp_path: Path) -> None:
    process(tmp_path, 4, b"\x1b]0;evil\x07\nx\xff", "socket:[77]")
    assert owner_of(77, tmp_path) == SocketOwner(4, "\\x1b]0;evil\\x07\\nx\ufffd")
