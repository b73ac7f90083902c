"""What the client sees when a server fails, and what is tried first (reference/proxy.md B.7 and C)."""

import select
import time

import pytest

from tests.netns.proxy.described import PATIENT_RETRY, Subset
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import PATIENCE_S, Server, Wire, flag_of, get, ok, post

CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"


def failed(client: Wire) -> tuple[int, str]:
    """Status and flag of a failure after which the connection goes on."""
    status, head, body = client.answer()
    assert b"connection: close" not in head
    assert body.decode().strip() in head.decode(), "body and header say the same"
    return status, flag_of(head)


# ── Before an answer ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refused_endpoint_is_503_uf_after_two_more_tries_and_the_client_may_go_on(mesh: Mesh) -> None:
    closed = mesh.closed_port()
    client = mesh.connect(mesh.service([closed]))
    mesh.telemetry()
    client.send(get())
    status, head, body = client.answer()
    assert (status, flag_of(head)) == (503, "UF,URX")
    assert f"{closed} of " in body.decode() and "ECONNREFUSED (tries: 3)" in body.decode()
    (counted,) = mesh.telemetry().requests
    assert (counted.labels.response_code, counted.labels.response_flags) == ("503", "UF,URX")
    client.send(get())
    assert failed(client) == (503, "UF,URX")


@pytest.mark.parametrize("request_bytes", [get(), post(b"body")], ids=["GET", "POST"])
def test_a_refused_request_of_any_method_is_served_by_another_endpoint(mesh: Mesh, request_bytes: bytes) -> None:
    server = mesh.listen()
    service = mesh.service([mesh.closed_port(), server])
    client = mesh.connect(service)
    for number in range(10):  # half of them meet the closed port first
        client.send(request_bytes)
        upstream = server.accept() if number == 0 else server.accepted[0]
        assert upstream.read(len(request_bytes)) == request_bytes
        upstream.send(ok())
        assert client.answer()[0] == 200


def test_a_body_that_goes_on_coming_between_two_tries_arrives_whole(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([mesh.closed_port(), server], retry=PATIENT_RETRY)
    request = post(b"first, second, third")
    for number in range(6):  # half of them meet the closed port first
        client = mesh.connect(service)
        client.send(request[:-13])
        for start in (-13, -5):
            mesh.turn()
            client.send(request[start : -5 if start == -13 else None])
        upstream = server.accept() if number == 0 else server.accepted[0]
        assert upstream.read(len(request)) == request
        upstream.send(ok())
        assert client.answer()[0] == 200


def test_a_retry_stays_in_the_subset_that_the_split_chose(mesh: Mesh) -> None:
    """Envoy chooses the weighted cluster once a request: what fails in a canary must not be hidden by the others."""
    server = mesh.listen()
    client = mesh.connect(mesh.split([Subset([server]), Subset([mesh.closed_port()])]))
    outcomes = []
    for _ in range(20):
        client.send(get(b"/", b"Connection: keep-alive"))
        served = wait_for_one(server, client)
        if served is not None:
            served.head()
            served.send(ok(b"ok", b"Connection: close"))
            served.close()
        outcomes.append(client.answer()[0])
    assert abs(outcomes.count(503) - 10) <= 2
    assert abs(outcomes.count(200) - 10) <= 2


def wait_for_one(server: Server, client: Wire) -> Wire | None:
    """The server's new connection, or None if the client was answered without it."""
    readable, _, _ = select.select([server.listener, client.sock], [], [], PATIENCE_S)
    return server.accept() if server.listener in readable else None


def test_no_endpoint_is_503_uh(mesh: Mesh) -> None:
    service = mesh.service([])
    client = mesh.connect(service)
    client.send(get())
    assert failed(client) == (503, "UH")
    client.send(b"HEAD / HTTP/1.1\r\nHost: web\r\n\r\n" + get())
    head = client.head()
    assert (head[:12], flag_of(head)) == (b"HTTP/1.1 503", "UH")
    assert failed(client) == (503, "UH"), "HEAD is answered without a body, and the connection in step"


def test_a_missing_subset_is_503_nc_and_says_which_object_to_look_at(mesh: Mesh) -> None:
    reason = "VirtualService default/web routes to subset v9, which no DestinationRule defines"
    client = mesh.connect(mesh.split([Subset([], missing=reason)]))
    client.send(get())
    status, head, body = client.answer()
    assert (status, flag_of(head), body) == (503, "NC", reason.encode() + b"\n")


def test_a_rejected_route_is_500_and_names_the_object(mesh: Mesh) -> None:
    server = mesh.listen()
    service = mesh.service([server], refused="VirtualService default/web: spec.http[0].fault is not supported")
    client = mesh.connect(service)
    client.send(get())
    status, _, body = client.answer()
    assert (status, body) == (500, b"VirtualService default/web: spec.http[0].fault is not supported\n")
    assert not server.has_caller()


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_server_that_ends_a_new_connection_unanswered_is_503_uc_and_not_asked_twice(mesh: Mesh, how: str) -> None:
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(get())
    upstream = server.accept()
    upstream.head()
    if how == "closes":
        upstream.close()
    else:
        upstream.reset()
    assert failed(client) == (503, "UC")
    assert mesh.next_is(server, service)


def test_a_body_whose_server_is_gone_is_answered_and_the_connection_closed(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(post(b"x" * 100)[:-50])
    upstream = server.accept()
    upstream.head()
    upstream.reset()
    assert client.refused() == (503, "UC")


# ── The race of keep-alive ──────────────────────────────────────────────────────────────────────────────────────────


def kept_alive(mesh: Mesh) -> tuple[Wire, Wire]:
    """A client, and its server's connection after one request; the server listens on."""
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get(b"/first"))
    upstream = server.accept()
    upstream.head()
    upstream.send(ok())
    client.answer()
    return client, upstream


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_a_server_that_closes_a_kept_connection_as_the_request_comes_gets_it_once_more(
    mesh: Mesh, how: str, method: bytes
) -> None:
    client, upstream = kept_alive(mesh)
    server = mesh.last_server
    request = get(b"/second").replace(b"GET", method)
    client.send(request)
    assert upstream.head() == request
    upstream.close() if how == "closes" else upstream.reset()
    once_more = server.accept()
    assert once_more.head() == request
    once_more.send(ok(b"second"))
    assert client.answer()[2] == b"second"


def test_it_gets_it_once_more_and_no_oftener(mesh: Mesh) -> None:
    client, upstream = kept_alive(mesh)
    server = mesh.last_server
    client.send(get(b"/second"))
    upstream.head()
    upstream.close()
    once_more = server.accept()
    once_more.head()
    once_more.close()
    assert failed(client) == (503, "UC")
    assert not server.has_caller()


@pytest.mark.parametrize("request_bytes", [post(b"body"), CHUNKED_POST + b"0\r\n\r\n"], ids=["length", "chunked"])
def test_a_request_with_a_body_is_not_repeated(mesh: Mesh, request_bytes: bytes) -> None:
    client, upstream = kept_alive(mesh)
    server = mesh.last_server
    client.send(request_bytes)
    assert upstream.read(len(request_bytes)) == request_bytes
    upstream.close()
    assert failed(client) == (503, "UC")
    assert not server.has_caller()


def test_an_idle_connection_that_the_server_closed_is_not_used(mesh: Mesh) -> None:
    client, upstream = kept_alive(mesh)
    server = mesh.last_server
    upstream.close()
    client.send(post(b"body"))
    assert server.accept().read(len(post(b"body"))) == post(b"body")


def test_bytes_that_nobody_asked_for_spoil_an_idle_connection(mesh: Mesh) -> None:
    """Who came next would take them for its own answer."""
    client, upstream = kept_alive(mesh)
    server = mesh.last_server
    upstream.send(ok(b"poison"))
    assert upstream.rest() == b""
    client.send(get(b"/second"))
    second = server.accept()
    assert second.head() == get(b"/second")
    second.send(ok(b"clean") + ok(b"poison"))
    assert client.answer()[2] == b"clean"
    client.send(get(b"/third"))
    third = server.accept()
    assert third.head() == get(b"/third")
    third.send(ok(b"third"))
    assert client.answer()[2] == b"third"


# ── In the middle of an answer ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_server_lost_amid_a_chunked_answer_never_looks_like_its_end(mesh: Mesh, how: str) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    upstream.send(begun)
    assert client.read(len(begun)) == begun
    mesh.telemetry()
    upstream.close() if how == "closes" else upstream.reset()
    assert client.is_reset()
    (counted,) = mesh.telemetry().requests
    assert (counted.labels.response_code, counted.labels.response_flags) == ("200", "UR")


def test_a_server_lost_amid_an_answer_of_known_length_resets_the_client(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(ok(b"x" * 10)[:-5])
    assert client.head() and client.read(5) == b"xxxxx"
    upstream.close()
    assert client.is_reset()


def test_a_server_reset_amid_a_body_until_close_resets_the_client(mesh: Mesh) -> None:
    """An end would tell the client that this was all."""
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\npart")
    assert client.head() and client.read(4) == b"part"
    upstream.reset()
    assert client.is_reset()


BAD_ANSWERS = {
    "CL+TE": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two CL": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "unknown TE": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE on 204": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CL on 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
    "TE on 1xx": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX-A: \x00\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "oversized head": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 60 * 1024 + b"\r\n\r\n",
    "bad first chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_broken_answer_is_502_upe_and_its_connection_is_not_used_again(mesh: Mesh, case: str) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(BAD_ANSWERS[case])
    if case == "bad first chunk":
        assert client.is_reset(), "its head had been passed on"
    else:
        assert failed(client) == (502, "UPE")
        client.send(get(b"/next"))
        assert server.accept().head() == get(b"/next")
    assert upstream.is_reset()


# ── A client that leaves ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("when", ["before the answer", "amid the answer", "amid its own body"])
def test_a_client_that_leaves_cancels_at_the_server(mesh: Mesh, how: str, when: str) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(post(b"12345")[:-3] if when == "amid its own body" else get())
    upstream = server.accept()
    upstream.head()
    if when == "amid its own body":
        assert upstream.read(2) == b"12"
    if when == "amid the answer":
        upstream.send(ok(b"x" * 10)[:-5])
        client.head()
        client.read(5)
    mesh.telemetry()
    client.close() if how == "closes" else client.reset()
    assert upstream.is_reset()
    (counted,) = mesh.telemetry().requests
    assert (counted.labels.response_code, counted.labels.response_flags) == ("0", "DC")


def test_a_client_that_leaves_while_the_server_is_tried_again_is_no_longer_served(mesh: Mesh) -> None:
    service = mesh.service([mesh.closed_port()], retry=PATIENT_RETRY)
    clients = [mesh.connect(service) for _ in range(5)]
    for client in clients:
        client.send(get())
    mesh.turn()
    for client in clients:
        client.close()
    mesh.watch(0.7)
    counted = mesh.telemetry().requests
    assert {(one.labels.response_code, one.labels.response_flags) for one in counted} == {("0", "DC")}
    assert sum(sum(one.durations) for one in counted) == len(clients)


# ── What is gone at once ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unroutable_endpoint_is_503_uf_at_once(mesh: Mesh) -> None:
    mesh.netns("client").run(["ip", "route", "add", "unreachable", "10.99.0.0/24"])
    service = mesh.service([mesh.somewhere("10.99.0.1", 80)])
    client = mesh.connect(service)
    before_s = time.monotonic()
    client.send(get())
    status, head, body = client.answer()
    assert (status, flag_of(head)) == (503, "UF,URX")
    assert b"EHOSTUNREACH" in body
    assert time.monotonic() - before_s < 2
