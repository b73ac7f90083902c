"""One worker, told to release, to take up again, to drain: what lives is cut only at the end of a bound, and told."""

import os
import time

from proxy.model.direction import Direction
from proxy.model.routing import Protocol
from proxy.workerlink import (
    IDLE_CONNECTIONS,
    AskLease,
    GrantLease,
    LeaseKey,
    Ping,
    PodForgotten,
    Pong,
    RecallLease,
    ReleasePod,
    ReturnLease,
    Stop,
)
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import Server, Wire, get, ok

CLIENT = "client"
KEEP_ALIVE_S = 5.0


def exchange(client: Wire, upstream: Wire, body: bytes = b"fine") -> bytes:
    """One request and its answer over both; the head that the client got."""
    client.send(get())
    upstream.head()
    upstream.send(ok(body))
    status, head, got = client.answer()
    assert (status, got) == (200, body)
    return head


def kept(mesh: Mesh, server: Server) -> tuple[Wire, Wire]:
    """A keep-alive connection that had its first answer, at both ends."""
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(ok())
    client.answer()
    return client, upstream


def closes(head: bytes) -> bool:
    return b"\r\nConnection: close\r\n" in head


# ── Release ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_released_pod_accepts_no_more_and_what_lives_goes_on(mesh: Mesh) -> None:
    server = mesh.listen()
    client, upstream = kept(mesh, server)
    relayed = mesh.connect(mesh.service([server], Protocol.TCP))
    relayed.send(b"x")
    other = server.accept()
    assert other.read(1) == b"x"
    mesh.tell(ReleasePod(CLIENT))
    mesh.turn()
    late = mesh.connect(mesh.service([server]))
    late.send(get())
    assert not closes(exchange(client, upstream))
    other.send(b"y")
    assert relayed.read(1) == b"y"
    mesh.serve(CLIENT, 2)
    assert server.accept().head() == get(), "it waited in the listener's queue"


def test_a_released_pod_is_forgotten_when_its_last_connection_ends(mesh: Mesh) -> None:
    mesh.serve(CLIENT, 7)
    empty = mesh.open_files()
    client, upstream = kept(mesh, mesh.listen())
    mesh.tell(ReleasePod(CLIENT))
    exchange(client, upstream)
    client.close()
    assert mesh.forgotten() == PodForgotten(CLIENT, 7, ())
    assert upstream.rest() == b"", "the idle upstream connection pinned the namespace too"
    assert mesh.open_files() < empty


def test_a_released_pod_without_connections_is_forgotten_at_once(mesh: Mesh) -> None:
    mesh.serve(CLIENT, 8)
    mesh.tell(ReleasePod(CLIENT))
    assert mesh.forgotten() == PodForgotten(CLIENT, 8, ())


def test_a_released_pod_that_comes_back_is_taken_up_as_it_is(mesh: Mesh) -> None:
    client, upstream = kept(mesh, mesh.listen())
    mesh.tell(ReleasePod(CLIENT))
    files = mesh.open_files()
    for sequence in (11, 12):
        mesh.serve(CLIENT, sequence, shared=sequence == 12)  # and handed over again while it is served
        assert not closes(exchange(client, upstream))
    assert mesh.open_files() <= files + 4, "its listeners, and no second namespace"
    mesh.forget(CLIENT, 0.0)
    assert mesh.forgotten() == PodForgotten(CLIENT, 12, ()), "one pod, by its last hand-over"


def test_a_released_pod_that_leaves_is_let_go_as_fast_as_any(mesh: Mesh) -> None:
    client, _ = kept(mesh, mesh.listen())
    mesh.tell(ReleasePod(CLIENT))
    mesh.forget(CLIENT, 0.0)
    assert mesh.forgotten().cut == ()
    assert client.rest() == b""


# ── Drain ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_draining_keep_alive_connection_says_close_on_its_next_answer(mesh: Mesh) -> None:
    client, upstream = kept(mesh, mesh.listen())
    mesh.forget(CLIENT, 20.0)
    mesh.turn()
    assert closes(exchange(client, upstream))
    assert client.rest() == b""
    assert mesh.forgotten().cut == ()


def test_a_draining_connection_in_the_middle_of_an_answer_gets_one_more_request(mesh: Mesh) -> None:
    """Its answer's head has gone out without `Connection: close`: ending it behind the body would lose the request
    that the client sends next."""
    client, upstream = kept(mesh, mesh.listen())
    client.send(get())
    upstream.head()
    upstream.send(ok(b"12345")[:-1])
    assert client.read(1) == b"H"
    mesh.forget(CLIENT, 20.0)
    mesh.turn()
    upstream.send(b"5")
    assert client.answer()[2] == b"12345"
    assert closes(exchange(client, upstream))
    assert mesh.forgotten().cut == ()


def test_a_draining_connection_that_stays_idle_is_closed_after_the_shortest_common_keep_alive(mesh: Mesh) -> None:
    client, _ = kept(mesh, mesh.listen())
    started_s = time.monotonic()
    mesh.forget(CLIENT, 20.0)
    client.sock.settimeout(3 * KEEP_ALIVE_S)
    assert client.rest() == b""
    assert KEEP_ALIVE_S - 0.5 < time.monotonic() - started_s < KEEP_ALIVE_S + 3
    assert mesh.forgotten().cut == ()


def test_a_connection_that_shows_its_protocol_only_while_draining_is_told_to_close(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    mesh.turn()
    mesh.forget(CLIENT, 20.0)
    mesh.turn()
    client.send(get())
    while (upstream := server.accept()).head() != get():
        pass  # connected while both sides were silent
    upstream.send(ok())
    assert closes(client.answer()[1])
    assert mesh.forgotten().cut == ()


def test_a_relay_lives_to_the_end_of_the_drain_and_is_told_with_its_age(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.TCP))
    client.send(b"x")
    upstream = server.accept()
    upstream.read(1)
    opened_s = time.monotonic()
    mesh.forget(CLIENT, 1.0)
    mesh.turn()
    client.send(b"y")
    assert upstream.read(1) == b"y"
    (cut,) = mesh.forgotten().cut
    assert (cut.direction, cut.protocol) == (Direction.OUTBOUND, "tcp")
    assert 0.9 < cut.age_s < time.monotonic() - opened_s + 1.0
    assert client.is_reset() and upstream.is_reset()


def test_a_pod_that_drains_is_let_go_at_once_when_it_ends(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.TCP))
    client.send(b"x")
    server.accept().read(1)
    mesh.forget(CLIENT, 60.0)
    mesh.turn()
    started_s = time.monotonic()
    mesh.forget(CLIENT, 0.0)
    assert mesh.forgotten().cut_connections == 1
    assert time.monotonic() - started_s < 2.0
    assert client.is_reset()


def test_a_worker_that_stops_waits_no_longer_for_a_pod_that_was_draining_before() -> None:
    with Mesh(f"hg-ws{os.getpid()}") as mesh:
        server = mesh.listen()
        relayed = [mesh.connect(mesh.service([server], Protocol.TCP), pod) for pod in ("client", "guarded")]
        for wire in relayed:
            wire.send(b"x")
            server.accept().read(1)
        mesh.forget("client", 60.0)
        mesh.tell(Stop(1.0))
        assert {(told.uid, told.cut_connections) for told in (mesh.forgotten(), mesh.forgotten())} == {
            ("client", 1),
            ("guarded", 1),
        }
        assert all(wire.is_reset() for wire in relayed)
        mesh.until(lambda: mesh.ended, "the worker to end")


# ── Leases, and being alive ────────────────────────────────────────────────────────────────────────────────────────
def test_a_worker_keeps_no_more_idle_connections_than_it_was_granted_and_gives_back_what_is_recalled(
    mesh: Mesh,
) -> None:
    key = LeaseKey(IDLE_CONNECTIONS, CLIENT)
    mesh.forget(CLIENT, 0.0)
    mesh.forgotten()
    mesh.serve(CLIENT, 20, idle_tokens=1)
    server = mesh.listen()
    service = mesh.service([server])
    clients = [mesh.connect(service) for _ in range(2)]
    for client in clients:
        client.send(get())
    first, second = server.accept(), server.accept()
    for upstream in (first, second):
        upstream.head()
        upstream.send(ok())
        mesh.turn()
    for client in clients:
        client.answer()
    assert mesh.expect(AskLease).key == key
    assert second.rest() == b"", "beyond the one token nothing is kept"
    mesh.tell(GrantLease(key, 1))
    for client in clients:
        client.send(get())
    third = server.accept()
    for upstream in (first, third):
        upstream.head()
        upstream.send(ok())
    for client in clients:
        client.answer()
    mesh.turn()
    assert first.is_silent() and third.is_silent(), "both are kept now"
    mesh.tell(RecallLease(key, 1))
    mesh.turn()
    clients[0].send(get())  # takes one of them: its token is free, and is not granted again
    assert mesh.expect(ReturnLease) == ReturnLease(key, 1)


def test_a_worker_answers_pings_in_order(mesh: Mesh) -> None:
    for sequence in (1, 2, 3):
        mesh.tell(Ping(sequence))
    assert [mesh.expect(Pong).sequence for _ in range(3)] == [1, 2, 3]
