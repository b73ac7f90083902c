"""A request's head: is it sound, how is its body framed, which bytes go upstream.

Strict where leniency lets two parsers see two messages (RFC 9112 section 11.2): every doubt is a refusal.
"""

from typing import Final, NamedTuple

from proxy.http1.errors import ProtocolError
from proxy.http1.grammar import (
    ABSOLUTE_TARGET,
    CONNECTION_FIELDS,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LENGTH_DIGITS,
    REQUEST_HEAD,
    has_forbidden_bytes,
)

CHUNKED: Final = -1
"""`body_length` of a chunked body."""


class RequestHead(NamedTuple):
    """What the forwarder must know. A tuple: made once a request, and nothing in Python is made faster.

    `body_length` is a count of bytes or CHUNKED; `forward` is the head as it goes upstream, in the client's own case
    and order of fields; `upgrade` is set when the connection may become a tunnel (Upgrade or CONNECT).
    """

    method: bytes
    minor_version: int
    host: bytes
    body_length: int
    keep_alive: bool
    upgrade: bool
    forward: bytes


NO_REQUEST: Final = RequestHead(b"", 1, b"", 0, False, False, b"")

_new: Final = tuple.__new__  # half the cost of the named tuple's own constructor


def parse_request(head: bytes) -> RequestHead:
    """`head` runs from the request line through the empty line.

    Raises ProtocolError: 400, 431 (too many fields), 501 (transfer coding).
    """
    if len(head) > MAX_HEAD_BYTES:
        raise ProtocolError(431, "http1.headers_too_big", f"a request head over {MAX_HEAD_BYTES} bytes")
    matched = REQUEST_HEAD.fullmatch(head)
    if matched is None or has_forbidden_bytes(head):
        raise _explain_mismatch(head)
    method, target, minor = matched.group(1, 2, 3)
    http_1_1 = minor == b"1"
    host = length = None
    special = False
    for name, value in CONNECTION_FIELDS.findall(head.lower()):
        if name == b"host" and host is None:
            host = value.rstrip(b" \t")
        elif name == b"content-length" and length is None:
            length = _length(value)
        else:
            # Anything else changes what is forwarded or how: the careful way, off the common path.
            special = True
    if http_1_1 and host is None:
        raise ProtocolError(400, "http1.missing_host_header", "an HTTP/1.1 request carries exactly one Host field")
    if special or not http_1_1 or target[0] != 0x2F or method == b"CONNECT":
        return _parse_special(head, method, target, http_1_1)
    return _new(RequestHead, (method, 1, host or b"", length or 0, True, False, head))


def _length(value: bytes) -> int:
    # bytes.isdigit: ASCII only, no sign, no underscore, unlike `int`.
    digits = value.rstrip(b" \t")
    if not digits.isdigit() or len(digits) > MAX_LENGTH_DIGITS:
        raise ProtocolError(400, "http1.invalid_content_length", "Content-Length is not one plain decimal number")
    return int(digits)


class _Fields:
    """The fields of CONNECTION_FIELDS, each checked for how often it stands there."""

    __slots__ = ("chunked", "close", "hosts", "keep_alive", "length", "nominated", "te", "upgrades")

    def __init__(self, head: bytes) -> None:
        self.hosts: list[bytes] = []
        self.upgrades: list[bytes] = []
        self.nominated: set[bytes] = set()
        self.length: int | None = None
        self.chunked = False
        self.te = False
        for name, value in CONNECTION_FIELDS.findall(head.lower()):
            self._add(name, value.rstrip(b" \t"))
        self.close = b"close" in self.nominated
        self.keep_alive = b"keep-alive" in self.nominated

    def _add(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self.hosts.append(value)
        elif name == b"content-length":
            if self.length is not None:
                raise ProtocolError(400, "http1.multiple_content_length", "more than one Content-Length")
            self.length = _length(value)
        elif name == b"transfer-encoding":
            if self.chunked or value != b"chunked":
                raise ProtocolError(501, "http1.invalid_transfer_encoding", "the only transfer coding is one chunked")
            self.chunked = True
        elif name == b"connection":
            self.nominated.update(option.strip(b" \t") for option in value.split(b","))
        elif name == b"upgrade":
            self.upgrades.append(value)
        elif name == b"te":
            self.te = b"trailers" in value


_PROTECTED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie"})
"""Naming one of these in Connection would have the proxy delete what the next parser relies on (Envoy: 400)."""

_HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"})
"""RFC 9110 section 7.6.1."""


def _parse_special(head: bytes, method: bytes, target: bytes, http_1_1: bool) -> RequestHead:
    fields = _Fields(head)
    _check_framing(method, http_1_1, fields)
    if nominated := fields.nominated & _PROTECTED:
        name = min(nominated).decode()
        raise ProtocolError(400, "http1.invalid_connection_header", f"Connection may not nominate {name}")
    host = fields.hosts[0] if fields.hosts else b""
    # A server that took h2c, also as one offer of several, would speak HTTP/2 in what the proxy holds for a tunnel.
    offers = bool(fields.upgrades) and not any(b"h2c" in value for value in fields.upgrades)
    upgrade = method == b"CONNECT" or (http_1_1 and b"upgrade" in fields.nominated and offers)
    path, authority = _origin_form(method, target)
    keep_alive = http_1_1 and not fields.close
    return RequestHead(
        method=method,
        minor_version=1 if http_1_1 else 0,
        host=authority or host,
        body_length=CHUNKED if fields.chunked else fields.length or 0,
        keep_alive=keep_alive,
        upgrade=upgrade,
        forward=_rewrite(head, method, path, authority, fields, upgrade, http_1_1),
    )


def _check_framing(method: bytes, http_1_1: bool, fields: _Fields) -> None:
    if len(fields.hosts) > 1:
        raise ProtocolError(400, "http1.multiple_host_headers", "more than one Host field")
    if fields.chunked and fields.length is not None:
        raise ProtocolError(
            400,
            "http1.content_length_and_chunked_not_allowed",
            "Content-Length and Transfer-Encoding together: two parsers would see two messages",
        )
    if fields.chunked and not http_1_1:
        raise ProtocolError(400, "http1.invalid_transfer_encoding", "HTTP/1.0 has no Transfer-Encoding")
    if method == b"CONNECT" and (fields.chunked or fields.length):
        raise ProtocolError(400, "http1.body_disallowed", "CONNECT has no body")


def _origin_form(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Path and, for an absolute target, the authority that replaces Host (RFC 9112 section 3.2.2)."""
    if method == b"CONNECT":
        if b"/" in target or b":" not in target:
            raise ProtocolError(400, "http1.invalid_url", "CONNECT takes host:port")
        return target, None
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, None
    absolute = ABSOLUTE_TARGET.fullmatch(target)
    if absolute is not None:
        authority, path = absolute.groups(b"")
        return path if path.startswith(b"/") else b"/" + path, authority.lower()
    raise ProtocolError(400, "http1.invalid_url", "the target is neither a path nor an absolute http URL")


def _rewrite(
    head: bytes,
    method: bytes,
    path: bytes,
    authority: bytes | None,
    fields: _Fields,
    upgrade: bool,
    http_1_1: bool,
) -> bytes:
    """The head without its hop-by-hop fields. HTTP/1.0 stays 1.0: its client could not read a chunked answer."""
    dropped = _HOP_BY_HOP | fields.nominated
    if upgrade:
        dropped -= {b"upgrade"}
    lines = [b"%s %s HTTP/1.%d" % (method, path, 1 if http_1_1 else 0)]
    for line in head.split(b"\r\n")[1:-2]:
        name = line[: line.index(b":")].lower()
        if name not in dropped and not (authority is not None and name == b"host"):
            lines.append(line)
    if authority is not None:
        lines.insert(1, b"Host: " + authority)
    if upgrade and method != b"CONNECT":
        lines.append(b"Connection: Upgrade")
    elif fields.te:
        lines.append(b"TE: trailers\r\nConnection: TE")
    elif not http_1_1:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _explain_mismatch(head: bytes) -> ProtocolError:
    """Why the pattern did not match: costs only the senders of broken heads."""
    line, _, rest = head.partition(b"\r\n")
    bare = line + b"\r\n\r\n"
    if REQUEST_HEAD.fullmatch(bare) is None or has_forbidden_bytes(bare):
        return ProtocolError(400, "http1.codec_error", "the request line is not METHOD SP TARGET SP HTTP/1.x")
    fields = rest.split(b"\r\n")[:-2]
    if len(fields) > MAX_FIELDS:
        return ProtocolError(431, "http1.too_many_headers", f"more than {MAX_FIELDS} header fields")
    for field in fields:
        if field[:1] in (b" ", b"\t"):
            return ProtocolError(400, "http1.obs_fold", "a header field is folded over two lines (obs-fold)")
    return ProtocolError(400, "http1.invalid_characters", "a header field has a character that HTTP does not allow")
