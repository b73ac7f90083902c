"""Whatever clients and servers do, the worker lives, serves others, and closes what they leave behind."""

import random
import resource
import select
import socket
from contextlib import suppress

import pytest

from proxy.model.routing import Protocol
from tests.netns.proxy import observed
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.serving import Answering
from tests.netns.proxy.wire import Server, Wire, get, ok, post

REQUESTS = [
    get(),
    get(b"/a", b"Connection: close"),
    post(b"12345"),
    post(b"x" * 3000, b"Expect: 100-continue"),
    b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: web\r\n\r\n",
    get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"),
    b"CONNECT web:1 HTTP/1.1\r\nHost: web:1\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\r\n" * 5,
]
RESPONSES = [
    ok(b"fine"),
    ok(b"x" * 5000),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil close",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
]


def damaged(chance: random.Random, messages: list[bytes]) -> bytes:
    data = bytearray(b"".join(chance.choices(messages, k=chance.randint(1, 4))))
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        place = chance.randrange(len(data) or 1)
        data[place : place + chance.choice([0, 1, 1, 20])] = chance.choice(
            [b"", b"\n", b"\r", b"\r\n", b"\x00", b"0", b":", b" ", b"\r\n\r\n", chance.randbytes(3)]
        )
    return bytes(data) or b"\r"


def act(chance: random.Random, wire: Wire, messages: list[bytes]) -> bool:
    """One move of one side; whether it goes on."""
    with suppress(OSError):
        move = chance.random()
        if move < 0.75:
            data = damaged(chance, messages)
            cut = chance.randint(1, len(data))
            wire.sock.send(data[:cut], socket.MSG_DONTWAIT)
            wire.sock.send(data[cut:], socket.MSG_DONTWAIT)
            return True
        if move < 0.83:
            wire.end()
            return True
        if move < 0.9:
            wire.reset()
            return False
    wire.close()
    return False


@pytest.mark.parametrize("seed", range(4))
def test_broken_clients_and_servers_leave_nothing_behind(mesh: Mesh, seed: int) -> None:
    chance = random.Random(seed)
    server = mesh.listen()
    services = [
        mesh.service([server]),
        mesh.service([server, mesh.closed_port()]),
        mesh.service([]),
        mesh.service([server], Protocol.UNDECLARED),
        mesh.service([server], Protocol.TCP),
    ]
    mesh.turn()
    before = mesh.open_files()
    clients: list[Wire] = []
    serving: list[Wire] = []
    for _ in range(400):
        if len(clients) < 10:
            clients.append(mesh.connect(chance.choice(services)))
        while server.has_caller():
            serving.append(server.accept())
        clients = [one for one in clients if chance.random() < 0.4 or act(chance, one, REQUESTS)]
        serving = [one for one in serving if chance.random() < 0.4 or act(chance, one, RESPONSES)]
    for wire in clients + serving:
        wire.close()
    while server.has_caller():
        server.accept().close()
    # Idle connections to the server have ended with it; lingering ones end by themselves, within 5 s and a tick.
    mesh.until(lambda: _close_callers(server) and mesh.open_files() <= before, "everything to be closed", 8)
    with Answering(mesh.listen(), b"served") as good:
        client = mesh.connect(mesh.service([good.server]))
        client.send(get())
        assert client.answer()[2] == b"served"


def _close_callers(server: Server) -> bool:
    while server.has_caller():
        server.accept().close()
    return True


def test_connections_wait_while_descriptors_are_used_up_and_are_served_afterwards(mesh: Mesh) -> None:
    with Answering(mesh.listen(), b"served") as good:
        service = mesh.service([good.server])
        mesh.telemetry()
        limits = resource.prlimit(mesh.worker_pid, resource.RLIMIT_NOFILE)
        resource.prlimit(mesh.worker_pid, resource.RLIMIT_NOFILE, (mesh.open_files() + 3, limits[1]))
        try:
            clients = [mesh.connect(service) for _ in range(10)]
            for client in clients:
                client.send(get(b"/", b"Connection: close"))
            mesh.until(lambda: bool(_accept_errors(mesh)), "accept to fail")
            spent_s = observed.processor_time_s(mesh.worker_pid)
            mesh.watch(0.3)
            assert observed.processor_time_s(mesh.worker_pid) - spent_s < 0.15, (
                "it does not turn on connections that it cannot accept"
            )
        finally:
            resource.prlimit(mesh.worker_pid, resource.RLIMIT_NOFILE, limits)
        statuses = [client.answer()[0] for client in clients]
        assert set(statuses) <= {200, 503}
        assert statuses[-1] == 200, "it waited in the queue"


def _accept_errors(mesh: Mesh) -> list[str]:
    return [key.label_values[0] for key, _ in mesh.telemetry().counters if key.name == "headgate_accept_errors"]


def test_hundreds_of_connections_that_come_at_once_are_all_served(mesh: Mesh) -> None:
    with Answering(mesh.listen(backlog=2048), b"served") as good:
        service = mesh.service([good.server])
        mesh.pause_worker()
        clients = [mesh.connect(service) for _ in range(300)]
        for client in clients:
            client.send(get(b"/", b"Connection: close"))
        mesh.resume_worker()
        assert {client.answer()[0] for client in clients} == {200}


def test_a_client_that_reads_nothing_does_not_hold_up_the_others(mesh: Mesh) -> None:
    server = mesh.listen()
    lazy = mesh.connect(mesh.service([server]))
    lazy.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
    upstream.fill(b"x" * 65536, 64 << 20, stalled_s=0.1)
    with Answering(mesh.listen(), b"served") as good:
        client = mesh.connect(mesh.service([good.server]))
        for _ in range(100):
            client.send(get())
            assert client.answer()[2] == b"served"
    assert select.select([lazy.sock], [], [], 0)[0], "what came for it waits"
