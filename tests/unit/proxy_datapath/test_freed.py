"""Connections that have ended are freed by themselves: what waits for the collector may wait for ever, since after a
large policy all that is there is put out of its sight (proxy.policy_intake)."""

import gc
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from proxy.api import stream as reports
from proxy.api.constants import PROOF_PORT
from proxy.datapath.accept import Listener
from proxy.datapath.detect import serve_by_protocol
from proxy.datapath.pod import Pod
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from tests.unit.proxy_datapath.doubles import client_of, served_pod, turn

REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def nothing_left_to_the_collector() -> Iterator[None]:
    """Of the proxy's own objects."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [type(one).__name__ for one in gc.garbage if type(one).__module__.startswith("proxy.")] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def proof(pod: Pod) -> None:
    """As the agent dials it, here without rules: straight to the listener."""
    with socket.create_server(("127.0.0.1", PROOF_PORT)) as listening:
        listener = Listener(pod, Direction.OUTBOUND, listening)
        listener.open()
        with socket.create_connection(listening.getsockname(), timeout=5) as dialled:
            dialled.sendall(reports.encode_proof_request("0" * 32))
            turn(pod.node.reactor)
            assert dialled.recv(100) == reports.PROOF_ANSWER
        listener.close()


def request(pod: Pod) -> None:
    with served(pod) as (application, server):
        application.sendall(REQUEST)
        turn(pod.node.reactor)
        with server.accept()[0] as taken:
            taken.settimeout(5)
            assert taken.recv(1000).startswith(b"GET / HTTP/1.1")
            taken.sendall(ANSWER)
            turn(pod.node.reactor)
        assert application.recv(1000).endswith(b"ok")
        application.close()
        turn(pod.node.reactor)


def request_given_up(pod: Pod) -> None:
    with served(pod) as (application, _):
        application.sendall(REQUEST)
        turn(pod.node.reactor)
        application.close()
        turn(pod.node.reactor)


def request_refused(pod: Pod) -> None:
    with served(pod) as (application, server):
        server.close()
        application.sendall(REQUEST)
        while not select.select([application], [], [], 0)[0]:  # it is tried again first
            turn(pod.node.reactor)
        assert application.recv(1000).startswith(b"HTTP/1.1 503")


def bytes_both_ways(pod: Pod) -> None:
    with served(pod) as (application, server):
        application.sendall(b"\x16\x03\x01 no HTTP at all")
        turn(pod.node.reactor)
        with server.accept()[0] as taken:
            taken.sendall(b"answer")
            turn(pod.node.reactor)
            assert application.recv(100) == b"answer"
        turn(pod.node.reactor)
        application.close()
        turn(pod.node.reactor)


@contextmanager
def served(pod: Pod) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The application's end of a connection, and the server that it is for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        with client_of(pod, SocketAddress(*server.getsockname())) as (client, application):
            serve_by_protocol(client)
            yield application, server


@pytest.mark.parametrize("happens", [proof, request, request_given_up, request_refused, bytes_both_ways])
def test_what_has_ended_is_freed_at_once(happens: Callable[[Pod], None]) -> None:
    with served_pod() as pod, nothing_left_to_the_collector():
        happens(pod)
        for destination in pod.destinations.values():
            destination.retire()
        pod.destinations.clear()
        pod.sockets.close_unused()
