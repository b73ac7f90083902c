"""Requests that must not pass (reference/proxy.md C): answered, closed, and nothing of them reaches a server."""

import pytest

from proxy.http1.grammar import MAX_FIELDS, MAX_HEAD_BYTES
from tests.netns.proxy.described import PATIENT_RETRY
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import get, ok

START = b"POST / HTTP/1.1\r\nHost: web\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"

BAD_HEADS = {
    "CL+TE": (400, START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "TE+CL": (400, START + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    "two different CL": (400, START + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"),
    "two equal CL": (400, START + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "CL list": (400, START + b"Content-Length: 5, 5\r\n\r\nhello"),
    "CL with sign": (400, START + b"Content-Length: +5\r\n\r\nhello"),
    "CL hexadecimal": (400, START + b"Content-Length: 0x5\r\n\r\nhello"),
    "TE gzip": (501, START + b"Transfer-Encoding: gzip\r\n\r\n"),
    "TE chunked twice": (501, START + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "TE identity": (501, START + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
    "TE after vertical tab": (400, START + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
    "TE in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "space before colon": (400, START + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    "obs-fold": (400, START + b"X-A: b\r\n folded\r\n\r\n"),
    "obs-fold of TE": (400, START + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "NUL in a value": (400, START + b"X-A: a\x00b\r\n\r\n"),
    "CR in a value": (400, START + b"X-A: a\rX-B: b\r\n\r\n"),
    "LF in a value": (400, START + b"X-A: a\nX-B: b\r\n\r\n"),
    "bare LF everywhere": (400, b"GET / HTTP/1.1\nHost: web\n\n"),
    "bare LF at the end": (400, b"GET / HTTP/1.1\r\nHost: web\n\r\n"),
    "CR alone before the line": (400, b"\rXGET / HTTP/1.1\r\nHost: web\r\n\r\n"),
    "CR alone after an empty line": (400, b"\r\n\rGET / HTTP/1.1\r\nHost: web\r\n\r\n"),
    "TLS where HTTP is declared": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "no Host": (400, b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n"),
    "two Hosts": (400, b"GET / HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n"),
    "Connection nominates Host": (400, b"GET / HTTP/1.1\r\nHost: web\r\nConnection: host\r\n\r\n"),
    "Connection nominates CL": (400, START + b"Content-Length: 5\r\nConnection: content-length\r\n\r\nhello"),
    "CONNECT to a path": (400, b"CONNECT /admin HTTP/1.1\r\nHost: web\r\n\r\n"),
    "CONNECT with a body": (400, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\nx"),
    "target of another scheme": (400, b"GET ftp://web/ HTTP/1.1\r\nHost: web\r\n\r\n"),
    "HTTP/1.2": (400, b"GET / HTTP/1.2\r\nHost: web\r\n\r\n"),
    "101 fields": (431, b"GET / HTTP/1.1\r\nHost: web\r\n" + b"X: y\r\n" * MAX_FIELDS + b"\r\n"),
    "oversized head": (431, b"GET / HTTP/1.1\r\nHost: web\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n"),
    "head without end": (431, b"GET / HTTP/1.1\r\nHost: web\r\nX: " + b"y" * (MAX_HEAD_BYTES + 5000)),
    "first chunk size 0x5": (400, CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    "first chunk size 5_0": (400, CHUNKED + b"5_0\r\nhello\r\n0\r\n\r\n"),
    "first chunk size +5": (400, CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n"),
    "first chunk size after a space": (400, CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n"),
    "first chunk size with bare LF": (400, CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("case", BAD_HEADS)
def test_a_bad_request_is_answered_closed_and_not_passed_on(mesh: Mesh, case: str) -> None:
    status, request = BAD_HEADS[case]
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(request + SMUGGLED)
    assert client.refused() == (status, "DPE")
    assert mesh.next_is(server, service)


def test_the_same_head_is_refused_whether_it_comes_at_once_or_in_pieces(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    for byte in BAD_HEADS["bare LF at the end"][1]:
        client.send(bytes([byte]))
    assert client.refused() == (400, "DPE")
    assert mesh.next_is(server, service)


@pytest.mark.parametrize(
    "unsound",
    [
        *(b"0x5\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n", b"+5\r\nhello\r\n", b" 5\r\nhello\r\n", b"5\nhello\r\n"),
        *(b"\r\n", b"0\r\n\n", b"0\r\nX: a\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"11111111111111111\r\n"),
    ],
)
def test_a_chunked_body_that_turns_unsound_never_reaches_the_server_whole(mesh: Mesh, unsound: bytes) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(CHUNKED + b"3\r\nabc\r\n")
    upstream = server.accept()
    assert upstream.read(len(CHUNKED) + 8) == CHUNKED + b"3\r\nabc\r\n"
    client.send(unsound + SMUGGLED)
    assert client.refused() == (400, "DPE")
    assert upstream.is_reset()
    assert mesh.next_is(server, service)


def test_a_body_that_turns_unsound_between_two_tries_is_refused_and_not_tried_again(mesh: Mesh) -> None:
    service = mesh.service([mesh.closed_port()], retry=PATIENT_RETRY)
    clients = [mesh.connect(service) for _ in range(5)]
    for client in clients:
        client.send(CHUNKED + b"3\r\nabc\r\n")
    mesh.turn()
    for client in clients:
        client.send(b"zz\r\n")
        assert client.refused() == (400, "DPE")
    # Whoever tried on would be told "refused" twice more within the two pauses, and have nobody to tell.
    mesh.watch(0.7)
    assert mesh.counted_requests() == len(clients)


def test_a_request_after_a_refused_one_is_not_served(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(get(b"/good") + BAD_HEADS["CL+TE"][1] + SMUGGLED)
    upstream = server.accept()
    assert upstream.head() == get(b"/good")
    upstream.send(ok(b"good"))
    assert client.answer()[2] == b"good"
    assert client.refused() == (400, "DPE")
    assert upstream.is_silent()


def test_empty_lines_between_requests_are_ignored_however_many(mesh: Mesh) -> None:
    """RFC 9112 section 2.2. Without endpoints each request is answered at once, in the same turn of the loop."""
    client = mesh.connect(mesh.service([]))
    client.send((b"\r\n" + get()) * 1500)
    for _ in range(1500):
        assert client.answer()[0] == 503


def test_an_answer_to_a_refused_request_arrives_though_the_client_goes_on_sending(mesh: Mesh) -> None:
    """Closing with unread bytes would reset the connection and take the answer away (RFC 9112 section 9.6)."""
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(BAD_HEADS["CL+TE"][1])
    for _ in range(200):
        client.send(b"x" * 1000)
    assert client.refused() == (400, "DPE")


def test_a_refusal_is_counted_with_its_status_and_flag(mesh: Mesh) -> None:
    client = mesh.connect(mesh.service([mesh.listen()]))
    mesh.telemetry()
    client.send(BAD_HEADS["CL+TE"][1])
    client.refused()
    (counted,) = mesh.telemetry().requests
    assert (counted.labels.response_code, counted.labels.response_flags) == ("400", "DPE")
    assert counted.labels.source_workload == "client"
    assert sum(counted.durations) == 1
