"""HTTP/1.1 on a pod's client connection: heads and bodies of requests, one exchange after the other.

The common request costs four system calls (receive, send, receive, send) and one pass over each head; everything else
is off that path. Bodies go on as they come, in both directions, and wait when the other side is slower.
"""

import time
from typing import Final

from proxy.datapath.client import ClientConnection, Course
from proxy.datapath.destinations import Destination
from proxy.datapath.exchange import Exchange
from proxy.datapath.forward_tcp import relay, relay_opaque
from proxy.datapath.linger import linger
from proxy.datapath.stream import Stream
from proxy.datapath.upstream import Upstream
from proxy.http1.chunked import MORE, ChunkedBody
from proxy.http1.errors import ProtocolError
from proxy.http1.grammar import EMPTY_LINES, HEAD_START, MAX_HEAD_BYTES, MAX_REMEMBERED_BYTES
from proxy.http1.reply import LocalReply, render_reply
from proxy.http1.request import CHUNKED, NO_REQUEST, RequestHead, parse_request
from proxy.http1.sniff import HTTP2_PREFACE
from proxy.model.direction import Direction
from proxy.model.workload import NOBODY
from proxy.policy.host import names_another_service
from proxy.telemetry.series import CounterKey

HEAD_TIMEOUT_S: Final = 30.0
"""From the first byte of a head to its last. Envoy and Linkerd have none, which is an invitation (slowloris); nginx's
client_header_timeout is 60 s, HAProxy's documentation advises 5 to 30 s."""

IDLE_TIMEOUT_S: Final = 3600.0
"""Between requests (Envoy's common_http_protocol_options.idle_timeout)."""

STALL_TIMEOUT_S: Final = 300.0
"""A body, of which nothing has moved for so long, has been given up (Envoy's stream_idle_timeout)."""

MAX_PIPELINED_BYTES: Final = 64 * 1024
"""What is read ahead of the current exchange."""


_HOST_MISMATCH: Final = CounterKey("headgate_host_mismatch", (), ())
"""Requests whose Host names another Service than the one that owns the address: the address wins (DESIGN 7)."""


class HttpConnection:
    """Owner of a client's stream while it speaks HTTP/1.1. Serves pipelined requests in turn."""

    __slots__ = (
        "_body_left",
        "_buffer",
        "_destination",
        "_exchange",
        "_host_differs",
        "_last_head",
        "_last_request",
        "_moved_bytes",
        "_scanner",
        "_serving",
        "_since_s",
        "client",
        "stream",
    )

    protocol = "http"

    def __init__(self, client: ClientConnection, destination: Destination) -> None:
        self.client = client
        self.stream = client.stream
        self._destination = destination
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._body_left = 0  # of the current request: bytes, or CHUNKED
        self._scanner: ChunkedBody | None = None
        self._serving = False
        self._last_head = b""
        self._last_request = NO_REQUEST
        self._host_differs = False  # in the last request
        self._since_s = 0.0  # when the tick first saw this connection waiting as it waits now
        self._moved_bytes = 0  # of the exchange in flight, then

    # ── What the client does (StreamOwner) ─────────────────────────────────────────────────────────────────────────

    def on_connected(self, stream: Stream) -> None: ...

    def on_connect_failed(self, stream: Stream, reason: str) -> None: ...

    def on_drained(self, stream: Stream) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.stream is not None:
            exchange.stream.resume()

    def on_data(self, stream: Stream, data: bytes) -> None:
        if not data:
            self._client_left()
        elif self._exchange is None:
            if self._buffer:
                self._buffer += data
            else:
                self._buffer = data
                self._since_s = 0.0  # the time for a head begins with its first byte
            self._serve()
        elif self._body_left:
            self._more_body(data)
        else:
            self._buffer += data
            if len(self._buffer) > MAX_PIPELINED_BYTES:
                stream.pause()

    def expire(self, now_s: float) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.expire(now_s)
            if self._exchange is exchange:
                self._expire_exchange(exchange, now_s)
            return
        if not self._since_s:
            self._since_s = now_s
        elif now_s - self._since_s > (HEAD_TIMEOUT_S if self._buffer else IDLE_TIMEOUT_S):
            if self._buffer:
                self._refuse(ProtocolError(408, "request_headers_timeout", f"no whole head in {HEAD_TIMEOUT_S:.0f} s"))
            else:
                self.client.close()

    def _expire_exchange(self, exchange: Exchange, now_s: float) -> None:
        if not exchange.owes_body:
            self._since_s = 0.0
            return
        moved_bytes = exchange.moved_bytes()
        if not self._since_s or moved_bytes != self._moved_bytes:
            self._since_s = now_s
            self._moved_bytes = moved_bytes
        elif now_s - self._since_s > STALL_TIMEOUT_S:
            exchange.give_up(f"no byte of the request's or the response's body moved for {STALL_TIMEOUT_S:.0f} s")

    def course(self) -> Course:
        exchange = self._exchange
        if exchange is None:
            return Course(self._destination.service)
        return Course(self._destination.service, exchange.route, exchange.upstream, exchange.stream)

    def drain(self, patient: bool) -> None:
        """Idle: closed now, or if `patient` after one more request. Busy: the answer under way is the last, and says
        so to the client; `patient`: if it can still say so, else the next one will."""
        exchange = self._exchange
        self._last_head = b""  # the next request is looked at anew: see _next_request
        if exchange is None:
            if not patient:
                linger(self.client, drained=not self._buffer)
        elif not patient or not exchange.answered:
            exchange.make_last()

    def abort(self) -> None:
        if self._exchange is not None:
            self._exchange.cancel(0, "UC")
        self.client.close(reset=True)

    # ── What the exchange asks and tells ───────────────────────────────────────────────────────────────────────────

    def inbound_upstream(self, destination: Destination) -> Upstream:
        return self.client.inbound_upstream(destination)

    def answer(self, reply: LocalReply) -> None:
        exchange = self._exchange
        assert exchange is not None
        request = exchange.request
        keep_alive = request.keep_alive and exchange.request_done and not request.upgrade
        self.stream.send(render_reply(reply, keep_alive, request.method == b"HEAD", self._explains()))
        self.finished(keep_alive)

    def finished(self, keep_alive: bool) -> None:
        self._exchange = None
        self._since_s = 0.0
        if not keep_alive:
            linger(self.client, drained=self._body_left == 0 and not self._buffer)
        else:
            if self.stream.paused:
                self.stream.resume()
            if self._buffer and not self._serving:
                self._serve()

    def tunnel(self, upstream: Upstream, stream: Stream, early: bytes) -> None:
        self._exchange = None
        relay(self.client, upstream, stream, from_client=self._buffer, from_server=early)

    # ── Requests ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self) -> None:
        """Every request that is whole enough to begin. A loop: a local answer comes back before `begin` returns."""
        self._serving = True
        while self._buffer and self._exchange is None and self.stream.owner is self and self.stream.fd >= 0:
            try:
                if not self._next_request():
                    break
            except ProtocolError as error:
                self._on_unsound_head(error)
        self._serving = False

    def _next_request(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n") + 4
        if end == 3:
            return self._unfinished_head(buffer)
        started_ns = time.monotonic_ns()
        if end == len(buffer):
            head, rest = buffer, b""
        else:
            head, rest = buffer[:end], buffer[end:]
        # Pollers, health checks and many clients repeat a head byte for byte; comparing costs the others 40 ns.
        if head == self._last_head:
            request = self._last_request
        else:
            request = self._understand(head)
        payload = request.forward
        length = request.body_length
        if length == 0:
            self._buffer = rest
            done = True
        else:
            used = self._begin_body(length, rest)
            payload += rest[:used]
            self._buffer = rest[used:]
            done = self._body_left == 0
        destination = self._destination
        client = self.client
        policy = client.node.policy
        if policy is not None and destination.generation != policy.generation:
            destination = self._destination = client.destination()
        if self._host_differs:
            client.node.telemetry.count(_HOST_MISMATCH)
        exchange = self._exchange = Exchange(self, destination, request, done, started_ns)
        exchange.begin(payload)
        return True

    def _understand(self, head: bytes) -> RequestHead:
        """A head unlike the one before. A new connection's first is often the one that came last by another."""
        destination = self._destination
        short = len(head) <= MAX_REMEMBERED_BYTES
        if head == destination.last_head:
            head = destination.last_head  # the same bytes, once in memory
            request = destination.last_request
        else:
            request = parse_request(head)
        if self.client.pod.draining:
            request = request._replace(keep_alive=False)
        elif short:
            destination.last_head = head
            destination.last_request = request
        self._last_head = head if short else b""
        self._last_request = request if short else NO_REQUEST
        self._host_differs = destination.service_port is not None and names_another_service(
            request.host, destination.service.host
        )
        return request

    def _unfinished_head(self, buffer: bytes) -> bool:
        if len(buffer) > MAX_HEAD_BYTES:
            raise ProtocolError(431, "http1.headers_too_big", f"a request head over {MAX_HEAD_BYTES} bytes")
        if b"\n\n" in buffer or b"\n\r\n" in buffer or not HEAD_START.match(buffer):
            raise ProtocolError(400, "http1.codec_error", "no head of HTTP/1.x begins so, or a line ends in LF alone")
        return False

    def _begin_body(self, length: int, rest: bytes) -> int:
        """How much of `rest` belongs to the body that begins there."""
        if length == CHUNKED:
            self._scanner = ChunkedBody(400)
            end = self._scanner.scan(rest)
            self._body_left = CHUNKED if end == MORE else 0
            return len(rest) if end == MORE else end
        used = min(length, len(rest))
        self._body_left = length - used
        return used

    def _more_body(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        used = len(data)
        if self._body_left == CHUNKED:
            assert self._scanner is not None
            try:
                end = self._scanner.scan(data)
            except ProtocolError as error:
                self._break_off(exchange, error)
                return
            if end != MORE:
                used = end
                self._body_left = 0
        else:
            used = min(used, self._body_left)
            self._body_left -= used
        if used < len(data):
            self._buffer = data[used:]
            data = data[:used]
        exchange.request_done = self._body_left == 0
        exchange.send_body(data)

    # ── Ends ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _break_off(self, exchange: Exchange, error: ProtocolError) -> None:
        """The body turned out unsound while it was being forwarded: the server must not take it for whole."""
        answered = exchange.answered
        exchange.cancel(error.status, "DPE")
        self._exchange = None
        if answered:
            self.client.close(reset=True)
        else:
            self._say(error)

    def _on_unsound_head(self, error: ProtocolError) -> None:
        """What is no request of HTTP/1 and yet no mistake is looked for only now: it costs the others nothing."""
        buffer = self._buffer
        if buffer.startswith(HTTP2_PREFACE):
            self._become_opaque()
        elif buffer.startswith(b"\r\n"):  # RFC 9112 section 2.2: an empty line before a request is ignored
            self._buffer = EMPTY_LINES.sub(b"", buffer, count=1)
        else:
            self._refuse(error)

    def _refuse(self, error: ProtocolError) -> None:
        self._destination.nowhere.series(error.status, "DPE").record(0.0, len(self._buffer), 0)
        self._say(error)

    def _say(self, error: ProtocolError) -> None:
        reply = LocalReply(error.status, "DPE", f"{error.details}: {error.explanation}")
        self.stream.send(render_reply(reply, False, False, self._explains()))
        linger(self.client, drained=False)

    def _client_left(self) -> None:
        """Also when it only half-closed: like Envoy, no client that stops talking waits for an HTTP/1 answer."""
        if self._exchange is not None:
            self._exchange.cancel(0, "DC")
            self._exchange = None
        self.client.close()

    def _become_opaque(self) -> None:
        self.client.node.count("headgate_detection", outcome="http2")
        relay_opaque(self.client, self._destination, self._buffer)

    def _explains(self) -> bool:
        """Names of pods and objects stay inside the mesh."""
        client = self.client
        if client.direction is Direction.OUTBOUND:
            return True
        policy = client.node.policy
        return policy is not None and policy.workloads.get(client.host, NOBODY) is not NOBODY
