"""What a client speaks, by its first bytes."""

import re
from enum import Enum
from typing import Final

from proxy.http1.grammar import TOKEN


class Sniffed(Enum):
    HTTP1 = "http"
    HTTP2 = "http2"
    TLS = "tls"
    OTHER = "tcp"
    MORE = "more"
    """These bytes could become HTTP; nothing else is left open."""


HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
"""RFC 9113 section 3.4, as far as it tells it from HTTP/1."""

MAX_SNIFFED_BYTES: Final = 8192
"""A request line longer than this without an end is not waited for (Apache's LimitRequestLine is 8190)."""

_REQUEST_LINE: Final = re.compile(TOKEN + rb"{1,32}+ [\x21-\x7e\x80-\xff]++ HTTP/1\.[01]\r?\n")
_BEGUN_REQUEST_LINE: Final = re.compile(TOKEN + rb"{1,32}+(?: [\x21-\x7e\x80-\xff]*+(?: [HTP/1.0]{0,8}\r?)?)?")


def sniff(data: bytes) -> Sniffed:
    """Decide as early as the bytes allow. An HTTP/1 request line must be whole: Redis and SMTP begin with words too."""
    if data.startswith(HTTP2_PREFACE):
        return Sniffed.HTTP2
    if _REQUEST_LINE.match(data, 0, MAX_SNIFFED_BYTES):
        return Sniffed.HTTP1
    if data[:2] == b"\x16\x03":  # handshake record of TLS 1.x (RFC 8446 section 5.1)
        return Sniffed.TLS
    if HTTP2_PREFACE.startswith(data) or data == b"\x16":
        return Sniffed.MORE
    if len(data) < MAX_SNIFFED_BYTES and _BEGUN_REQUEST_LINE.fullmatch(data):
        return Sniffed.MORE
    return Sniffed.OTHER
