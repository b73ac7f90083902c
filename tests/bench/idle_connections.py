"""What a worker keeps for a connection that waits for its next request: 10,000 of them, each answered once."""

import socket
import time
from collections.abc import Callable
from typing import Final

from agent.lab.errors import LabError
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.bench import meter, testbed
from tests.bench.many_connections import server_pod
from tests.bench.results import Fact
from tests.bench.rows import WEB

CONNECTIONS: Final = 10_000
_BOUND_KB: Final = 12.0
_WARM: Final = 200
"""Connections before the first reading: what a worker imports and keeps once is not a connection's."""
_SETTLE_S: Final = 2.0
_CPU_S: Final = 5.0
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: web\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"

Say = Callable[[str], None]


def measure(say: Say) -> tuple[Fact, ...]:
    """Raises LabError."""
    near = PodSpec("server-headgate", labels=(("app", "near"),))
    with Lab(LabSpec((PodSpec("client"), near, server_pod("server")), (testbed.CONF / "connections.yaml",))) as lab:
        proxy = lab.start_proxy(*testbed.ONE_WORKER)
        lab.start_agent()
        lab.wait_ready()
        lab.wait_proved()
        worker = meter.family(proxy.pid)[1]
        client = lab.pod("client")
        held: list[socket.socket] = []
        try:
            client.call(_open, held, _WARM)
            time.sleep(_SETTLE_S)
            before_mb = meter.memory_mb(worker)
            say(f"{CONNECTIONS} idle keep-alive connections")
            client.call(_open, held, CONNECTIONS)
            time.sleep(_SETTLE_S)
            each_kb = (meter.memory_mb(worker) - before_mb) * 1e3 / CONNECTIONS
            busy_us = meter.cpu_us(worker)
            time.sleep(_CPU_S)
            idle_share = (meter.cpu_us(worker) - busy_us) / (_CPU_S * 1e6)
            _still_open(held)
        finally:
            for connection in held:
                connection.close()
    return (
        Fact("idle_connection_kb", f"{CONNECTIONS:,} idle keep-alive connections, each", each_kb, "KB", _BOUND_KB),
        Fact("idle_connections_cpu", f"worker with {CONNECTIONS:,} idle connections", idle_share * 100, "% of a core"),
    )


def _open(held: list[socket.socket], number: int) -> None:
    """Adds so many connections, each with one request answered."""
    for _ in range(number):
        connection = socket.create_connection((WEB, 80), 10)
        held.append(connection)
        connection.sendall(_REQUEST)
        answer = b""
        while b"\n" not in answer.partition(b"\r\n\r\n")[2]:
            data = connection.recv(4096)
            if not data:
                raise LabError(f"connection {len(held)} was closed after {answer!r}")
            answer += data
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise LabError(f"connection {len(held)} was answered {answer[:200]!r}")


def _still_open(held: list[socket.socket]) -> None:
    """LabError when one has been closed meanwhile: what is gone needs no memory."""
    for connection in held:
        connection.setblocking(False)
        try:
            ended = connection.recv(1) == b""
        except BlockingIOError:
            continue
        raise LabError(f"an idle connection {'was closed' if ended else 'got bytes'} while it was measured")
