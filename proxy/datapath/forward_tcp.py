"""Bytes both ways, unread: opaque protocols, HTTP/2 and TLS for now, and HTTP connections that became tunnels.

Each direction ends by itself (half-close): the end of one side is told to the other after its last byte, and the relay
is over when both have ended. A reset of one side resets the other.
"""

from typing import Final

from proxy.datapath.client import ClientConnection, Course
from proxy.datapath.destinations import Destination
from proxy.datapath.stream import Stream
from proxy.datapath.upstream import Upstream
from proxy.model.direction import Direction

IDLE_TIMEOUT_S: Final = 3600.0
"""Envoy's tcp_proxy idle_timeout."""


def relay_opaque(client: ClientConnection, destination: Destination, early: bytes) -> None:
    """Connect to the destination's own choice for what is not HTTP, and relay; `early` was read from the client."""
    upstream = l4_choice(client, destination)
    if upstream is None:
        client.node.count("headgate_tcp_refused", reason="UH")
        client.close(reset=True)
        return
    connection = Relay(client, upstream)
    try:
        stream = upstream.take(connection, fresh=True)
    except OSError:
        client.node.count("headgate_tcp_refused", reason="UF")
        client.close(reset=True)
        return
    connection.join(stream, early, b"")


def l4_choice(client: ClientConnection, destination: Destination) -> Upstream | None:
    """Where bytes go that no rule can look into. None: no endpoint."""
    if destination.direction is Direction.INBOUND:
        return client.inbound_upstream(destination)
    return destination.opaque.choose(client.node.chance)


def relay(
    client: ClientConnection, upstream: Upstream, stream: Stream, from_client: bytes = b"", from_server: bytes = b""
) -> None:
    """Join two streams; `from_client` and `from_server` were read from them and not yet forwarded."""
    Relay(client, upstream).join(stream, from_client, from_server)


class Relay:
    """Owner of both streams of a connection until it is over."""

    __slots__ = ("_client", "_ended", "_received", "_sent", "_server", "_since_s", "_upstream", "_waiting_ends")

    protocol = "tcp"

    def __init__(self, client: ClientConnection, upstream: Upstream) -> None:
        self._client = client
        self._upstream = upstream
        self._server: Stream = client.stream  # until `join`
        self._sent = 0  # from client to server
        self._received = 0
        self._ended = 0  # directions that have ended
        self._waiting_ends: list[Stream] = []  # to be half-closed once they have drained
        self._since_s = 0.0

    def join(self, server: Stream, from_client: bytes, from_server: bytes) -> None:
        self._server = server
        server.owner = self
        self._client.serve(self)
        self._upstream.active += 1
        self._upstream.tcp_series().opened += 1
        client = self._client.stream
        server.resume()
        client.resume()
        if from_client:
            self.on_data(client, from_client)
        if from_server:
            self.on_data(server, from_server)

    # ── StreamOwner ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_connected(self, stream: Stream) -> None:
        if stream in self._waiting_ends and not stream.outgoing:  # the client ended without a word
            self._waiting_ends.remove(stream)
            self._end(stream)

    def on_connect_failed(self, stream: Stream, reason: str) -> None:
        self._client.node.count("headgate_tcp_refused", reason="UF")
        self._close(reset=True)

    def on_data(self, stream: Stream, data: bytes) -> None:
        client = self._client.stream
        other = self._server if stream is client else client
        if data:
            if stream is client:
                self._sent += len(data)
            else:
                self._received += len(data)
            other.send(data)
            if other.outgoing:
                stream.hold_back()
            return
        if stream.failed:
            self._close(reset=True)
            return
        self._ended += 1
        if self._ended == 2 and not self._waiting_ends and not other.outgoing:
            self._close(reset=False)
            return
        stream.pause()
        if other.outgoing or other.connecting:
            self._waiting_ends.append(other)
        else:
            self._end(other)

    def on_drained(self, stream: Stream) -> None:
        if stream in self._waiting_ends:
            self._waiting_ends.remove(stream)
            self._end(stream)
        else:
            client = self._client.stream
            (self._server if stream is client else client).resume()

    # ── ClientOwner ────────────────────────────────────────────────────────────────────────────────────────────────

    def expire(self, now_s: float) -> None:
        self._server.expire(now_s)
        if self._sent or self._received or not self._since_s:
            self._since_s = now_s
            self._report()
        elif now_s - self._since_s > IDLE_TIMEOUT_S:
            self._close(reset=False)

    def course(self) -> Course:
        return Course(self._upstream.service, "", self._upstream, self._server)

    def drain(self, patient: bool) -> None: ...

    def abort(self) -> None:
        self._close(reset=True)

    # ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self, stream: Stream) -> None:
        if self._ended == 2 and not self._waiting_ends:
            self._close(reset=False)
        else:
            stream.end()

    def _close(self, reset: bool) -> None:
        if self._client.stream.fd < 0 and self._server.fd < 0:
            return
        self._report()
        self._upstream.active -= 1
        self._upstream.tcp_series().closed += 1
        self._server.close(reset)
        self._client.close(reset)

    def _report(self) -> None:
        """Bytes so far: a long connection shows up in the metrics while it lives. Directions as Istio counts them:
        sent is what the caller received (istio/istio issue 32399)."""
        series = self._upstream.tcp_series()
        series.received_bytes += self._sent
        series.sent_bytes += self._received
        self._sent = self._received = 0
