"""The mix: ten requests in one fixed order, as bytes, with what each must be answered."""

from dataclasses import dataclass
from typing import Final

SMALL_BYTES: Final = 128
LARGE_BYTES: Final = 64 * 1024
BODY: Final = b"b" * 1024


@dataclass(frozen=True, slots=True)
class Prepared:
    """A whole request, and how many bytes the answer's body has."""

    name: str
    payload: bytes
    answer_bytes: int


def small(host: str) -> Prepared:
    """What the rows without a mix send, as wrk writes it."""
    return Prepared("GET", _head("GET", "/", host, ()), SMALL_BYTES)


def mix(host: str, *, close: bool) -> tuple[Prepared, ...]:
    """GET and POST 1 KiB, chunked, 20 headers, 64 KiB answers. `close`: each says Connection: close."""
    extra = ("Connection: close",) if close else ()
    get = Prepared("GET", _head("GET", "/", host, extra), SMALL_BYTES)
    post = Prepared(
        "POST 1 KiB", _head("POST", "/", host, (*extra, f"Content-Length: {len(BODY)}")) + BODY, SMALL_BYTES
    )
    chunked = Prepared(
        "POST 1 KiB chunked",
        _head("POST", "/", host, (*extra, "Transfer-Encoding: chunked")) + _chunks(BODY),
        SMALL_BYTES,
    )
    headers = Prepared("GET 20 headers", _head("GET", "/", host, (*extra, *_HEADERS)), SMALL_BYTES)
    large = Prepared("GET 64 KiB", _head("GET", "/large", host, extra), LARGE_BYTES)
    return (get, post, get, headers, chunked, get, post, large, get, headers)


def as_file(requests: tuple[Prepared, ...]) -> bytes:
    """For load.lua: each preceded by a line with its length, and followed by a line's end."""
    return b"".join(b"%d\n%s\n" % (len(one.payload), one.payload) for one in requests)


def _head(method: str, path: str, host: str, headers: tuple[str, ...]) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", "")).encode("ascii")


def _chunks(body: bytes) -> bytes:
    half = len(body) // 2
    parts = (body[:half], body[half:])
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# What a browser and a tracing library send beside Host: 20 fields, 0.9 KB.
_HEADERS: Final = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: http://shop.default.svc.cluster.local/cart?step=2",
    "Cookie: session=4f1c9d0e7b6a4c3f8e2d1a0b9c8d7e6f; theme=dark; consent=all",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
    "DNT: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Upgrade-Insecure-Requests: 1",
    "X-Request-Id: 2c1f6a0e-6a55-4f0e-9d3c-0f8f6f1f4c11",
    "X-Forwarded-Proto: http",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate: vendor=opaque",
    "baggage: user=42,region=eu-west-1",
    "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJlLW9mLW5vLXZhbHVl",
    "X-Tenant: blue",
)
