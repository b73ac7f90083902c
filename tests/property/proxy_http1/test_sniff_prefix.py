"""Detection decides by a prefix: more bytes never change what was decided, so it may act at once."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.sniff import MAX_SNIFFED_BYTES, Sniffed, sniff

METHOD = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=32)
VISIBLE = st.text(st.characters(codec="latin-1", min_codepoint=0x21, exclude_characters="\x7f"), min_size=1)
REQUEST_LINES = st.builds(
    lambda method, target, minor: f"{method} {target} HTTP/1.{minor}\r\n".encode("latin-1"),
    METHOD,
    st.one_of(VISIBLE, st.integers(1, MAX_SNIFFED_BYTES - 100).map(lambda n: "/" * n)),
    st.integers(0, 1),
)
CUT_LINES = st.tuples(REQUEST_LINES, st.integers(0, 200)).map(lambda pair: pair[0][: -pair[1] or None])
FIRST_BYTES = st.one_of(
    st.binary(min_size=1, max_size=50),
    CUT_LINES.filter(bool),
    st.sampled_from([b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2", b"\x16\x03\x01", b"\x16", b"SSH-2.0-x\r\n", b"GET \r\n"]),
)


@given(FIRST_BYTES, st.one_of(st.binary(max_size=40), st.integers(0, 9000).map(lambda n: b"a" * n)))
def test_what_is_decided_stays_decided(first: bytes, more: bytes) -> None:
    decided = sniff(first)
    if decided is not Sniffed.MORE:
        assert sniff(first + more) is decided


@given(REQUEST_LINES, st.data())
def test_every_request_line_is_http_and_none_of_its_prefixes_is_anything_else(line: bytes, data: st.DataObject) -> None:
    assert sniff(line) is Sniffed.HTTP1
    assert sniff(line[: data.draw(st.integers(1, len(line) - 1))]) is Sniffed.MORE


@given(st.one_of(st.binary(min_size=1, max_size=20), st.sampled_from([b"G", b"GET /", b"GET / H", b"PRI * "])))
def test_enough_bytes_always_decide(unit: bytes) -> None:
    data = unit * (MAX_SNIFFED_BYTES // len(unit) + 1)
    assert sniff(data) is not Sniffed.MORE
    assert sniff(unit + b"a" * MAX_SNIFFED_BYTES) is not Sniffed.MORE
