"""Who reads slowly stops who writes, and the worker holds no more than its buffers in between."""

import threading
from collections.abc import Callable

import pytest

from proxy.model.routing import Protocol
from tests.netns.proxy import observed
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import Wire

MIB = 1 << 20
CHUNK = bytes(range(256)) * 256
"""64 KiB, in which a lost or doubled byte shows."""
MORE_THAN_BUFFERS = 64 * MIB
"""Four socket buffers lie on the way, of at most 4 MiB (tcp_wmem) or 6 MiB (tcp_rmem) each."""
MOST_ADDED = 8 * MIB
"""Issue 2: what a body adds to the worker's memory."""


def http_answer(mesh: Mesh) -> tuple[Wire, Wire]:
    """(writer, reader): a server amid an answer, and its client."""
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
    client.head()
    return upstream, client


def http_request(mesh: Mesh) -> tuple[Wire, Wire]:
    """(writer, reader): a client amid its request's body, and the server."""
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(b"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
    upstream = server.accept()
    upstream.head()
    return client, upstream


def chunked_answer(mesh: Mesh) -> tuple[Wire, Wire]:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (1 << 40))
    client.head()
    client.until(b"\r\n")
    return upstream, client


def tcp_from_client(mesh: Mesh) -> tuple[Wire, Wire]:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.TCP))
    upstream = server.accept()
    return client, upstream


def tcp_from_server(mesh: Mesh) -> tuple[Wire, Wire]:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server], Protocol.TCP))
    return server.accept(), client


Setup = Callable[[Mesh], tuple[Wire, Wire]]
WAYS = [http_answer, http_request, chunked_answer, tcp_from_client, tcp_from_server]


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_that_does_not_read_stalls_the_writer_and_loses_nothing(mesh: Mesh, way: Setup) -> None:
    writer, reader = way(mesh)
    before = observed.restart_peak_memory(mesh.worker_pid)
    sent = writer.fill(CHUNK, MORE_THAN_BUFFERS)
    assert sent < MORE_THAN_BUFFERS, "the writer was never stopped"
    assert observed.peak_memory(mesh.worker_pid) - before < MOST_ADDED
    received = reader.read(sent)
    assert len(received) == sent
    assert received == (CHUNK * (sent // len(CHUNK) + 1))[:sent]
    writer.send(b"it flows again")
    assert reader.read(14) == b"it flows again"


@pytest.mark.parametrize("way", WAYS)
def test_256_mib_pass_whole_and_add_little_to_the_workers_memory(mesh: Mesh, way: Setup) -> None:
    writer, reader = way(mesh)
    before = observed.restart_peak_memory(mesh.worker_pid)
    total = 256 * MIB
    sender = threading.Thread(target=writer.send, args=[CHUNK] * (total // len(CHUNK)))
    sender.start()
    try:
        counted = reader.drain(total)
    finally:
        reader.close()
        writer.close()
        sender.join()
    assert counted == total
    assert observed.peak_memory(mesh.worker_pid) - before < MOST_ADDED


def test_many_slow_readers_cost_a_bounded_share_each(mesh: Mesh) -> None:
    pairs = [http_answer(mesh) for _ in range(8)]
    before = observed.restart_peak_memory(mesh.worker_pid)
    for writer, _ in pairs:
        writer.fill(CHUNK, MORE_THAN_BUFFERS, stalled_s=0.05)
    assert observed.peak_memory(mesh.worker_pid) - before < 8 * 3 * len(CHUNK) + MOST_ADDED


def test_pipelined_requests_are_not_read_ahead_without_bound(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    request = b"GET /first HTTP/1.1\r\nHost: web\r\nX: " + b"y" * 1000 + b"\r\n\r\n"
    client.send(request)
    upstream = server.accept()
    upstream.head()
    before = observed.restart_peak_memory(mesh.worker_pid)
    sent = client.fill(request * 64, MORE_THAN_BUFFERS)
    assert sent < MORE_THAN_BUFFERS
    assert observed.peak_memory(mesh.worker_pid) - before < MOST_ADDED


FAST = 48 * MIB
"""What the reader takes at full speed first: the kernel's buffers have grown by then to what they would grow to."""
MOST_BUFFERED = 4_000_000
"""Issue 3: behind a fast sender, of what the worker and the kernel hold for its two sockets."""


@pytest.mark.parametrize("way", WAYS)
def test_behind_a_fast_sender_a_reader_that_stops_has_less_than_4_mb_waiting(mesh: Mesh, way: Setup) -> None:
    writer, reader = way(mesh)
    before = observed.restart_peak_memory(mesh.worker_pid)
    sending = threading.Thread(target=writer.fill, args=(CHUNK, FAST + MORE_THAN_BUFFERS, 1.0))
    sending.start()
    reader.drain(FAST)
    sending.join()
    held = observed.kernel_memory(mesh.netns("client"), mesh.worker_pid)
    assert 0 < held + observed.peak_memory(mesh.worker_pid) - before < MOST_BUFFERED
