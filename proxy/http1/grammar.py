"""RFC 9110 and 9112 as patterns, and the limits of what is read.

One pattern matches a whole head and one `translate` finds what no field may hold: both walk it in C, where a loop over
lines would cost a Python step per field. (One pattern alone, with the allowed characters spelled out in it, takes 6.4
µs for a head of 1 KiB; the two take 4.0.) All quantifiers are possessive (`*+`, `++`): no input makes them backtrack.
"""

import re
from typing import Final

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
"""RFC 9110 section 5.6.2."""

FIELD_CHAR: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]"
"""RFC 9110 section 5.5: visible characters, space, tab, obs-text; no CR, LF, NUL and no other control."""

MAX_HEAD_BYTES: Final = 60 * 1024
MAX_FIELDS: Final = 100
"""Both Envoy's defaults (max_request_headers_kb, max_headers_count); beyond them 431."""

MAX_REMEMBERED_BYTES: Final = 2048
"""A head up to this length is kept to be compared with the next: what pollers and services repeat is shorter, and an
idle connection should not hold a browser's cookies."""

HEAD_START: Final = re.compile(TOKEN + rb"|\r\n|\r\Z")
"""How a request's head may begin; an empty line before it is tolerated (RFC 9112 section 2.2)."""

EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)+")

_FIELDS: Final = rb"(?:" + TOKEN + rb"++:[^\r]*+\r\n){0,%d}\r\n" % MAX_FIELDS

REQUEST_HEAD: Final = re.compile(rb"(" + TOKEN + rb"++) ([^ \t\r]++) HTTP/1\.([01])\r\n" + _FIELDS)
"""RFC 9112 section 3: method, target, minor version, field lines. A folded line (obs-fold) cannot match. Sound only
together with `has_forbidden_bytes`: values are matched as anything but CR."""

RESPONSE_HEAD: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r]*+)?\r\n" + _FIELDS)
"""RFC 9112 section 4; the reason phrase may be absent altogether, as some servers send it."""

_ALLOWED: Final = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
_LINE_ENDS: Final = b"\r\n" * (MAX_FIELDS + 2)


def has_forbidden_bytes(head: bytes) -> bool:
    """Whether a head holds a control character, a bare CR or a bare LF. `head` matched one of the patterns above."""
    left = head.translate(None, _ALLOWED)
    return left != _LINE_ENDS[: len(left)]


ABSOLUTE_TARGET: Final = re.compile(rb"(?i:https?)://([-\w.~!$&'()*+,;=%:\[\]]++)([/?][^#]*+)?")
"""RFC 9112 section 3.2.2: authority (RFC 3986 section 3.2, without userinfo), path and query."""

CONNECTION_FIELDS: Final = re.compile(
    rb"\r\n(connection|content-length|transfer-encoding|host|upgrade|expect|te|keep-alive|proxy-connection)"
    rb":[ \t]*+([^\r]*+)"
)
"""Over a lower-cased head: the fields that concern this connection rather than the message's receiver."""

RESPONSE_FIELDS: Final = re.compile(
    rb"\r\n(connection|content-length|transfer-encoding|keep-alive|proxy-connection|upgrade):[ \t]*+([^\r]*+)"
)

CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*+;" + FIELD_CHAR + rb"*+)?+\r\n")
"""RFC 9112 section 7.1. Never `int(text, 16)` alone: it takes `0x`, `_`, `+` and spaces."""

PARTIAL_CHUNK_LINE: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,16}+(?:[ \t]*+(?:;" + FIELD_CHAR + rb"*+)?+)?+\r?)?")

TRAILERS: Final = re.compile(rb"(?:" + TOKEN + rb"++:" + FIELD_CHAR + rb"*+\r\n)*\r\n")
"""The lines are repeated without possession: CPython before 3.11.5 goes on from within a round that failed (gh-106052).
What is given back is whole lines, so it stays linear."""

PARTIAL_TRAILERS: Final = re.compile(
    rb"(?:" + TOKEN + rb"++:" + FIELD_CHAR + rb"*+\r\n)*(?:\r|" + TOKEN + rb"++(?::" + FIELD_CHAR + rb"*+\r?)?+)?"
)

MAX_LENGTH_DIGITS: Final = 18
"""A Content-Length that fits 63 bits."""

MAX_CHUNK_LINE_BYTES: Final = 16 * 1024
MAX_TRAILER_BYTES: Final = 16 * 1024
"""Both hyper's (h1/decode.rs): extensions and trailers carry no payload, so more is an attack."""
