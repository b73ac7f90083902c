"""Where a chunked body ends, and what is no chunked body (RFC 9112 section 7.1, reference/proxy.md C)."""

import pytest

from proxy.http1.chunked import MORE, ChunkedBody
from proxy.http1.errors import ProtocolError
from proxy.http1.grammar import MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES

NEXT = b"GET /next HTTP/1.1\r\n"


def scan(*pieces: bytes) -> int:
    """The offset in the last piece; what came before must not have ended the body."""
    body = ChunkedBody(400)
    for piece in pieces[:-1]:
        assert body.scan(piece) == MORE
    return body.scan(pieces[-1])


def is_refused(*pieces: bytes) -> bool:
    body = ChunkedBody(400)
    try:
        for piece in pieces:
            if body.scan(piece) != MORE:
                return False
    except ProtocolError as error:
        return error.status == 400
    return False


SOUND = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"005\r\nhello\r\n000\r\n\r\n",
    b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
    b"5;name=value\r\nhello\r\n0;last\r\n\r\n",
    b'5 \t;q="a b"\r\nhello\r\n0\r\n\r\n',
    b"5\r\n\r\n0\r\n\r\n0\r\n\r\n",  # data that looks like an end
    b"0\r\nX-Checksum: 1\r\nx-b:\r\n\r\n",
    b"1\r\n\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("body", SOUND)
def test_the_end_is_found_and_what_follows_is_not_touched(body: bytes) -> None:
    assert scan(body + NEXT) == len(body)
    assert scan(body) == len(body)


@pytest.mark.parametrize("body", SOUND)
def test_a_body_in_single_bytes_ends_at_the_same_place(body: bytes) -> None:
    assert scan(*(body[i : i + 1] for i in range(len(body)))) == 1


def test_an_offset_counts_from_the_start_of_the_data_given() -> None:
    head = b"POST / HTTP/1.1\r\n\r\n"
    body = ChunkedBody(400)
    assert body.scan(head + b"5\r\nhel", len(head)) == MORE
    assert body.scan(b"lo\r\n0\r\n\r\nrest") == 9


@pytest.mark.parametrize(
    "line",
    [
        *(b"0x5", b"5_0", b"+5", b"-5", b" 5", b"5 ", b"\t5", b"", b"g", b"5,5", b"5:5", b"5.", b"\xd9\xa5"),
        *(b"1" * 17, b"5;a\x00b", b"5;a\x7f", b"5\x0b;a", b'5"', b"5\r", b"5;a\rb"),
    ],
)
def test_a_chunk_size_of_any_other_form_is_refused(line: bytes) -> None:
    body = line + b"\r\nhello\r\n0\r\n\r\n"
    assert is_refused(body)
    assert is_refused(*(body[i : i + 1] for i in range(len(body))))


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"0\r\n\n",
        b"0\n\r\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\nX: a\n\n",
        b"0\r\nX: a\rb\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\n: a\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
    ],
)
def test_bare_line_ends_and_unsound_trailers_are_refused(body: bytes) -> None:
    assert is_refused(body)
    assert is_refused(*(body[i : i + 1] for i in range(len(body))))


@pytest.mark.parametrize(
    "partial", [b"5\n", b"0x", b"+", b" ", b"5;\n", b"0\r\nX: a\n", b"0\r\nX\n", b"0\r\n\n", b"2\r\nab\n", b"2\r\nabc"]
)
def test_an_unsound_line_is_refused_before_it_is_whole(partial: bytes) -> None:
    """What was scanned has been forwarded already, and the next parser may take a bare LF for an end."""
    assert is_refused(partial)


@pytest.mark.parametrize(
    ("start", "fill", "limit_bytes"),
    [(b"5;", b"x", MAX_CHUNK_LINE_BYTES), (b"0\r\n", b"X: y\r\n", MAX_TRAILER_BYTES)],
    ids=["extension", "trailers"],
)
@pytest.mark.parametrize("size", [1 << 20, 1000], ids=["whole", "in pieces"])
def test_extensions_and_trailers_over_the_limit_are_refused_whole_or_in_pieces(
    start: bytes, fill: bytes, limit_bytes: int, size: int
) -> None:
    body = start + fill * (limit_bytes // len(fill) + 1) + b"\r\n"
    assert is_refused(*(body[i : i + size] for i in range(0, len(body), size)))


def test_a_long_extension_within_the_limit_passes() -> None:
    body = b"5;" + b"x" * (MAX_CHUNK_LINE_BYTES - 4) + b"\r\nhello\r\n0\r\n\r\n"
    assert scan(body) == len(body)
    assert scan(body[:9000], body[9000:]) == len(body) - 9000


def test_a_violation_carries_the_status_it_is_answered_with() -> None:
    with pytest.raises(ProtocolError) as caught:
        ChunkedBody(502).scan(b"zz\r\n")
    assert (caught.value.status, caught.value.details) == (502, "http1.codec_error")
    assert "expected size" in caught.value.explanation
