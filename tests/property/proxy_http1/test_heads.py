"""Heads go on in the sender's own words: its fields, its case, its order; and nothing that is refused gets by cut."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.errors import ProtocolError
from proxy.http1.request import parse_request
from proxy.http1.response import parse_response

NAME = st.from_regex(r"[A-Za-z][-_A-Za-z0-9]{0,12}", fullmatch=True).map(str.encode)
VALUE = st.text(
    st.one_of(st.characters(codec="latin-1", exclude_characters="\x7f", min_codepoint=0x20), st.just("\t")),
    max_size=20,
).map(lambda text: text.encode("latin-1"))
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
CONCERNS_US = {*HOP_BY_HOP, b"host", b"content-length", b"transfer-encoding", b"expect"}
Field = tuple[bytes, bytes]

FIELDS = st.lists(st.tuples(NAME.filter(lambda name: name.lower() not in CONCERNS_US), VALUE), max_size=8)
TARGET = st.text(st.characters(codec="latin-1", min_codepoint=0x21, exclude_characters="\x7f"), max_size=20).map(
    lambda text: b"/" + bytes(byte for byte in text.encode("latin-1"))
)
CONNECTION = st.sampled_from([b"close", b"keep-alive", b"Keep-Alive, X-Gone", b"x-gone,close"])


def lines(fields: list[Field]) -> bytes:
    return b"".join(name + b":" + value + b"\r\n" for name, value in fields)


@given(FIELDS, TARGET, st.integers(0, 8))
def test_a_request_without_connection_fields_is_forwarded_byte_for_byte(
    fields: list[Field], target: bytes, host_at: int
) -> None:
    placed = [*fields[:host_at], (b"hOsT", b" Web"), *fields[host_at:]]
    head = b"GET " + target + b" HTTP/1.1\r\n" + lines(placed) + b"\r\n"
    assert parse_request(head).forward == head


@given(FIELDS, CONNECTION, st.lists(st.tuples(st.sampled_from([b"X-Gone", b"x-gone"]), VALUE), max_size=2), st.data())
def test_a_request_with_connection_fields_loses_those_and_nothing_else(
    fields: list[Field], connection: bytes, gone: list[Field], data: st.DataObject
) -> None:
    kept = [(b"Host", b" a"), *fields]
    kept = [(name, value) for name, value in kept if name.lower() != b"x-gone"]
    dropped = [(b"Connection", connection), *(gone if b"gone" in connection.lower() else [])]
    mixed = _interleave(kept, dropped, data)
    forward = parse_request(b"PUT /p HTTP/1.1\r\n" + lines(mixed) + b"\r\n").forward
    assert forward == b"PUT /p HTTP/1.1\r\n" + lines(kept) + b"\r\n"


@given(FIELDS, st.integers(0, 10**6), CONNECTION, st.data())
def test_a_response_loses_its_connection_fields_and_nothing_else(
    fields: list[Field], length: int, connection: bytes, data: st.DataObject
) -> None:
    kept = [(b"Content-Length", b" %d" % length), *fields]
    kept = [(name, value) for name, value in kept if name.lower() != b"x-gone"]
    mixed = _interleave(kept, [(b"Connection", connection), (b"Keep-Alive", b" timeout=5")], data)
    made = parse_response(b"HTTP/1.1 200 OK\r\n" + lines(mixed) + b"\r\n", False)
    assert made.forward == b"HTTP/1.1 200 OK\r\n" + lines(kept) + b"\r\n"
    assert (made.body_length, made.reusable) == (length, b"close" not in connection)


def _interleave(kept: list[Field], dropped: list[Field], data: st.DataObject) -> list[Field]:
    mixed = list(kept)
    for field in dropped:
        mixed.insert(data.draw(st.integers(0, len(mixed))), field)
    return mixed


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_whatever_comes_is_parsed_or_refused_with_a_status_and_never_forwarded_with_control_characters(
    line: bytes, field: bytes
) -> None:
    for head in (line + b"\r\n\r\n", b"GET /" + line + b" HTTP/1.1\r\nHost: a\r\nX: " + field + b"\r\n\r\n"):
        try:
            forward = parse_request(head).forward
        except ProtocolError as error:
            assert error.status in (400, 431, 501)
        else:
            _assert_sound(forward)
    try:
        forward = parse_response(b"HTTP/1.1 200 " + line + b"\r\nX: " + field + b"\r\n\r\n", False).forward
    except ProtocolError as error:
        assert error.status == 502
    else:
        _assert_sound(forward)


def _assert_sound(head: bytes) -> None:
    """Every CR and LF is of a line's end, the only empty line is the last, and no other control character is left."""
    *rows, last, nothing = head.split(b"\r\n")
    assert (last, nothing) == (b"", b"")
    assert all(rows)
    assert not any(_is_control(byte) for row in rows for byte in row)


def _is_control(byte: int) -> bool:
    return byte == 0x7F or (byte < 0x20 and byte != 0x09)


PIECES = st.lists(
    st.sampled_from([b"X", b":", b" ", b"\t", b"a", b"\r\n", b"\r", b"\n", b"X: y\r\n", b"\x00", b"/", b"HTTP/1.1"]),
    max_size=12,
).map(b"".join)


@given(PIECES, PIECES)
def test_a_head_is_accepted_if_and_only_if_each_of_its_lines_is_sound(target: bytes, fields: bytes) -> None:
    """The whole head is matched by one pattern; this reads it line by line, as RFC 9112 section 5 does."""
    head = b"GET /" + target + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n"
    head = head[: head.index(b"\r\n\r\n") + 4]  # as the data path cuts it
    try:
        parse_request(head)
        accepted = True
    except ProtocolError:
        accepted = False
    assert accepted is _sound_by_lines(head)


def _sound_by_lines(head: bytes) -> bool:
    request_line, *rows = head[:-4].split(b"\r\n")
    parts = request_line.split(b" ")
    names = [row.partition(b":")[0] for row in rows]
    return (
        len(parts) == 3
        and parts[2] == b"HTTP/1.1"
        and not any(_is_control(byte) or byte == 0x09 for byte in request_line)
        and all(row.count(b":") and name.isalnum() for row, name in zip(rows, names, strict=True))
        and not any(_is_control(byte) for row in rows for byte in row)
        and [name.lower() for name in names].count(b"host") == 1
    )
