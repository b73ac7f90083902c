"""What a client speaks, by its first bytes."""

import pytest

from proxy.http1.sniff import MAX_SNIFFED_BYTES, Sniffed, sniff

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"CONNECT web:443 HTTP/1.1\r\n",
        b"GET http://web/ HTTP/1.1\r\n",
        b"M-SEARCH /\xe9 HTTP/1.1\r\n",
        b"GET / HTTP/1.1\n",  # told from other protocols here, refused by the parser
    ],
)
def test_a_whole_request_line_is_http(data: bytes) -> None:
    assert sniff(data) is Sniffed.HTTP1


@pytest.mark.parametrize("end", range(1, len(PREFACE)))
def test_each_prefix_of_the_http2_preface_leads_to_http2(end: int) -> None:
    assert sniff(PREFACE[:end]) is (Sniffed.HTTP2 if end >= 16 else Sniffed.MORE)


def test_a_tls_handshake_is_tls_from_its_second_byte() -> None:
    assert sniff(b"\x16") is Sniffed.MORE
    assert sniff(b"\x16\x03") is Sniffed.TLS
    assert sniff(b"\x16\x03\x01\x02\x00") is Sniffed.TLS
    assert sniff(b"\x16\x02") is Sniffed.OTHER


@pytest.mark.parametrize("end", range(1, len(b"GET /a HTTP/1.1\r\n")))
def test_an_unfinished_request_line_is_waited_for(end: int) -> None:
    assert sniff(b"GET /a HTTP/1.1\r\n"[:end]) is Sniffed.MORE


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO client\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
        b"GET key\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # PostgreSQL SSLRequest
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/1.2\r\n",
        b"GET / HTTP/3",
        b"get\x00",
        b"\r\n",
    ],
)
def test_anything_else_is_tcp_as_soon_as_it_can_be_told(data: bytes) -> None:
    assert sniff(data) is Sniffed.OTHER


def test_a_line_without_end_is_not_waited_for() -> None:
    begun = b"GET /" + b"a" * MAX_SNIFFED_BYTES
    assert sniff(begun[: MAX_SNIFFED_BYTES - 1]) is Sniffed.MORE
    assert sniff(begun[:MAX_SNIFFED_BYTES]) is Sniffed.OTHER
    assert sniff(begun + b" HTTP/1.1\r\n") is Sniffed.OTHER, "whether it comes in one piece or in two"
