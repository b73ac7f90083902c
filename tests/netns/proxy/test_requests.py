"""Requests that are as they should be: what the server receives, what the client gets."""

import pytest

from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import flag_of, get, ok, post


def test_a_request_and_its_answer_pass_byte_for_byte(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    request = get(b"/a?b=c", b"x-MiXed: 1", b"X-Twice: a", b"X-Twice: b", b"accept:*/*")
    client.send(request)
    upstream = server.accept()
    assert upstream.read(len(request)) == request
    response = ok(b"hello", b"SERVER: x", b"x-Lower: Y", b"Set-Cookie: a", b"set-cookie: b")
    upstream.send(response)
    assert client.read(len(response)) == response


def test_both_connections_are_kept_alive(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get(b"/0"))
    upstream = server.accept()
    for number in range(3):
        assert upstream.head().startswith(b"GET /%d " % number)
        upstream.send(ok(b"%d" % number))
        assert client.answer()[2] == b"%d" % number
        client.send(get(b"/%d" % (number + 1)))
    assert not server.has_caller()


def test_an_idle_connection_serves_another_client_of_the_pod(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    for number in range(2):
        client = mesh.connect(service)
        client.send(get())
        upstream = server.accept() if number == 0 else server.accepted[0]
        upstream.head()
        upstream.send(ok())
        assert client.answer()[0] == 200
        client.close()
    assert not server.has_caller()


def test_a_request_in_single_bytes_is_one_request(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    request = post(b"body")
    client.send(*(request[i : i + 1] for i in range(len(request))))
    upstream = server.accept()
    assert upstream.read(len(request)) == request
    response = ok(b"answer")
    upstream.send(*(response[i : i + 1] for i in range(len(response))))
    assert client.read(len(response)) == response


def test_connection_close_of_the_client_ends_its_connection_and_keeps_the_servers(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(get(b"/", b"Connection: close"))
    upstream = server.accept()
    assert upstream.head() == get()
    upstream.send(ok(b"bye"))
    assert client.rest() == ok(b"", b"Connection: close").replace(b"Length: 0", b"Length: 3") + b"bye"
    again = mesh.connect(service)
    again.send(get(b"/again"))
    assert upstream.head() == get(b"/again")


def test_connection_close_of_the_server_is_not_the_clients_business(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    for _ in range(2):
        client.send(get())
        upstream = server.accept()
        upstream.head()
        upstream.send(ok(b"ok", b"Connection: close"))
        upstream.close()
        assert client.answer() == (200, ok(b"ok")[:-2], b"ok")


def test_hop_by_hop_fields_stay_behind_both_ways(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get(b"/", b"Connection: keep-alive, X-Mine", b"X-Mine: 1", b"Keep-Alive: timeout=9", b"X-Other: 2"))
    upstream = server.accept()
    assert upstream.head() == get(b"/", b"X-Other: 2")
    upstream.send(ok(b"ok", b"Connection: X-Theirs", b"x-theirs: 3", b"Upgrade: h2,h2c", b"Keep-Alive: timeout=5"))
    assert client.answer()[1] == ok(b"ok")[:-2]


def test_an_absolute_target_reaches_the_server_as_path_and_host(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(b"GET http://Shop:81/cart?x HTTP/1.1\r\nHost: other\r\nAccept: */*\r\n\r\n")
    assert server.accept().head() == b"GET /cart?x HTTP/1.1\r\nHost: shop:81\r\nAccept: */*\r\n\r\n"


def test_a_chunked_body_passes_in_its_own_chunks_both_ways(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    head = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"5;ext=1\r\nhello\r\n1\r\n \r\n0\r\nX-Checksum: 1\r\n\r\n"
    client.send(head + body[:9])
    upstream = server.accept()
    assert upstream.read(len(head) + 9) == head + body[:9]
    client.send(*(body[i : i + 1] for i in range(9, len(body))))
    assert upstream.read(len(body) - 9) == body[9:]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.send(head, body)
    assert client.read(len(head + body)) == head + body
    client.send(get(b"/next"))
    assert upstream.head() == get(b"/next")


def test_a_body_until_close_ends_the_clients_connection(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\n", b"until the end")
    upstream.close()
    assert client.rest() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_bodies_of_any_size_pass_both_ways(mesh: Mesh, size: int) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client.sock.setblocking(False)  # the test plays both ends: what the kernel does not take at once comes after
    request = memoryview(post(body))
    sent = client.sock.send(request)
    upstream = server.accept()
    received = upstream.read(len(request) // 2 if sent < len(request) else len(request))
    while sent < len(request):
        client.sock.settimeout(0.01)
        try:
            sent += client.sock.send(request[sent:])
        except TimeoutError:
            received += upstream.read(min(1 << 20, sent - len(received)))
    received += upstream.read(len(request) - len(received))
    assert received == request
    client.sock.settimeout(5)
    upstream.send(ok(b"seen"))
    assert client.answer()[2] == b"seen"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_answer_that_has_no_body_is_over_with_its_head(mesh: Mesh, answer: bytes) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(answer)
    assert client.head() == answer
    client.send(get(b"/next"))
    assert upstream.head() == get(b"/next")
    upstream.send(ok(b"next"))
    assert client.answer()[2] == b"next"


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_head_then_get_on_one_connection_stay_in_step(mesh: Mesh, framing: bytes) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(b"HEAD /a HTTP/1.1\r\nHost: web\r\n\r\n" + get(b"/b"))
    upstream = server.accept()
    assert upstream.head() == b"HEAD /a HTTP/1.1\r\nHost: web\r\n\r\n"
    upstream.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    assert client.head() == b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
    assert upstream.head() == get(b"/b")
    upstream.send(ok(b"the body of b"))
    assert client.answer()[2] == b"the body of b"
    assert not server.has_caller(), "the connection was fit for use again"


def test_pipelined_requests_are_served_one_after_the_other_in_order(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    requests = [get(b"/0"), post(b"12345", path=b"/1"), get(b"/2"), b"\r\n" + get(b"/3")]
    client.send(b"".join(requests))
    upstream = server.accept()
    for number, request in enumerate(requests):
        request = request.lstrip(b"\r\n")
        assert upstream.read(len(request)) == request
        assert upstream.is_silent(), "the next request came before this one was answered"
        upstream.send(ok(b"%d" % number))
    assert [client.answer()[2] for _ in requests] == [b"0", b"1", b"2", b"3"]


def test_expect_100_continue_goes_to_the_server_and_its_consent_to_the_client(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    request = post(b"body", b"Expect: 100-continue")
    client.send(request[:-4])
    upstream = server.accept()
    assert upstream.head() == request[:-4]
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")
    assert upstream.read(4) == b"body"
    upstream.send(ok())
    assert client.answer()[0] == 200
    client.send(get(b"/next"))
    assert upstream.head() == get(b"/next")


def test_expect_refused_by_the_server_ends_the_connection_whose_body_never_came(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(post(b"body", b"Expect: 100-continue")[:-4])
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
    assert client.head() == b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert client.rest() == b""
    assert mesh.next_is(server, service), "the server's connection waits for a body still: it is not used again"


def test_interim_answers_all_reach_the_client_before_the_final_one(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    upstream.send(hint + hint[:20])
    assert client.head() == hint
    upstream.send(hint[20:] + ok(b"end"))
    assert client.head() == hint
    assert client.answer()[2] == b"end"


def test_more_interim_answers_than_any_server_has_use_for_are_a_broken_answer(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 102 P\r\n\r\n" * 3000 + ok(b"end"))
    answer = client.head()
    while answer == b"HTTP/1.1 102 P\r\n\r\n":
        answer = client.head()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert flag_of(answer) == "UPE"


def test_an_early_answer_is_passed_on_and_ends_both_connections(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(post(b"x" * 100)[:-50])
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
    assert client.head() == b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    assert client.rest() == b"big"
    upstream.read(50)
    assert upstream.is_reset()


def test_http_1_0_is_served_and_its_connection_closed(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(b"GET / HTTP/1.0\r\nX-A: b\r\n\r\n")
    upstream = server.accept()
    assert upstream.head() == b"GET / HTTP/1.0\r\nX-A: b\r\nConnection: close\r\n\r\n"
    upstream.send(b"HTTP/1.0 200 OK\r\n\r\nold")
    upstream.close()
    assert client.rest() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nold"


def test_an_http_1_0_server_is_understood(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    for _ in range(2):
        client.send(get())
        upstream = server.accept()
        upstream.head()
        upstream.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.answer() == (200, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok")


# ── Tunnels ─────────────────────────────────────────────────────────────────────────────────────────────────────────

UPGRADE = get(b"/chat", b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def test_101_becomes_a_tunnel_without_losing_what_came_early(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(UPGRADE + b"early client")
    upstream = server.accept()
    assert upstream.head() == get(b"/chat", b"Upgrade: websocket", b"Sec-WebSocket-Key: x", b"Connection: Upgrade")
    upstream.send(SWITCHING + b"early server")
    assert client.read(len(SWITCHING) + 12) == SWITCHING + b"early server"
    assert upstream.read(12) == b"early client"
    client.send(b"GET / HTTP/1.1\r\nnot: http\r\n any more\r\n\r\n")
    assert upstream.head() == b"GET / HTTP/1.1\r\nnot: http\r\n any more\r\n\r\n"
    upstream.end()
    assert client.rest() == b""
    client.send(b"last words")
    client.end()
    assert upstream.rest() == b"last words"


def test_an_upgrade_that_the_server_ignores_is_answered_and_closed(mesh: Mesh) -> None:
    """What the client sends next may not be HTTP."""
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(UPGRADE)
    upstream = server.accept()
    upstream.head()
    upstream.send(ok(b"no"))
    assert client.answer()[1:] == (ok(b"no", b"Connection: close")[:-2], b"no")
    assert client.rest() == b""


def test_a_101_that_nobody_asked_for_is_a_broken_answer(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get() + get(b"/second"))
    upstream = server.accept()
    upstream.head()
    upstream.send(SWITCHING)
    assert client.answer()[0] == 502
    assert server.accept().head() == get(b"/second"), "the connection is HTTP still"


def test_h2c_upgrade_is_taken_out_and_the_request_served_as_http_1(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get(b"/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"))
    upstream = server.accept()
    assert upstream.head() == get()
    upstream.send(ok())
    assert client.answer()[0] == 200


def test_connect_becomes_a_tunnel_after_2xx(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    request = b"CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n\r\n"
    client.send(request)
    upstream = server.accept()
    assert upstream.head() == request
    upstream.send(b"HTTP/1.1 200 Connected\r\n\r\n\x16\x03")
    assert client.head() == b"HTTP/1.1 200 Connected\r\n\r\n"
    assert client.read(2) == b"\x16\x03"
    client.send(b"\x16\x01")
    assert upstream.read(2) == b"\x16\x01"


def test_connect_refused_by_the_server_stays_http(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(b"CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n\r\n")
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    assert client.rest() == b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"


def test_the_called_address_decides_and_a_host_of_another_service_is_counted(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    mesh.telemetry()
    other = b"GET / HTTP/1.1\r\nHost: other.default.svc.cluster.local\r\n\r\n"
    client.send(other)
    upstream = server.accept()
    for again in (other, other, get()):
        assert upstream.head() == other
        upstream.send(ok())
        assert client.answer()[0] == 200
        client.send(again)
    counted = {key.name: value for key, value in mesh.telemetry().counters}
    assert counted["headgate_host_mismatch"] == 3
