"""One request and its response: choosing an upstream, trying again where that is safe, bringing the answer back."""

import time
from typing import Final, Protocol

from proxy.datapath.destinations import Destination, RuleState
from proxy.datapath.stream import Stream
from proxy.datapath.upstream import Upstream
from proxy.http1.chunked import MORE, ChunkedBody
from proxy.http1.errors import ProtocolError
from proxy.http1.grammar import MAX_REMEMBERED_BYTES
from proxy.http1.reply import LocalReply
from proxy.http1.request import CHUNKED, RequestHead
from proxy.http1.response import NO_RESPONSE, UNTIL_CLOSE, ResponseHead, check_begun_response, parse_response
from proxy.policy.retry import Failure, back_off_s, exhausted, may_reconnect, may_retry

MAX_INTERIM_RESPONSES: Final = 100
"""Of 1xx before the answer. Go's client stopped at 5 for years (net/http max1xxResponses); a flood is an attack."""

_HEAD: Final = -3
"""`_left` while the response's head is awaited; afterwards bytes of its body, CHUNKED or UNTIL_CLOSE."""


class Client(Protocol):
    """What an exchange needs of the connection that the request came on."""

    stream: Stream

    def inbound_upstream(self, destination: Destination) -> Upstream:
        """The pod's own application, as this client reaches it."""

    def answer(self, reply: LocalReply) -> None:
        """Answer in the upstream's stead; the exchange is over."""

    def finished(self, keep_alive: bool) -> None:
        """The whole response was handed to the client's stream, or that stream was closed."""

    def tunnel(self, upstream: Upstream, stream: Stream, early: bytes) -> None:
        """The server agreed to leave HTTP; `early` are its bytes behind the head."""


class Exchange:
    """In flight from `begin` until it calls one of its client's methods, or its client calls `cancel`."""

    __slots__ = (
        "_again",
        "_closing",
        "_destination",
        "_interims",
        "_left",
        "_partial",
        "_pool",
        "_reusable",
        "_rule",
        "_scanner",
        "_started_ns",
        "_status",
        "_tries",
        "_unsent",
        "client",
        "request",
        "request_bytes",
        "request_done",
        "response_bytes",
        "stream",
        "upstream",
    )

    def __init__(
        self, client: Client, destination: Destination, request: RequestHead, request_done: bool, started_ns: int
    ) -> None:
        self.client = client
        self.request = request
        self.request_bytes = 0
        self.request_done = request_done  # the body has been handed over whole
        self.response_bytes = 0
        self.stream: Stream | None = None
        self.upstream = destination.nowhere
        self._destination = destination
        self._rule: RuleState | None = None
        self._pool = destination.opaque
        self._started_ns = started_ns
        self._tries = 0
        self._again = b""  # what would be sent on another connection
        self._unsent = b""  # waits for the next try
        self._partial = b""  # of the response's head
        self._interims = 0
        self._status = 0
        self._left = _HEAD
        self._reusable = False
        self._closing = False
        self._scanner: ChunkedBody | None = None

    # ── Towards the server ─────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, payload: bytes) -> None:
        """Choose an upstream and send `payload`: the head and what has come of the body."""
        destination = self._destination
        self.request_bytes = len(payload)
        # A request whose body has begun to flow is not repeated.
        self._again = payload if self.request.body_length == 0 else b""
        if destination.inbound:
            self._open(self.client.inbound_upstream(destination), payload)
        elif destination.refused:
            self._answer(500, "-", destination.refused)
        else:
            self._rule = destination.rules[0]
            self._pool = self._rule.next_pool()
            self._choose(payload, None)

    def send_body(self, data: bytes) -> None:
        """More of the request's body; the client is paused while the server is slower."""
        self.request_bytes += len(data)
        if self.stream is None:  # between two tries
            self._unsent += data
            self.client.stream.pause()
            return
        self.stream.send(data)
        if self.stream.outgoing:
            self.client.stream.hold_back()

    def cancel(self, status: int, flags: str) -> None:
        """The client is gone, or broke the protocol: the server learns it at once. `status` 0: nothing was answered."""
        self._leave(reset=True)
        self._rule = None  # no further try
        self._record(status, flags)

    def make_last(self) -> None:
        """The client's connection ends with this response; one whose head has gone out is followed by the close."""
        self.request = self.request._replace(keep_alive=False)
        self._closing = True

    def expire(self, now_s: float) -> None:
        if self.stream is not None:
            self.stream.expire(now_s)

    @property
    def owes_body(self) -> bool:
        """Bytes are due: of the request, of a response whose length is known, or to a client that does not read. A
        response of unknown length may be a stream of events, silent for as long as there are none."""
        return not self.request_done or self._left > 0 or bool(self.client.stream.outgoing)

    def moved_bytes(self) -> int:
        """Grows as long as anybody sends, reads or acknowledges."""
        moved = self.request_bytes + self.response_bytes - self.client.stream.unsent_bytes()
        return moved if self.stream is None else moved - self.stream.unsent_bytes()

    def give_up(self, explanation: str) -> None:
        """Nothing has moved for too long. 408 when it is the client that sends no more, as Envoy."""
        by_server = self.request_done or (self.stream is not None and bool(self.stream.outgoing))
        self._leave(reset=True)
        self._rule = None  # no further try
        self._answer(504 if by_server else 408, "SI", explanation)

    @property
    def route(self) -> str:
        """Of the rule that it follows; "" inbound, and where no object says more than the Service."""
        destination = self._destination
        if destination.service_port is None:
            return ""
        named = zip(destination.rules, destination.service_port.rules, strict=True)
        return next((rule.name for state, rule in named if state is self._rule), "")

    @property
    def answered(self) -> bool:
        """The response has begun: no other answer is possible."""
        return self._left != _HEAD

    def _choose(self, payload: bytes, besides: Upstream | None) -> None:
        pool = self._pool
        if pool.missing:
            self._answer(503, "NC", pool.missing)
            return
        upstream = pool.choose(self._destination.pod.node.chance, besides)
        if upstream is None:
            self._answer(503, "UH", f"no ready endpoint for {pool.name}: look at the Service's EndpointSlices")
            return
        self._open(upstream, payload)

    def _open(self, upstream: Upstream, payload: bytes, fresh: bool = False) -> None:
        self.upstream = upstream
        try:
            stream = upstream.take(self, fresh)
        except OSError as error:
            self._answer(503, "UF", f"no socket towards {upstream.address}: {error.strerror}")
            return
        upstream.active += 1
        self.stream = stream
        stream.send(payload)

    # ── What the server does (StreamOwner) ─────────────────────────────────────────────────────────────────────────

    def on_connected(self, stream: Stream) -> None: ...

    def on_drained(self, stream: Stream) -> None:
        self.client.stream.resume()

    def on_connect_failed(self, stream: Stream, reason: str) -> None:
        """Nothing was sent, so any method may be tried again, at another endpoint if there is one."""
        self._unsent = stream.outgoing
        self._leave()
        rule = self._rule
        if rule is not None and may_retry(rule.retry, Failure.CONNECT_FAILED, self._tries):
            self._tries += 1
            node = self._destination.pod.node
            delay_s = back_off_s(rule.retry, self._tries, node.chance.random())
            node.reactor.call_later(delay_s, self._try_again)
            return
        what = f"cannot connect to {self.upstream.address} of {self._destination.service.host}: {reason}"
        flags = "UF,URX" if rule is not None and exhausted(rule.retry, Failure.CONNECT_FAILED, self._tries) else "UF"
        self._answer(503, flags, f"{what} (tries: {self._tries + 1}); does the server listen there?")

    def on_data(self, stream: Stream, data: bytes) -> None:
        try:
            if self._left == _HEAD:
                self._on_head(stream, data)
            else:
                self._on_body(stream, b"", data)
        except ProtocolError as error:
            self._leave(reset=True)
            self._answer(502, "UPE", f"{self.upstream.address}: {error.explanation}")

    def _try_again(self) -> None:
        """In the same backend: a retry changes nothing of the split (Envoy chooses the weighted cluster once)."""
        if self._rule is None:
            return
        self._choose(self._unsent, self.upstream)
        if self.stream is not None and not self.stream.outgoing:
            self.client.stream.resume()

    def _on_head(self, stream: Stream, data: bytes) -> None:
        if not data:
            self._closed_before_head(stream)
            return
        self._again = b""
        buffer = self._partial + data if self._partial else data
        end = buffer.find(b"\r\n\r\n") + 4
        if end == 3:
            check_begun_response(buffer)
            self._partial = buffer
            return
        if end == len(buffer):
            head, rest = buffer, b""
        else:
            head, rest = buffer[:end], buffer[end:]
        request = self.request
        # As with requests: within a second, most servers' heads to like requests are alike.
        if head == stream.last_head and request.method != b"HEAD":
            response = stream.last_response
        else:
            response = self._understand(stream, head)
        status = self._status = response.status
        if status < 200:
            self._on_interim(stream, response, rest)
            return
        if status < 300 and request.method == b"CONNECT":
            self._become_tunnel(stream, response, rest)
            return
        self._left = response.body_length
        self._reusable = response.reusable
        # A refused upgrade closes too: what the client sends next may not be HTTP.
        self._closing = (
            not (request.keep_alive and self.request_done) or response.body_length == UNTIL_CLOSE or request.upgrade
        )
        forward = response.forward
        if self._closing:
            forward = forward[:-2] + b"Connection: close\r\n\r\n"
        self._on_body(stream, forward, rest)

    def _understand(self, stream: Stream, head: bytes) -> ResponseHead:
        to_head_request = self.request.method == b"HEAD"
        response = parse_response(head, to_head_request)
        if to_head_request or len(head) > MAX_REMEMBERED_BYTES:
            stream.last_head = b""
            stream.last_response = NO_RESPONSE
        else:
            stream.last_head = head
            stream.last_response = response
        return response

    def _on_interim(self, stream: Stream, response: ResponseHead, rest: bytes) -> None:
        """1xx: goes to the client, and the real answer follows (RFC 9110 section 15.2)."""
        if response.status == 101:
            if not self.request.upgrade:
                raise ProtocolError(502, "http1.unexpected_upgrade", "the server left HTTP without being asked to")
            self._become_tunnel(stream, response, rest)
            return
        self._interims += 1
        if self._interims > MAX_INTERIM_RESPONSES:
            raise ProtocolError(502, "http1.too_many_interim", f"more than {MAX_INTERIM_RESPONSES} answers of 1xx")
        self._partial = b""
        self.client.stream.send(response.forward)
        if rest:
            self._on_head(stream, rest)

    def _on_body(self, stream: Stream, head: bytes, data: bytes) -> None:
        """Forward `head` (once, with the first of the body) and `data`, and see whether that was all."""
        if not data and not head:
            self._ended_in_body(stream)
            return
        left = self._left
        used = len(data)
        if left >= 0:
            used = min(used, left)
            left = self._left = left - used
            done = left == 0
        elif left == CHUNKED:
            if self._scanner is None:
                self._scanner = ChunkedBody(502)
            end = self._scanner.scan(data)
            done = end != MORE
            if done:
                used = end
        else:
            done = False
        surplus = used < len(data)
        payload = head + (data[:used] if surplus else data)
        self.response_bytes += len(payload)
        client = self.client.stream
        client.send(payload)
        if done:
            self._complete(stream, surplus)
        elif client.outgoing:
            stream.hold_back()

    def _complete(self, stream: Stream, surplus: bool) -> None:
        now_ns = time.monotonic_ns()
        self.stream = None
        upstream = self.upstream
        upstream.active -= 1
        # Bytes behind the response were asked for by nobody: whoever came next would take them for its own answer.
        if surplus or not self._reusable or not self.request_done:
            stream.close(reset=not self.request_done)
        else:
            upstream.give_back(stream, now_ns / 1e9)
        duration_ms = (now_ns - self._started_ns) / 1e6
        status = self._status
        series = upstream.answered.get(status) or upstream.series(status, "-")
        series.record(duration_ms, self.request_bytes, self.response_bytes)
        self.client.finished(not self._closing)

    def _ended_in_body(self, stream: Stream) -> None:
        self._leave()
        if self._left == UNTIL_CLOSE and not stream.failed:
            self._record(self._status, "-")
            self.client.finished(False)
        else:
            # Never a final chunk: the client must see that the body is not whole.
            self._abandon("UR")

    def _closed_before_head(self, stream: Stream) -> None:
        self._leave()
        if may_reconnect(stream.reused, len(self._partial), not self._again):
            self._open(self.upstream, self._again, fresh=True)
            return
        did = "reset" if stream.failed else "closed"
        where = f"{self.upstream.address} of {self._destination.service.host}"
        self._answer(503, "UC", f"{where} {did} the connection before answering: see that server's log")

    def _become_tunnel(self, stream: Stream, response: ResponseHead, rest: bytes) -> None:
        self.stream = None
        self.client.stream.send(response.forward)
        self._record(response.status, "-")
        self.upstream.active -= 1
        self.client.tunnel(self.upstream, stream, rest)

    # ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _leave(self, reset: bool = False) -> None:
        if self.stream is not None:
            self.upstream.active -= 1
            self.stream.close(reset)
            self.stream = None

    def _answer(self, status: int, flags: str, explanation: str) -> None:
        """Answer ourselves; once a response has begun that is impossible, and only the end of the connection tells."""
        if self.answered:
            self._abandon(flags)
            return
        self._record(status, flags)
        self.client.answer(LocalReply(status, flags, explanation))

    def _abandon(self, flags: str) -> None:
        self._record(self._status, flags)
        self.client.stream.close(reset=True)
        self.client.finished(False)

    def _record(self, status: int, flags: str) -> None:
        duration_ms = (time.monotonic_ns() - self._started_ns) / 1e6
        self.upstream.series(status, flags).record(duration_ms, self.request_bytes, self.response_bytes)
