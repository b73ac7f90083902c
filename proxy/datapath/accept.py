"""A pod's listeners: what the kernel led there is accepted, told apart from self-calls and proofs, and handed on."""

import errno
import re
import socket
from typing import Final

from proxy.api.constants import PROOF_PORT, PROXY_PORTS
from proxy.datapath.client import ClientConnection
from proxy.datapath.detect import serve_by_protocol
from proxy.datapath.original_destination import original_destination
from proxy.datapath.pod import Pod, ProofReport
from proxy.datapath.stream import Stream
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction

ACCEPTS_A_TURN: Final = 64
"""Then the connections that are there already get their turn (nginx accepts all, which starves them)."""

REST_S: Final = 0.1
"""Pause after descriptors or memory ran out; nginx waits 0.5 s (accept_mutex_delay)."""

PROOF: Final = re.compile(rb"HEADGATE-PROOF ([0-9a-f]{32})\n")
PROOF_BYTES: Final = 48
PROVED: Final = b"HEADGATE-PROVED\n"


class Listener:
    """One listening socket of a pod: a direction and an address family. Accepts only between `open` and `close`."""

    __slots__ = ("_direction", "_open", "_pod", "_sock")

    def __init__(self, pod: Pod, direction: Direction, sock: socket.socket) -> None:
        self._pod = pod
        self._direction = direction
        self._sock = sock
        self._open = False
        sock.setblocking(False)

    def open(self) -> None:
        """Idempotent."""
        if not self._open:
            self._open = True
            self._pod.node.reactor.watch(self._sock.fileno(), self.on_event)

    def close(self) -> None:
        """The queue's connections stay with whoever holds the socket still (the supervisor)."""
        if self._open:
            self._open = False
            self._pod.node.reactor.forget(self._sock.fileno())
        self._sock.close()

    def on_event(self, events: int) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                accepted, peer = self._sock.accept()
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

    def _admit(self, accepted: socket.socket, host: str) -> None:
        pod = self._pod
        original = original_destination(accepted)
        stream = Stream(pod.node.reactor, accepted, _NOBODY)
        client = ClientConnection(pod, self._direction, stream, host, original)
        if original.port in PROXY_PORTS and self._is_self_call(original, host):
            pod.node.count("headgate_self_calls", direction=self._direction.value)
            client.close(reset=True)
            return
        stream.start()
        if original.port == PROOF_PORT:
            client.serve(_Proof(client))
        else:
            serve_by_protocol(client)

    def _is_self_call(self, original: SocketAddress, caller: str) -> bool:
        """Inbound to a proxy port, or outbound to this pod's own: it would come back here (ztunnel: illegal_ports)."""
        if self._direction is Direction.INBOUND:
            return True
        if original.host == "::1" or original.host.startswith("127."):
            return True
        return original.host == caller


class _Proof:
    """Owner of a connection to PROOF_PORT until it has said whether it is the agent's proof (agent/kernel/probe.py)."""

    __slots__ = ("_buffer", "_client", "_seen")

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

    def drain(self) -> None: ...

    def abort(self) -> None:
        self._client.close()


class _Nobody:
    """Owner of a stream in the instant before it is served."""

    def on_connected(self, stream: Stream) -> None: ...

    def on_drained(self, stream: Stream) -> None: ...

    def on_connect_failed(self, stream: Stream, reason: str) -> None: ...

    def on_data(self, stream: Stream, data: bytes) -> None: ...


_NOBODY: Final = _Nobody()
