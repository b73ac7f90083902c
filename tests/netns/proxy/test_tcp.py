"""Bytes that are not HTTP/1: which connections are relayed unread, and how their ends are told."""

import pytest

from proxy.model.routing import Protocol
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import Wire, get

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
SMUGGLING = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"


def joined(mesh: Mesh, protocol: Protocol = Protocol.TCP) -> tuple[Wire, Wire]:
    """Client and server with a relay between them through which a byte has passed each way."""
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], protocol))
    client.send(b"?")
    upstream = server.accept()
    assert upstream.read(1) == b"?"
    upstream.send(b"!")
    assert client.read(1) == b"!"
    return client, upstream


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.TLS, Protocol.HTTP2, Protocol.GRPC])
def test_a_port_declared_as_anything_but_http_1_is_relayed_unread(mesh: Mesh, protocol: Protocol) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], protocol))
    client.send(SMUGGLING)
    upstream = server.accept()
    assert upstream.read(len(SMUGGLING)) == SMUGGLING


@pytest.mark.parametrize("port", [25, 587, 3306, 4444, 5432, 6379, 9300, 11211])
def test_a_default_opaque_port_is_connected_before_the_client_speaks(mesh: Mesh, port: int) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED, port=port))
    upstream = server.accept()
    upstream.send(b"220 welcome\r\n")
    assert client.read(13) == b"220 welcome\r\n"
    client.send(SMUGGLING)
    assert upstream.read(len(SMUGGLING)) == SMUGGLING


@pytest.mark.parametrize("first", [PREFACE, CLIENT_HELLO], ids=["http2", "tls"])
@pytest.mark.parametrize("size", [100, 1], ids=["whole", "in single bytes"])
def test_http2_prior_knowledge_and_tls_pass_as_tcp_where_nothing_is_declared(
    mesh: Mesh, first: bytes, size: int
) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    client.send(*(first[i : i + size] for i in range(0, len(first), size)))
    upstream = server.accept()
    assert upstream.read(len(first)) == first
    upstream.send(b"\x00\x00\x00\x04\x00")
    assert client.read(5) == b"\x00\x00\x00\x04\x00"


def test_http2_prior_knowledge_passes_as_tcp_where_http_is_declared(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.HTTP))
    client.send(PREFACE)
    upstream = server.accept()
    assert upstream.read(len(PREFACE)) == PREFACE


# ── Ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clients_half_close_leaves_the_answer_its_way(mesh: Mesh) -> None:
    client, upstream = joined(mesh)
    client.send(b"question")
    client.end()
    assert upstream.rest() == b"question"
    upstream.send(b"answer")
    upstream.end()
    assert client.rest() == b"answer"


def test_a_servers_half_close_leaves_the_clients_words_their_way(mesh: Mesh) -> None:
    client, upstream = joined(mesh)
    upstream.send(b"greeting")
    upstream.end()
    assert client.rest() == b"greeting"
    client.send(b"last words")
    client.end()
    assert upstream.rest() == b"last words"


@pytest.mark.parametrize("ender", ["client", "server"])
def test_bytes_under_way_survive_that_both_sides_have_ended(mesh: Mesh, ender: str) -> None:
    """The kernel reports such a connection as hung up while it holds bytes that nobody has read yet."""
    client, upstream = joined(mesh)
    reader, writer = (client, upstream) if ender == "client" else (upstream, client)
    reader.end()
    assert writer.rest() == b""
    chunk = b"x" * 65536
    sent = writer.fill(chunk, 64 << 20)
    assert sent < 64 << 20, "the reader does not read, so the writer must stall"
    writer.end()
    assert len(reader.rest()) == sent


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_of_one_side_resets_the_other(mesh: Mesh, who: str) -> None:
    client, upstream = joined(mesh)
    mesh.telemetry()
    breaker, other = (client, upstream) if who == "client" else (upstream, client)
    breaker.reset()
    assert other.is_reset()
    (counted,) = mesh.telemetry().connections
    assert counted.closed == 1


def test_a_client_that_comes_and_goes_without_a_word_is_forgotten_at_both_ends(mesh: Mesh) -> None:
    """As health checks do. Everything happens before the worker looks, so the client's end finds the server's
    connection not yet made."""
    server = mesh.listen()
    service = mesh.service([server], Protocol.TCP)
    before = mesh.open_files()
    mesh.pause_worker()
    for _ in range(10):
        mesh.connect(service).close()
    mesh.resume_worker()
    for _ in range(10):
        upstream = server.accept()
        assert upstream.rest() == b""
        upstream.close()
    mesh.until(lambda: mesh.open_files() <= before, "the worker to close both ends")


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UNDECLARED])
def test_a_refused_server_resets_the_silent_client(mesh: Mesh, protocol: Protocol) -> None:
    """Undeclared: the client waits for a greeting, and learns of the refusal long before detection ends."""
    service = mesh.service([mesh.closed_port()], protocol)
    mesh.telemetry()
    assert mesh.resets(service)
    counters = {(key.name, key.label_values): count for key, count in mesh.telemetry().counters}
    assert counters["headgate_tcp_refused", ("UF",)] == 1


def test_no_endpoint_resets_the_client(mesh: Mesh) -> None:
    service = mesh.service([], Protocol.TCP)
    mesh.telemetry()
    assert mesh.resets(service)
    counters = {(key.name, key.label_values): count for key, count in mesh.telemetry().counters}
    assert counters["headgate_tcp_refused", ("UH",)] == 1


def test_a_connection_is_counted_with_its_bytes_as_the_caller_sees_them(mesh: Mesh) -> None:
    mesh.telemetry()
    client, upstream = joined(mesh)
    client.send(b"12345")
    assert upstream.read(5) == b"12345"
    client.end()
    upstream.rest()
    upstream.end()
    client.rest()
    (counted,) = mesh.telemetry().connections
    assert (counted.opened, counted.closed) == (1, 1)
    assert (counted.received_bytes, counted.sent_bytes) == (6, 1)
    assert (counted.labels.source_workload, counted.labels.destination_workload) == ("client", "server")
    assert (counted.labels.request_protocol, counted.labels.response_code) == ("tcp", "0")


# ── Undeclared: who speaks first ────────────────────────────────────────────────────────────────────────────────────


def outcomes(mesh: Mesh) -> dict[str, int]:
    """Of protocol detection, since the last call."""
    counters = mesh.telemetry().counters
    return {key.label_values[0]: count for key, count in counters if key.name == "headgate_detection"}


def test_a_server_that_speaks_first_is_heard_after_the_clients_silence(mesh: Mesh) -> None:
    server = mesh.listen()
    outcomes(mesh)
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    upstream = server.accept()
    upstream.send(b"220 ready\r\n")
    assert client.read(11) == b"220 ready\r\n"
    client.send(get())
    assert upstream.head() == get(), "decided: from now on nothing is looked at"
    assert outcomes(mesh) == {"server_first": 1}


def test_a_client_that_speaks_http_after_a_silence_is_served_as_http(mesh: Mesh) -> None:
    server = mesh.listen()
    outcomes(mesh)
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    waiting = server.accept()
    client.send(get(b"/", b"Connection: close"))
    try:
        assert waiting.head() == get(), "the head was parsed"
    except EOFError:  # the worker had not seen yet that this connection was made
        assert server.accept().head() == get()
    assert outcomes(mesh) == {"http": 1}


def test_a_request_line_in_pieces_is_waited_for(mesh: Mesh) -> None:
    server = mesh.listen()
    outcomes(mesh)
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    client.send(b"GE", b"T / HT", b"TP/1.1\r", b"\nHost: web\r\nConnection: close\r\n\r\n")
    assert server.accept().head() == get()
    assert outcomes(mesh) == {"http": 1}


def test_a_client_that_speaks_something_else_is_relayed_with_every_byte(mesh: Mesh) -> None:
    server = mesh.listen()
    outcomes(mesh)
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    client.send(b"*1\r\n", b"$4\r\nPING\r\n")
    upstream = server.accept()
    assert upstream.read(14) == b"*1\r\n$4\r\nPING\r\n"
    upstream.send(b"+PONG\r\n")
    assert client.read(7) == b"+PONG\r\n"
    assert outcomes(mesh) == {"tcp": 1}


def test_a_client_that_ends_after_few_bytes_is_answered_still(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    client.send(b"GET")  # it could have become HTTP
    client.end()
    upstream = server.accept()
    assert upstream.rest() == b"GET"
    upstream.send(b"so what")
    upstream.end()
    assert client.rest() == b"so what"


def test_when_nobody_speaks_for_five_seconds_it_is_tcp(mesh: Mesh) -> None:
    server = mesh.listen()
    outcomes(mesh)
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    upstream = server.accept()
    mesh.until(lambda: outcomes(mesh) == {"timeout": 1}, "the end of patience", 7)
    client.send(SMUGGLING)
    assert upstream.read(len(SMUGGLING)) == SMUGGLING


def test_a_silent_server_that_closes_closes_the_client(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    server.accept().close()
    assert client.rest() == b""
