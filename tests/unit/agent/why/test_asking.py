"""A socket that is asked answers, or is silent in one of four ways."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.why.asking import Answer, ask
from agent.why.facts import NoAnswer, Silence


@contextmanager
def listening(path: Path, says: Callable[[socket.socket], None]) -> Iterator[None]:
    """One connection is taken, and `says` speaks on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1 << 16)
                says(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def answer(status: str, body: str) -> Callable[[socket.socket], None]:
    text = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    return lambda connection: connection.sendall(text.encode())


def silence(path: Path, timeout_s: float = 5.0) -> NoAnswer:
    found = ask(path, "/pods", timeout_s=timeout_s)
    assert isinstance(found, NoAnswer)
    return found


def test_answer_has_its_status_and_body(tmp_path: Path) -> None:
    with listening(tmp_path / "s", answer("200 OK", json.dumps({"a": [1]}))):
        assert ask(tmp_path / "s", "/why/a/b") == Answer(200, {"a": [1]})


def test_refusal_is_an_answer_too(tmp_path: Path) -> None:
    with listening(tmp_path / "s", answer("409 Conflict", json.dumps({"error": "no"}))):
        assert ask(tmp_path / "s", "/x", method="POST") == Answer(409, {"error": "no"})


def test_no_file_is_nobody(tmp_path: Path) -> None:
    found = silence(tmp_path / "s")
    assert (found.silence, found.detail) == (Silence.ABSENT, "")


def test_file_of_a_dead_process_is_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "s"))
        dead.listen()
    found = silence(tmp_path / "s")
    assert (found.silence, found.detail) == (Silence.ABSENT, "the file is there, and who made it has ended")


def test_path_that_no_socket_can_have_is_nobody(tmp_path: Path) -> None:
    assert silence(tmp_path / ("x" * 200)).silence is Silence.ABSENT


def test_who_listens_and_says_nothing_is_named_by_pid(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        found = silence(tmp_path / "s", timeout_s=0.05)
    assert (found.silence, found.pid, found.detail) == (Silence.MUTE, os.getpid(), "no answer within 0.05 s")
    assert found.pid_state in ("R", "S")


def test_who_accepts_no_connection_any_more_is_mute(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
            first.connect(str(tmp_path / "s"))
            found = silence(tmp_path / "s", timeout_s=0.05)
    assert (found.silence, found.detail) == (Silence.MUTE, "it accepts no connection")


@pytest.mark.parametrize(
    "says",
    [
        answer("200 OK", "<html>"),
        lambda connection: connection.sendall(b"SSH-2.0-x\r\n"),
        answer("200 OK", "\udcff\x1b[2J".encode("utf-8", "surrogateescape").decode("latin-1")),
    ],
    ids=["html", "another protocol", "no text"],
)
def test_what_is_no_json_is_strange(tmp_path: Path, says: Callable[[socket.socket], None]) -> None:
    with listening(tmp_path / "s", says):
        assert silence(tmp_path / "s").silence is Silence.STRANGE


def test_who_ends_while_asked_is_nobody_or_strange_and_never_an_exception(tmp_path: Path) -> None:
    with listening(tmp_path / "s", lambda connection: None):
        assert silence(tmp_path / "s").silence in (Silence.ABSENT, Silence.STRANGE)
