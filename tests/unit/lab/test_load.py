"""The keep-alive load, against servers of this process that answer well and badly."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.lab.errors import LabError
from agent.lab.load import Load, target

BODY = b'{"pod":"web-v1","client":"127.0.0.1"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@contextmanager
def server(answer: Callable[[socket.socket, int], bool]) -> Iterator[str]:
    """Serves each connection on a thread: `answer(connection, nth request)` returns whether to go on."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            nth = 0
            while request := lines.readline():
                while lines.readline() not in (b"\r\n", b""):
                    pass
                assert request.startswith(b"GET ")
                if not answer(connection, nth):
                    return
                nth += 1

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


def run(url: str, *, requests: int = 40, connections: int = 4) -> dict[str, Any]:
    result = Load([target(url)], connections=connections, requests=requests, seconds=20).run(lambda event: None)
    json.dumps(result)
    return dict(result["all"])


def well(connection: socket.socket, nth: int) -> bool:
    connection.sendall(OK)
    return True


def test_exactly_the_requests_asked_for_are_sent_and_answered() -> None:
    with server(well) as url:
        found = run(url, requests=41)
    assert (found["sent"], found["ok"], found["failed"]) == (41, 41, 0)
    assert found["pods"] == {"web-v1": 41}
    assert found["clients"] == {"127.0.0.1": 41}
    assert sum(found["buckets"]) == 41
    assert 0 < found["latency_ns"]["p50"] <= found["latency_ns"]["p99"]


def test_an_answer_in_single_bytes_is_one_answer() -> None:
    def slowly(connection: socket.socket, nth: int) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in OK:
            connection.sendall(bytes([byte]))
        return True

    with server(slowly) as url:
        found = run(url, requests=4, connections=2)
    assert (found["ok"], found["failed"]) == (4, 0)


def test_a_server_that_says_close_is_obeyed_and_not_a_failure() -> None:
    def closing(connection: socket.socket, nth: int) -> bool:
        connection.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return False

    with server(closing) as url:
        found = run(url)
    assert (found["ok"], found["failed"]) == (40, 0)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "status 503"),
        (b"", "closed unanswered"),
        (OK[:-3], "closed in the middle of an answer"),
        (OK + b"x", "bytes after the answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "answer without a status line or without Content-Length"),
        (b"SSH-2.0-x\r\n\r\n", "answer without a status line or without Content-Length"),
    ],
)
def test_what_is_no_good_answer_fails_with_its_reason(sent: bytes, reason: str) -> None:
    def badly(connection: socket.socket, nth: int) -> bool:
        connection.sendall(sent)
        return b" 503 " in sent

    with server(badly) as url:
        found = run(url, requests=6)
    assert (found["sent"], found["ok"], found["reasons"]) == (6, 0, {reason: 6})


def test_a_port_where_nobody_listens_fails_each_request_and_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    found = run(url, requests=10)
    assert found["reasons"] == {"connect: Connection refused": 10}


def test_a_phase_begins_only_when_nothing_of_an_earlier_one_is_in_flight() -> None:
    """The first answers are held back until `second` was asked for: its begin must come after them."""
    read, write = socket.socketpair()
    order: list[str] = []
    held = threading.Event()

    def holding(connection: socket.socket, nth: int) -> bool:
        if nth == 0:
            write.sendall(b"phase second\n")
            assert held.wait(10)
            order.append("answered")
        return well(connection, nth)

    def emit(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            held.set()
        if event["event"] == "phase":
            order.append(event["name"])
            write.sendall(b"stop\n")

    with read, write, server(holding) as url:
        load = Load([target(url)], connections=1, requests=10**6, seconds=20, first_phase="first")
        result = load.run(emit, read.fileno())
    assert order == ["answered", "second"]
    assert result["phases"]["first"]["ok"] == 1
    assert result["phases"]["second"]["ok"] == result["all"]["ok"] - 1 > 0
    assert result["all"]["failed"] == 0


def test_the_end_of_standard_input_ends_the_load() -> None:
    read, write = socket.socketpair()
    with read, server(well) as url:
        write.close()
        found = Load([target(url)], connections=2, requests=10**6, seconds=20).run(lambda event: None, read.fileno())
    assert found["all"]["failed"] == 0


@pytest.mark.parametrize(
    "url",
    ["http://web/", "https://10.0.0.1/", "10.0.0.1", "http://10.0.0.1:99999/", "http://10.0.0.1/ä", "http://[::1"],
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(LabError):
        target(url)


def test_a_target_asks_for_path_and_query_and_names_the_host() -> None:
    made = target("http://[fd96::10]:81/a?b=c")
    assert made.address == ("fd96::10", 81)
    assert made.request.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: [fd96::10]:81\r\n")
