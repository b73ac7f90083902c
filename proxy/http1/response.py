"""A response's head: how its body is framed, may the connection be used again, which bytes go to the client."""

import re
from typing import Final, NamedTuple

from proxy.http1.errors import ProtocolError
from proxy.http1.grammar import MAX_HEAD_BYTES, MAX_LENGTH_DIGITS, RESPONSE_FIELDS, RESPONSE_HEAD, has_forbidden_bytes
from proxy.http1.request import CHUNKED

UNTIL_CLOSE: Final = -2
"""`body_length` of a body that ends with the connection (RFC 9112 section 6.3, rule 8)."""


class ResponseHead(NamedTuple):
    """`body_length` is a count of bytes, CHUNKED or UNTIL_CLOSE; `forward` is the head for the client, always
    HTTP/1.1, without hop-by-hop fields (those of a 101 stay); `reusable` tells whether the server keeps the connection.
    """

    status: int
    body_length: int
    reusable: bool
    forward: bytes


NO_RESPONSE: Final = ResponseHead(0, 0, False, b"")

_new: Final = tuple.__new__  # half the cost of the named tuple's own constructor


def parse_response(head: bytes, to_head_request: bool) -> ResponseHead:
    """`head` runs from the status line through the empty line; `to_head_request`: the request was HEAD. Raises
    ProtocolError with status 502 (Envoy: upstream protocol error, flag UPE)."""
    matched = RESPONSE_HEAD.fullmatch(head)
    if matched is None or has_forbidden_bytes(head):
        raise ProtocolError(502, "http1.codec_error", "the server's answer has no sound HTTP/1.x head")
    if len(head) > MAX_HEAD_BYTES:
        raise _too_big()
    minor, code = matched.group(1, 2)
    status = int(code)
    reusable = minor == b"1"
    length: int | None = None
    chunked = False
    hop_by_hop: tuple[bytes, ...] = ()
    options: frozenset[bytes] = frozenset()
    lower = head.lower()
    for name, value in RESPONSE_FIELDS.findall(lower):
        if name == b"content-length":
            # bytes.isdigit: ASCII only, no sign, no underscore, unlike `int`.
            digits = value.rstrip(b" \t")
            if length is not None or not digits.isdigit() or len(digits) > MAX_LENGTH_DIGITS:
                raise _no_length()
            length = int(digits)
        elif name == b"transfer-encoding":
            if chunked or minor == b"0" or value.rstrip(b" \t") != b"chunked":
                raise ProtocolError(502, "http1.invalid_transfer_encoding", "the server used an unknown coding")
            chunked = True
        else:
            hop_by_hop += (name,)
            if value == b"keep-alive":  # what nearly every server that sends Connection sends
                reusable = True
            elif name == b"connection":
                options |= {option.strip(b" \t") for option in value.split(b",")}
                reusable = b"close" not in options and (reusable or b"keep-alive" in options)
    body_length = _framing(status, length, chunked, to_head_request)
    forward = head if minor == b"1" else b"HTTP/1.1" + head[8:]
    if hop_by_hop and status != 101:
        forward = _without(forward, lower, hop_by_hop, options)
    return _new(ResponseHead, (status, body_length, reusable and body_length != UNTIL_CLOSE, forward))


def check_begun_response(begun: bytes) -> None:
    """`begun` is a head without its empty line yet. Raises ProtocolError (502) if it can no longer become one: a server
    that speaks something else may wait for the client, which waits for it."""
    if len(begun) > MAX_HEAD_BYTES:
        raise _too_big()
    if not _BEGUN.match(begun) or b"\n\n" in begun or b"\n\r\n" in begun:
        raise ProtocolError(502, "http1.codec_error", "the server's answer does not begin like one of HTTP/1.x")


_BEGUN: Final = re.compile(rb"HTTP/1\.[01] |H(?:T(?:T(?:P(?:/(?:1(?:\.[01]?)?)?)?)?)?)?\Z")


def _too_big() -> ProtocolError:
    return ProtocolError(502, "http1.headers_too_big", f"a response head over {MAX_HEAD_BYTES} bytes")


def _no_length() -> ProtocolError:
    return ProtocolError(502, "http1.invalid_content_length", "the server sent no one decimal Content-Length")


def _framing(status: int, length: int | None, chunked: bool, to_head_request: bool) -> int:
    """RFC 9112 section 6.3, in its order."""
    if chunked and length is not None:
        raise ProtocolError(
            502, "http1.content_length_and_chunked_not_allowed", "the server sent Content-Length and Transfer-Encoding"
        )
    if status < 200 or status == 204:
        if chunked or length:
            raise ProtocolError(502, "http1.body_disallowed", f"the server framed a body on a {status}")
        return 0
    if to_head_request or status == 304:
        return 0
    if chunked:
        return CHUNKED
    return UNTIL_CLOSE if length is None else length


_OPTIONS: Final = frozenset({b"close", b"keep-alive", b"upgrade", b""})
"""Of Connection, that name no field which is still there."""

_PROTECTED: Final = frozenset({b"content-length", b"transfer-encoding", b"set-cookie"})
"""A server that nominates one of these would make the client read another message than it sent."""


def _without(head: bytes, lower: bytes, names: tuple[bytes, ...], options: frozenset[bytes]) -> bytes:
    """`head` less one line for each of `names`, cut out by offset, since `lower` has the same ones; and less the fields
    that `options`, those of Connection, nominate."""
    for name in names:
        start = lower.index(b"\r\n" + name + b":")
        end = lower.index(b"\r\n", start + 2)
        head = head[:start] + head[end:]
        lower = lower[:start] + lower[end:]
    nominated = options - _OPTIONS
    return _without_nominated(head, nominated) if nominated else head


def _without_nominated(head: bytes, names: frozenset[bytes]) -> bytes:
    """`head` less every line of these names (RFC 9110 section 7.6.1); few servers ever nominate any."""
    status_line, *lines = head.split(b"\r\n")
    dropped = names - _PROTECTED
    kept = (line for line in lines if line.partition(b":")[0].lower() not in dropped)
    return b"\r\n".join((status_line, *kept))
