"""A pod's listeners: what the kernel led there is accepted, told apart from self-calls and proofs, and handed on."""

import errno
import re
import select
import socket
from contextlib import suppress
from typing import Final

from proxy.api.constants import PROOF_PORT, PROXY_PORTS
from proxy.datapath.client import NO_COURSE, ClientConnection, Course
from proxy.datapath.destinations import Destination
from proxy.datapath.detect import serve, serve_by_protocol
from proxy.datapath.original_destination import original_sockaddr, own_address, parse_sockaddr
from proxy.datapath.pod import Pod, ProofReport
from proxy.datapath.reactor import READABLE
from proxy.datapath.stream import NOBODY, Stream
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction

ACCEPTS_A_TURN: Final = 64
"""Then the connections that are there already get their turn (nginx accepts all, which starves them)."""

_ONE_WORKER: Final = READABLE | select.EPOLLEXCLUSIVE
"""A connection wakes one of the workers that wait on a shared listener, not all (epoll_ctl(2))."""

MAX_REMEMBERED: Final = 1024
"""Destinations that a listener knows without a second look-up; most pods call a few dozen."""

_SOCK_STREAM: Final = int(socket.SOCK_STREAM)

REST_S: Final = 0.1
"""Pause after descriptors or memory ran out; nginx waits 0.5 s (accept_mutex_delay)."""

PROOF: Final = re.compile(rb"HEADGATE-PROOF ([0-9a-f]{32})\n")
PROOF_BYTES: Final = 48
PROVED: Final = b"HEADGATE-PROVED\n"


class Listener:
    """One listening socket of a pod: a direction and an address family. Accepts only between `open` and `close`."""

    __slots__ = ("_destinations", "_direction", "_family", "_open", "_pod", "_shared", "_sock")

    def __init__(self, pod: Pod, direction: Direction, sock: socket.socket, shared: bool = False) -> None:
        """`shared`: other workers accept on it too, in turns."""
        self._shared = shared
        self._pod = pod
        self._direction = direction
        self._sock = sock
        self._family = int(sock.family)
        self._destinations: dict[bytes, Destination] = {}  # by the kernel's answer, as long as their policy is in force
        self._open = False
        sock.setblocking(False)

    def open(self) -> None:
        """Idempotent."""
        if not self._open:
            self._open = True
            handler = self._on_event_in_turn if self._shared else self.on_event
            self._pod.node.reactor.watch(self._sock.fileno(), handler, _ONE_WORKER)

    def close(self) -> None:
        """The queue's connections stay with whoever holds the socket still (the supervisor)."""
        if self._open:
            self._open = False
            self._pod.node.reactor.forget(self._sock.fileno())
        self._sock.close()

    def _on_event_in_turn(self, events: int) -> None:
        """One connection, and then to the end of the line. The kernel wakes whoever registered first, again and again:
        all connections of a pool that opens slowly would end in one worker (nginx, ngx_reorder_accept_events)."""
        self.on_event(events, 1)
        if self._open:
            reactor = self._pod.node.reactor
            reactor.forget(self._sock.fileno())
            reactor.watch(self._sock.fileno(), self._on_event_in_turn, _ONE_WORKER)

    def on_event(self, events: int, accepts: int = ACCEPTS_A_TURN) -> None:
        for _ in range(accepts):
            try:
                # socket.accept() without the class around it, which is written in Python and looks up two enumerations:
                # 2 of 6.5 µs.
                fd, peer = self._sock._accept()  # type: ignore[attr-defined]
                accepted = socket.SocketType(self._family, _SOCK_STREAM, 0, fd)
            except BlockingIOError:
                return
            except OSError as error:
                self._pod.node.count("headgate_accept_errors", reason=error.strerror or "unknown")
                if error.errno != errno.ECONNABORTED:  # else: the client gave up while it was queued
                    self._rest()
                return
            self._admit(accepted, peer[0])

    def _rest(self) -> None:
        """EMFILE, ENFILE, ENOBUFS: the queue keeps the connections, and what ends meanwhile frees descriptors. Without
        the pause the loop would turn on this event alone."""
        reactor = self._pod.node.reactor
        reactor.forget(self._sock.fileno())
        self._open = False
        reactor.call_later(REST_S, lambda: None if self._sock.fileno() < 0 else self.open())

    def _admit(self, accepted: socket.SocketType, host: str) -> None:
        pod = self._pod
        node = pod.node
        stream = Stream(node.reactor, accepted, NOBODY)
        told = original_sockaddr(accepted)
        known = self._destinations.get(told)
        if known is not None and node.policy is not None and known.generation == node.policy.generation:
            client = ClientConnection(pod, self._direction, stream, host, known.original)
            stream.start()
            serve(client, known)
            return
        original = parse_sockaddr(told) if told else own_address(accepted)
        client = ClientConnection(pod, self._direction, stream, host, original)
        if original.port in PROXY_PORTS and self._is_self_call(accepted, original, host):
            node.count("headgate_self_calls", direction=self._direction.value)
            client.close(reset=True)
            return
        stream.start()
        if original.port == PROOF_PORT:
            client.serve(_Proof(client))
            return
        destination = client.destination()
        if told and original.port not in PROXY_PORTS:
            if len(self._destinations) >= MAX_REMEMBERED:
                self._destinations.clear()
            self._destinations[told] = destination
        serve(client, destination)

    def _is_self_call(self, accepted: socket.SocketType, original: SocketAddress, caller: str) -> bool:
        """Inbound to a proxy port, or outbound to this pod's own: it would come back here (ztunnel: illegal_ports)."""
        if self._direction is Direction.INBOUND:
            return True
        if original.host == "::1" or original.host.startswith("127."):
            return True
        # Nobody redirected it: it is for the listener itself, and from outside where inbound is not captured.
        return original.host == caller or original == _own_address(accepted)


def _own_address(accepted: socket.SocketType) -> SocketAddress | None:
    with suppress(OSError):  # reset meanwhile
        return own_address(accepted)
    return None


class _Proof:
    """Owner of a connection to PROOF_PORT until it has said whether it is the agent's proof (agent/kernel/probe.py)."""

    __slots__ = ("_buffer", "_client", "_seen")

    protocol = "detecting"

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._buffer = b""
        self._seen = False

    def on_connected(self, stream: Stream) -> None: ...

    def on_drained(self, stream: Stream) -> None: ...

    def on_connect_failed(self, stream: Stream, reason: str) -> None: ...

    def on_data(self, stream: Stream, data: bytes) -> None:
        self._buffer += data
        if data and len(self._buffer) < PROOF_BYTES and b"HEADGATE-PROOF ".startswith(self._buffer[:15]):
            return
        proof = PROOF.fullmatch(self._buffer)
        client = self._client
        if proof is None:
            if self._buffer:
                serve_by_protocol(client, self._buffer)
            else:
                client.close()
            return
        report = ProofReport(
            proof.group(1).decode(),
            client.pod.netns_cookie,
            client.direction,
            client.original.host,
            client.original.port,
        )
        client.node.report_proof(report)
        stream.send(PROVED)
        client.close()

    def expire(self, now_s: float) -> None:
        """The agent sends its proof at once: who is silent from one tick to the next is somebody else."""
        if self._seen:
            serve_by_protocol(self._client, self._buffer)
        self._seen = True

    def course(self) -> Course:
        return NO_COURSE

    def drain(self, patient: bool) -> None: ...

    def abort(self) -> None:
        self._client.close()
