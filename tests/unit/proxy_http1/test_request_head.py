"""What a request's head is refused for, how its body is framed, and what goes upstream (reference/proxy.md C)."""

import pytest

from proxy.http1.errors import ProtocolError
from proxy.http1.grammar import MAX_FIELDS
from proxy.http1.request import CHUNKED, RequestHead, parse_request


def request(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def parsed(*lines: bytes) -> RequestHead:
    return parse_request(request(*lines))


def refusal(*lines: bytes) -> tuple[int, str]:
    with pytest.raises(ProtocolError) as caught:
        parsed(*lines)
    return caught.value.status, caught.value.details


# ── Framing (RFC 9112 section 6.3) ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ((), 0),
        ((b"Content-Length: 0",), 0),
        ((b"Content-Length: 5",), 5),
        ((b"content-length:5",), 5),
        ((b"Content-Length: \t 5 \t",), 5),
        ((b"Content-Length: 007",), 7),
        ((b"Content-Length: 999999999999999999",), 10**18 - 1),
        ((b"Transfer-Encoding: chunked",), CHUNKED),
        ((b"transfer-encoding:CHUNKED ",), CHUNKED),
    ],
)
def test_body_length_is_that_of_the_one_framing_field(fields: tuple[bytes, ...], length: int) -> None:
    assert parsed(b"POST / HTTP/1.1", b"Host: a", *fields).body_length == length


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"-1", b"+5", b"0x5", b"5_0", b"5 0", b"5,5", b"5.0", b"1e3", b"\xd9\xa5", b"5;", b"five"),
        b"1" * 19,
    ],
)
def test_a_content_length_other_than_one_plain_decimal_is_refused(value: bytes) -> None:
    refused = refusal(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: " + value)
    assert refused == (400, "http1.invalid_content_length")


@pytest.mark.parametrize("second", [b"6", b"5"])
def test_two_content_lengths_are_refused_even_when_equal(second: bytes) -> None:
    refused = refusal(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 5", b"Content-Length: " + second)
    assert refused == (400, "http1.multiple_content_length")


@pytest.mark.parametrize("order", [1, -1])
def test_content_length_beside_transfer_encoding_is_refused_in_either_order(order: int) -> None:
    framing = [b"Content-Length: 5", b"Transfer-Encoding: chunked"][::order]
    refused = refusal(b"POST / HTTP/1.1", b"Host: a", *framing)
    assert refused == (400, "http1.content_length_and_chunked_not_allowed")


@pytest.mark.parametrize(
    "value",
    [b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, chunked", b"chunked, gzip", b'"chunked"', b"xchunked"],
)
def test_a_transfer_coding_other_than_chunked_is_refused(value: bytes) -> None:
    refused = refusal(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: " + value)
    assert refused == (501, "http1.invalid_transfer_encoding")


def test_two_transfer_encoding_fields_are_refused() -> None:
    refused = refusal(b"POST / HTTP/1.1", b"Host: a", *[b"Transfer-Encoding: chunked"] * 2)
    assert refused == (501, "http1.invalid_transfer_encoding")


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    refused = refusal(b"POST / HTTP/1.0", b"Host: a", b"Transfer-Encoding: chunked")
    assert refused == (400, "http1.invalid_transfer_encoding")


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_connect_with_a_body_is_refused(framing: bytes) -> None:
    refused = refusal(b"CONNECT a:443 HTTP/1.1", b"Host: a:443", framing)
    assert refused == (400, "http1.body_disallowed")


# ── Grammar (RFC 9112 sections 3 and 5) ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fold", [b" folded", b"\tfolded"])
def test_a_folded_field_is_refused(fold: bytes) -> None:
    assert refusal(b"GET / HTTP/1.1", b"Host: a", b"X-A: one", fold) == (400, "http1.obs_fold")


@pytest.mark.parametrize(
    "field",
    [
        *(b"X-A: \x00", b"X-A: a\x00b", b"X-A: a\rb", b"X-A: a\nb", b"X-A: \x1b[31m", b"X-A: \x7f"),
        *(b"X A: b", b"X-A : b", b": b", b"X-A", b"X\x00A: b", b"X(A: b", b"X\xe9: b"),
    ],
)
def test_characters_that_a_field_may_not_have_are_refused(field: bytes) -> None:
    assert refusal(b"GET / HTTP/1.1", b"Host: a", field) == (400, "http1.invalid_characters")


def test_tab_and_bytes_above_ascii_are_legal_in_a_value_and_pass_unchanged() -> None:
    head = request(b"GET /caf\xe9 HTTP/1.1", b"Host: a", b"X-A: \xc3\xa9\tb")
    assert parse_request(head).forward == head


@pytest.mark.parametrize(
    "line",
    [
        *(b"GET /", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / HTTP/1.10", b"GET / http/1.1", b"GET  / HTTP/1.1"),
        *(
            b"GET / HTTP/1.1 ",
            b" GET / HTTP/1.1",
            b"GET\t/\tHTTP/1.1",
            b"GET /a\tb HTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"G\x00T / HTTP/1.1",
        ),
        *(b"", b"GET /\x7f HTTP/1.1", b"GET / HTTP/1.1\n", b"(GET) / HTTP/1.1"),
    ],
)
def test_a_request_line_that_is_not_exactly_one_is_refused(line: bytes) -> None:
    assert refusal(line, b"Host: a") == (400, "http1.codec_error")


def test_bare_line_feeds_in_a_head_are_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_request(b"GET / HTTP/1.1\nHost: a\nX-A: b\r\n\r\n")
    assert caught.value.status == 400


def test_a_hundred_fields_pass_and_one_more_is_refused() -> None:
    more = [b"X-%d: y" % number for number in range(MAX_FIELDS - 1)]
    assert parsed(b"GET / HTTP/1.1", b"Host: a", *more).body_length == 0
    refused = refusal(b"GET / HTTP/1.1", b"Host: a", *more, b"X-Last: y")
    assert refused == (431, "http1.too_many_headers")


def test_http_1_1_without_host_is_refused_and_http_1_0_is_not() -> None:
    assert refusal(b"GET / HTTP/1.1", b"X-A: b") == (400, "http1.missing_host_header")
    assert parsed(b"GET / HTTP/1.0").host == b""


def test_two_hosts_are_refused() -> None:
    assert refusal(b"GET / HTTP/1.1", b"Host: a", b"Host: a") == (400, "http1.multiple_host_headers")


# ── Targets (RFC 9112 section 3.2) ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://web.default/x?y=1", b"/x?y=1", b"web.default"),
        (b"HTTP://Web:8080/", b"/", b"web:8080"),
        (b"http://web", b"/", b"web"),
        (b"https://[fd77::3]:80/a//b", b"/a//b", b"[fd77::3]:80"),
        (b"http://web?x=/evil", b"/?x=/evil", b"web"),
    ],
)
def test_an_absolute_target_becomes_a_path_and_its_authority_replaces_host(
    target: bytes, path: bytes, host: bytes
) -> None:
    head = parsed(b"GET " + target + b" HTTP/1.1", b"Host: other", b"X-A: b")
    assert head.host == host
    assert head.forward == request(b"GET " + path + b" HTTP/1.1", b"Host: " + host, b"X-A: b")


@pytest.mark.parametrize(
    "target",
    [
        *(b"web/x", b"ftp://web/x", b"http:/x", b"http:///x", b"http://user@web/", b"*", b"web:80"),
        *(b"http://web#frag/x", b"http://a\\b/", b"http://?x", b'http://a"b/', b"javascript:1"),
    ],
)
def test_a_target_of_another_form_is_refused(target: bytes) -> None:
    assert refusal(b"GET " + target + b" HTTP/1.1", b"Host: a") == (400, "http1.invalid_url")


def test_the_asterisk_is_for_options_only() -> None:
    head = request(b"OPTIONS * HTTP/1.1", b"Host: a")
    assert parse_request(head).forward == head


@pytest.mark.parametrize("target", [b"/path", b"web", b"http://web:80/"])
def test_connect_to_what_is_no_authority_is_refused(target: bytes) -> None:
    assert refusal(b"CONNECT " + target + b" HTTP/1.1", b"Host: a") == (400, "http1.invalid_url")


def test_connect_may_become_a_tunnel() -> None:
    head = request(b"CONNECT web:443 HTTP/1.1", b"Host: web:443")
    assert parse_request(head).upgrade
    assert parse_request(head).forward == head


# ── Hop by hop (RFC 9110 section 7.6.1) ─────────────────────────────────────────────────────────────────────────────


def test_a_common_request_is_forwarded_byte_for_byte() -> None:
    head = request(b"GET /a HTTP/1.1", b"HOST: Web", b"x-lower:1", b"X-Upper:  2 ", b"Cookie: a=b", b"x-lower: 3")
    assert parse_request(head).forward == head


def test_hop_by_hop_fields_and_those_that_connection_nominates_stay_behind() -> None:
    head = parsed(
        b"GET / HTTP/1.1",
        b"Host: a",
        b"Connection: X-Mine, keep-alive",
        b"X-Other: 1",
        b"x-mine: 2",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: close",
        b"Upgrade: websocket",
        b"TE: gzip",
    )
    assert head.forward == request(b"GET / HTTP/1.1", b"Host: a", b"X-Other: 1")
    assert head.keep_alive
    assert not head.upgrade


@pytest.mark.parametrize(
    "name", [b"host", b"Content-Length", b"transfer-encoding", b"Authorization", b"close, cookie", b"x,host"]
)
def test_a_connection_field_that_nominates_what_others_rely_on_is_refused(name: bytes) -> None:
    refused = refusal(b"GET / HTTP/1.1", b"Host: a", b"Connection: " + name)
    assert refused == (400, "http1.invalid_connection_header")


def test_te_is_reduced_to_trailers() -> None:
    head = parsed(b"GET / HTTP/1.1", b"Host: a", b"TE: gzip, trailers;q=0.5", b"Connection: TE")
    assert head.forward == request(b"GET / HTTP/1.1", b"Host: a", b"TE: trailers", b"Connection: TE")


@pytest.mark.parametrize("option", [b"close", b"Close", b"foo, CLOSE"])
def test_connection_close_ends_the_clients_connection_and_not_the_servers(option: bytes) -> None:
    head = parsed(b"GET / HTTP/1.1", b"Host: a", b"Connection: " + option)
    assert not head.keep_alive
    assert head.forward == request(b"GET / HTTP/1.1", b"Host: a")


def test_http_1_0_stays_1_0_so_that_its_client_can_read_the_answer() -> None:
    head = parsed(b"GET / HTTP/1.0", b"X-A: b", b"Connection: keep-alive")
    assert not head.keep_alive
    assert head.forward == request(b"GET / HTTP/1.0", b"X-A: b", b"Connection: close")


# ── Upgrades ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_upgrade_is_passed_on_with_a_connection_field_of_our_own() -> None:
    head = parsed(b"GET /ws HTTP/1.1", b"Host: a", b"Connection: keep-alive, Upgrade", b"Upgrade: websocket")
    assert head.upgrade
    assert head.forward == request(b"GET /ws HTTP/1.1", b"Host: a", b"Upgrade: websocket", b"Connection: Upgrade")


@pytest.mark.parametrize(
    "upgrades", [(b"h2c",), (b"H2C",), (b"websocket, h2c",), (b"h2c,websocket",), (b"websocket", b"h2c")]
)
def test_h2c_is_never_passed_on_as_an_upgrade(upgrades: tuple[bytes, ...]) -> None:
    """A server that took it would speak HTTP/2 where this proxy sees a tunnel."""
    head = parsed(
        b"GET / HTTP/1.1",
        b"Host: a",
        b"Connection: Upgrade, HTTP2-Settings",
        *(b"Upgrade: " + value for value in upgrades),
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
    )
    assert not head.upgrade
    assert head.forward == request(b"GET / HTTP/1.1", b"Host: a")


def test_an_upgrade_in_http_1_0_is_none() -> None:
    head = parsed(b"GET / HTTP/1.0", b"Connection: Upgrade", b"Upgrade: websocket")
    assert not head.upgrade
    assert head.forward == request(b"GET / HTTP/1.0", b"Connection: close")


def test_expect_goes_on_to_the_server() -> None:
    head = request(b"PUT / HTTP/1.1", b"Host: a", b"Content-Length: 5", b"Expect: 100-continue")
    assert parse_request(head).forward == head
