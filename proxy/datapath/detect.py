"""Which protocol an undeclared connection speaks: by the client's first bytes, or by who speaks first.

No byte is lost: what was read goes to the forwarder that is chosen. The outcome is counted.
"""

from typing import Final

from proxy.datapath.client import ClientConnection, Course
from proxy.datapath.destinations import Destination
from proxy.datapath.forward_http import HttpConnection
from proxy.datapath.forward_tcp import l4_choice, relay, relay_opaque
from proxy.datapath.stream import Stream
from proxy.datapath.upstream import Upstream
from proxy.http1.sniff import Sniffed, sniff
from proxy.model.routing import Protocol
from proxy.telemetry.series import CounterKey

SILENCE_S: Final = 0.1
"""A client silent for so long may be waiting for the server's greeting (DESIGN 6): the server is connected then."""

PATIENCE_S: Final = 5.0
"""After it nobody's silence matters any more: `tcp`. Between Istio's 0 (for ever) and Linkerd's 10 s."""


# Made once: these two are counted for nearly every connection.
_DECLARED: Final = CounterKey("headgate_detection", ("outcome",), ("declared",))
_HTTP: Final = CounterKey("headgate_detection", ("outcome",), ("http",))


def serve_by_protocol(client: ClientConnection, early: bytes = b"") -> None:
    """Hand the connection to whoever serves what it declares, or find out; `early` was read from it already."""
    serve(client, client.destination(), early)


def serve(client: ClientConnection, destination: Destination, early: bytes = b"") -> None:
    """`serve_by_protocol` where the destination was looked up already."""
    declared = destination.protocol
    if declared is Protocol.HTTP:
        client.node.telemetry.count(_DECLARED)
        _serve_http(client, destination, early)
    elif declared is Protocol.UNDECLARED:
        client.serve(_Detection(client, destination))
        if early:
            client.stream.owner.on_data(client.stream, early)
    else:
        client.node.telemetry.count(_DECLARED)
        relay_opaque(client, destination, early)


def _serve_http(client: ClientConnection, destination: Destination, early: bytes) -> None:
    connection = HttpConnection(client, destination)
    client.serve(connection)
    if early:
        connection.on_data(client.stream, early)


class _Detection:
    """Owner of the client's stream, and of the server's while both are silent."""

    __slots__ = ("_buffer", "_client", "_decided", "_destination", "_server", "_upstream")

    protocol = "detecting"

    def __init__(self, client: ClientConnection, destination: Destination) -> None:
        self._client = client
        self._destination = destination
        self._buffer = b""
        self._decided = False
        self._server: Stream | None = None
        self._upstream: Upstream | None = None
        client.node.reactor.call_later(SILENCE_S, self._on_silence)

    def on_connected(self, stream: Stream) -> None: ...

    def on_drained(self, stream: Stream) -> None: ...

    def on_connect_failed(self, stream: Stream, reason: str) -> None:
        """Told to the client at once, as the server's own kernel would, unless a request may still go elsewhere."""
        self._server = None
        if len(self._destination.opaque.endpoints) <= 1:
            self._client.node.count("headgate_tcp_refused", reason="UF")
            self._decided = True
            self._client.close(reset=True)

    def on_data(self, stream: Stream, data: bytes) -> None:
        if stream is not self._client.stream:
            self._server_spoke(data)
        elif data:
            self._buffer += data
            found = sniff(self._buffer)
            if found is not Sniffed.MORE:
                self._decide(found)
        elif self._buffer:
            self._decide(Sniffed.OTHER)  # ended, with bytes that a server may still want to answer
        else:
            self.abort()

    def expire(self, now_s: float) -> None:
        if self._server is not None:
            self._server.expire(now_s)

    def course(self) -> Course:
        return Course(self._destination.service, "", self._upstream, self._server)

    def drain(self, patient: bool) -> None: ...

    def abort(self) -> None:
        self._decided = True
        if self._server is not None:
            self._server.close()
        self._client.close()

    def _on_silence(self) -> None:
        if self._decided or self._client.stream.fd < 0:
            return
        node = self._client.node
        node.reactor.call_later(PATIENCE_S - SILENCE_S, self._on_patience_over)
        if self._buffer:
            return
        self._upstream = l4_choice(self._client, self._destination)
        if self._upstream is not None:
            try:
                self._server = self._upstream.take(self, fresh=True)
            except OSError:
                node.count("headgate_tcp_refused", reason="UF")

    def _on_patience_over(self) -> None:
        if not self._decided and self._client.stream.fd >= 0:
            self._tcp("timeout", b"")

    def _server_spoke(self, data: bytes) -> None:
        if data:
            self._tcp("server_first", data)
        else:
            self.abort()

    def _decide(self, found: Sniffed) -> None:
        if found is not Sniffed.HTTP1:
            self._tcp(found.value, b"")
            return
        self._decided = True
        self._client.node.telemetry.count(_HTTP)
        if self._server is not None and self._upstream is not None:
            if self._server.connecting:
                self._server.close()
            else:
                self._upstream.give_back(self._server, self._server.since_s)
        _serve_http(self._client, self._destination, self._buffer)

    def _tcp(self, outcome: str, from_server: bytes) -> None:
        self._decided = True
        self._client.node.count("headgate_detection", outcome=outcome)
        if self._server is not None and self._upstream is not None:
            relay(self._client, self._upstream, self._server, self._buffer, from_server)
        else:
            relay_opaque(self._client, self._destination, self._buffer)
