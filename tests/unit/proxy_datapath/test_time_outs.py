"""Time-outs of client connections, with the clock of the test."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from proxy.datapath.client import ClientConnection
from proxy.datapath.forward_http import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, STALL_TIMEOUT_S, HttpConnection
from proxy.datapath.forward_tcp import IDLE_TIMEOUT_S as TCP_IDLE_TIMEOUT_S
from proxy.datapath.forward_tcp import relay
from proxy.datapath.linger import LINGER_S, linger
from proxy.datapath.pod import Pod
from proxy.datapath.stream import Stream
from proxy.model.address import SocketAddress
from tests.unit.proxy_datapath.doubles import Remembering, client_of, served_pod, turn

ORIGINAL = SocketAddress("10.96.0.1", 80)
BEGUN = b"GET / HTTP/1.1\r\nHost"


@pytest.fixture
def pod() -> Iterator[Pod]:
    with served_pod() as made:
        yield made


@pytest.fixture
def caller(pod: Pod) -> Iterator[tuple[ClientConnection, socket.socket]]:
    with client_of(pod, ORIGINAL) as made:
        yield made


Caller = tuple[ClientConnection, socket.socket]


def http(client: ClientConnection) -> HttpConnection:
    connection = HttpConnection(client, client.destination())
    client.serve(connection)
    return connection


def test_a_head_that_does_not_end_is_answered_408_after_its_time(caller: Caller) -> None:
    client, application = caller
    connection = http(client)
    connection.on_data(client.stream, BEGUN)
    connection.expire(1000.0)
    connection.expire(1000.0 + HEAD_TIMEOUT_S)
    application.setblocking(False)
    with pytest.raises(BlockingIOError):
        application.recv(1)
    connection.expire(1001.0 + HEAD_TIMEOUT_S)
    assert application.recv(12) == b"HTTP/1.1 408"


def test_dribbling_does_not_extend_the_time_for_a_head(caller: Caller) -> None:
    client, application = caller
    connection = http(client)
    for second in range(int(HEAD_TIMEOUT_S) + 2):
        connection.on_data(client.stream, BEGUN if second == 0 else b"x")
        connection.expire(1000.0 + second)
    assert application.recv(12) == b"HTTP/1.1 408"


def test_a_head_that_begins_after_a_long_rest_has_its_whole_time(caller: Caller) -> None:
    client, application = caller
    connection = http(client)
    connection.expire(1000.0)
    connection.expire(1040.0)
    connection.on_data(client.stream, BEGUN)
    connection.expire(1041.0)
    connection.expire(1041.0 + HEAD_TIMEOUT_S)
    application.setblocking(False)
    with pytest.raises(BlockingIOError):
        application.recv(1)
    connection.expire(1042.0 + HEAD_TIMEOUT_S)
    assert application.recv(12) == b"HTTP/1.1 408"


def test_an_idle_connection_is_closed_after_an_hour_without_a_word(caller: Caller, pod: Pod) -> None:
    client, application = caller
    connection = http(client)
    connection.expire(1000.0)
    connection.expire(1000.0 + IDLE_TIMEOUT_S)
    assert client in pod.connections
    connection.expire(1001.0 + IDLE_TIMEOUT_S)
    assert application.recv(1) == b""
    assert client not in pod.connections


def test_an_idle_relay_is_closed_after_an_hour_and_a_busy_one_is_not(caller: Caller, pod: Pod) -> None:
    client, application = caller
    ours, theirs = socket.socketpair()
    stream = Stream(pod.node.reactor, ours, Remembering())
    stream.start()
    relay(client, client.destination().opaque.at(0), stream, b"hello", b"")
    with theirs:
        client.expire(1000.0)
        client.expire(999.0 + TCP_IDLE_TIMEOUT_S)
        application.sendall(b"x")
        turn(pod.node.reactor)
        client.expire(1500.0 + TCP_IDLE_TIMEOUT_S)
        client.expire(1500.0 + 2 * TCP_IDLE_TIMEOUT_S)
        assert theirs.recv(6) == b"hellox"
        client.expire(1501.0 + 2 * TCP_IDLE_TIMEOUT_S)
        assert (application.recv(1), theirs.recv(1)) == (b"", b"")


def test_a_refused_client_that_goes_on_sending_is_cut_off_after_the_linger(caller: Caller, pod: Pod) -> None:
    client, application = caller
    client.stream.send(b"refused")
    linger(client, drained=False)
    assert application.recv(7) == b"refused"
    assert application.recv(1) == b"", "the end comes at once, the close later"
    for second in range(int(LINGER_S) + 1):
        application.sendall(b"x")
        turn(pod.node.reactor)
        client.expire(1000.0 + second)
    assert client in pod.connections
    client.expire(1000.5 + LINGER_S)
    assert client not in pod.connections


# ── Bodies that stall ───────────────────────────────────────────────────────────────────────────────────────────────


class Stalling:
    """A client amid an exchange with a server, whose ends the test plays; time is told to the tick."""

    def __init__(self, client: ClientConnection, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self._now_s = 1000.0

    def passes(self, seconds: float) -> None:
        """A tick before and one after."""
        self.client.expire(self._now_s)
        self._now_s += seconds
        self.client.expire(self._now_s)

    def answers(self, data: bytes) -> None:
        self.server.sendall(data)
        turn(self.client.node.reactor)


@pytest.fixture
def stalling(caller: Caller) -> Iterator[Callable[[bytes], Stalling]]:
    """Begins an exchange with a request, the upstream being a connection that a former one left."""
    client, _ = caller
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)

    def begin(request: bytes) -> Stalling:
        connection = http(client)
        stream = Stream(client.node.reactor, ours, Remembering())
        stream.start()
        client.destination().opaque.at(0).give_back(stream, 1000.0)
        connection.on_data(client.stream, request)
        assert theirs.recv(1 << 16)
        return Stalling(client, theirs)

    yield begin
    ours.close()
    theirs.close()


Begin = Callable[[bytes], Stalling]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HALF_A_PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"


def test_a_request_whose_body_stops_coming_is_answered_408_and_its_server_is_told(
    caller: Caller, stalling: Begin
) -> None:
    exchange = stalling(HALF_A_PUT)
    exchange.passes(STALL_TIMEOUT_S)
    exchange.passes(2.0)
    answer = caller[1].recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 408") and b"headgate-error: SI" in answer
    assert exchange.server.recv(1) == b""


def test_a_body_that_dribbles_goes_on(caller: Caller, stalling: Begin) -> None:
    exchange = stalling(HALF_A_PUT)
    for _ in range(3):
        exchange.passes(STALL_TIMEOUT_S - 1)
        caller[1].sendall(b"x")
        turn(exchange.client.node.reactor)
    assert exchange.server.recv(3) == b"xxx"
    assert exchange.client.stream.fd >= 0


def test_an_answer_that_stops_before_its_length_ends_the_connection(caller: Caller, stalling: Begin) -> None:
    exchange = stalling(GET)
    exchange.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    exchange.passes(STALL_TIMEOUT_S)
    assert exchange.client.stream.fd >= 0
    exchange.passes(2.0)
    assert exchange.client.stream.fd < 0


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"])
def test_a_server_that_thinks_or_streams_events_may_be_silent(caller: Caller, stalling: Begin, answer: bytes) -> None:
    exchange = stalling(GET)
    if answer:
        exchange.answers(answer)
    for _ in range(4):
        exchange.passes(STALL_TIMEOUT_S - 1)
    assert exchange.client.stream.fd >= 0


def test_a_client_that_reads_no_more_of_its_answer_is_cut_off_and_one_that_reads_slowly_is_not(
    caller: Caller, stalling: Begin
) -> None:
    exchange = stalling(GET)
    exchange.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n")
    exchange.server.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            exchange.server.send(bytes(1 << 16))
            turn(exchange.client.node.reactor)
    for _ in range(3):
        exchange.passes(STALL_TIMEOUT_S - 1)
        assert caller[1].recv(1 << 16)
        turn(exchange.client.node.reactor)
    assert exchange.client.stream.fd >= 0, "what the client's kernel took is progress too"
    exchange.passes(STALL_TIMEOUT_S + 1)
    exchange.passes(0.0)
    assert exchange.client.stream.fd < 0
