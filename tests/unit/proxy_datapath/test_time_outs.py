"""Time-outs of client connections, with the clock of the test."""

import socket
from collections.abc import Iterator

import pytest

from proxy.datapath.client import ClientConnection
from proxy.datapath.forward_http import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, HttpConnection
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
    relay(client, client.destination().opaque.upstreams[0], stream, b"hello", b"")
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
