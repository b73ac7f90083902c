"""What a response's head is refused for, how its body is framed, and what the client gets (reference/proxy.md C)."""

import pytest

from proxy.http1.errors import ProtocolError
from proxy.http1.request import CHUNKED
from proxy.http1.response import UNTIL_CLOSE, ResponseHead, parse_response


def response(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def parsed(*lines: bytes, to_head_request: bool = False) -> ResponseHead:
    return parse_response(response(*lines), to_head_request)


def refusal(*lines: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        parsed(*lines)
    assert caught.value.status == 502
    return caught.value.details


# ── Framing (RFC 9112 section 6.3) ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ((b"HTTP/1.1 200 OK", b"Content-Length: 3"), 3),
        ((b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"), CHUNKED),
        ((b"HTTP/1.1 200 OK",), UNTIL_CLOSE),
        ((b"HTTP/1.0 200 OK",), UNTIL_CLOSE),
        ((b"HTTP/1.1 404 Not Found", b"content-length:0"), 0),
        ((b"HTTP/1.1 204 No Content",), 0),
        ((b"HTTP/1.1 204 No Content", b"Content-Length: 0"), 0),
        ((b"HTTP/1.1 304 Not Modified", b"Content-Length: 10"), 0),
        ((b"HTTP/1.1 304 Not Modified", b"Transfer-Encoding: chunked"), 0),
        ((b"HTTP/1.1 100 Continue",), 0),
        ((b"HTTP/1.1 103 Early Hints", b"Link: </a.css>"), 0),
        ((b"HTTP/1.1 200", b"Content-Length: 1"), 1),
        ((b"HTTP/1.1 599 \xe9t\xe9", b"Content-Length: 1"), 1),
    ],
)
def test_body_length_follows_status_and_framing_fields(lines: tuple[bytes, ...], length: int) -> None:
    assert parsed(*lines).body_length == length


@pytest.mark.parametrize(
    "fields", [(b"Content-Length: 10",), (b"Transfer-Encoding: chunked",), ()], ids=["length", "chunked", "neither"]
)
def test_an_answer_to_head_has_no_body_whatever_it_announces(fields: tuple[bytes, ...]) -> None:
    head = parsed(b"HTTP/1.1 200 OK", *fields, to_head_request=True)
    assert (head.body_length, head.reusable) == (0, True)
    assert head.forward == response(b"HTTP/1.1 200 OK", *fields)


@pytest.mark.parametrize("status", [b"100", b"101", b"103", b"204"])
@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 1"])
def test_a_body_where_none_can_be_is_refused(status: bytes, framing: bytes) -> None:
    assert refusal(b"HTTP/1.1 " + status + b" X", framing) == "http1.body_disallowed"


def test_content_length_beside_transfer_encoding_is_refused() -> None:
    refused = refusal(b"HTTP/1.1 200 OK", b"Content-Length: 5", b"Transfer-Encoding: chunked")
    assert refused == "http1.content_length_and_chunked_not_allowed"


@pytest.mark.parametrize("values", [(b"5", b"6"), (b"5", b"5"), (b"+5",), (b"0x5",), (b"5, 5",), (b"",), (b"5_0",)])
def test_an_ambiguous_content_length_is_refused(values: tuple[bytes, ...]) -> None:
    refused = refusal(b"HTTP/1.1 200 OK", *(b"Content-Length: " + value for value in values))
    assert refused == "http1.invalid_content_length"


@pytest.mark.parametrize("values", [(b"gzip",), (b"gzip, chunked",), (b"chunked", b"chunked"), (b"identity",)])
def test_an_unknown_transfer_coding_is_refused(values: tuple[bytes, ...]) -> None:
    refused = refusal(b"HTTP/1.1 200 OK", *(b"Transfer-Encoding: " + value for value in values))
    assert refused == "http1.invalid_transfer_encoding"


def test_transfer_encoding_from_an_http_1_0_server_is_refused() -> None:
    """RFC 9112 section 6.1: its framing is faulty."""
    refused = refusal(b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked")
    assert refused == "http1.invalid_transfer_encoding"


@pytest.mark.parametrize(
    "line",
    [b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 099 X", b"HTTP/1.1  200 OK", b"200 OK", b"HTTP/1.1 200 O\x00K"],
)
def test_a_status_line_that_is_not_exactly_one_is_refused(line: bytes) -> None:
    assert refusal(line, b"Content-Length: 0") == "http1.codec_error"


@pytest.mark.parametrize("field", [b" folded", b"X-A: a\rb", b"X-A: a\nb", b"X-A: \x00", b"X A: b", b"X-A : b"])
def test_an_unsound_field_is_refused(field: bytes) -> None:
    assert refusal(b"HTTP/1.1 200 OK", b"X-B: c", field) == "http1.codec_error"


# ── What the client gets, and whether the connection is kept ────────────────────────────────────────────────────────


def test_a_common_response_is_forwarded_byte_for_byte() -> None:
    head = response(b"HTTP/1.1 200 OK", b"DATE: x", b"Content-Length: 2", b"set-cookie: a", b"Set-Cookie: b")
    made = parse_response(head, False)
    assert (made.forward, made.reusable) == (head, True)


def test_an_http_1_0_answer_is_passed_on_as_1_1_and_its_connection_not_kept() -> None:
    made = parsed(b"HTTP/1.0 200 OK", b"Content-Length: 2")
    assert made.forward == response(b"HTTP/1.1 200 OK", b"Content-Length: 2")
    assert not made.reusable


@pytest.mark.parametrize(
    ("line", "connection", "reusable"),
    [
        (b"HTTP/1.1 200 OK", b"keep-alive", True),
        (b"HTTP/1.1 200 OK", b"close", False),
        (b"HTTP/1.1 200 OK", b"Close, x", False),
        (b"HTTP/1.0 200 OK", b"Keep-Alive", True),
        (b"HTTP/1.0 200 OK", b"x, keep-alive", True),
        (b"HTTP/1.0 200 OK", b"x", False),
    ],
)
def test_the_connection_field_decides_on_reuse_and_stays_behind(line: bytes, connection: bytes, reusable: bool) -> None:
    made = parsed(line, b"Connection: " + connection, b"Content-Length: 2", b"Keep-Alive: timeout=5")
    assert made.reusable is reusable
    assert made.forward == response(b"HTTP/1.1 200 OK", b"Content-Length: 2")


def test_a_body_until_close_leaves_nothing_to_reuse() -> None:
    assert not parsed(b"HTTP/1.1 200 OK", b"Connection: keep-alive").reusable


def test_fields_that_the_servers_connection_nominates_stay_behind() -> None:
    """As Apache announces HTTP/2 on each answer; RFC 9110 section 7.6.1."""
    made = parsed(
        b"HTTP/1.1 200 OK",
        b"Upgrade: h2,h2c",
        b"Connection: Upgrade, X-Mine",
        b"x-mine: 1",
        b"X-Other: 2",
        b"Proxy-Connection: x",
        b"Content-Length: 2",
    )
    assert made.forward == response(b"HTTP/1.1 200 OK", b"X-Other: 2", b"Content-Length: 2")


@pytest.mark.parametrize("name", [b"content-length", b"Date, transfer-encoding", b"set-cookie"])
def test_a_server_cannot_nominate_away_what_the_client_relies_on(name: bytes) -> None:
    made = parsed(b"HTTP/1.1 200 OK", b"Connection: " + name, b"Content-Length: 2", b"Set-Cookie: a")
    assert made.forward == response(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Set-Cookie: a")


def test_a_101_keeps_its_connection_and_upgrade_fields() -> None:
    head = response(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade")
    assert parse_response(head, False).forward == head
