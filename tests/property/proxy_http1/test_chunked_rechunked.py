"""A chunked body is the same body however the network cuts it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.chunked import MORE, ChunkedBody
from proxy.http1.errors import ProtocolError

REFUSED = "refused"
UNFINISHED = "unfinished"

TOKEN = st.text("abcXYZ-0_~", min_size=1, max_size=6).map(str.encode)
VALUE = st.text(st.characters(codec="latin-1", exclude_characters="\x7f", min_codepoint=0x20), max_size=8).map(
    lambda text: text.encode("latin-1")
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A sound chunked body: data that imitates framing, sizes in both cases, extensions, trailers."""
    out = b""
    for data in draw(st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.just(b"\r\n0\r\n\r\n")), max_size=4)):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(data)
        extension = draw(st.one_of(st.just(b""), VALUE.map(lambda value: b" ;" + value)))
        out += size + extension + b"\r\n" + data + b"\r\n"
    trailers = draw(st.lists(st.tuples(TOKEN, VALUE), max_size=3))
    return out + b"0\r\n" + b"".join(name + b":" + value + b"\r\n" for name, value in trailers) + b"\r\n"


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A body with some of its bytes replaced, left out or put in: mostly unsound, never far from sound."""
    body = bytearray(draw(bodies()))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(body) - 1)) if body else 0
        new = draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"0", b" ", b";", b":", b"\x00", b"x", b"_", b"+"]))
        body[place : place + draw(st.integers(0, 1))] = new
    return bytes(body)


def outcome(data: bytes, cuts: list[int]) -> tuple[object, bytes]:
    """Where the body ended in all of `data` (or REFUSED, UNFINISHED), and what had been forwarded by then."""
    body = ChunkedBody(400)
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts} - {0, len(data)}), len(data)]
    for start, end in pairwise(edges):
        try:
            found = body.scan(data[start:end])
        except ProtocolError:
            return REFUSED, data[:start]
        if found != MORE:
            return start + found, data[: start + found]
    return UNFINISHED, data


CUTS = st.lists(st.integers(0, 400), max_size=8)


@given(bodies(), st.binary(max_size=20), CUTS)
def test_a_sound_body_ends_at_its_end_however_it_is_cut(body: bytes, following: bytes, cuts: list[int]) -> None:
    data = body + following
    assert outcome(data, [])[0] == len(body)
    assert outcome(data, cuts)[0] == len(body)
    assert outcome(data, list(range(len(data))))[0] == len(body)


@given(st.one_of(damaged(), st.binary(max_size=60)), CUTS)
def test_whole_cut_and_byte_by_byte_agree_on_everything(data: bytes, cuts: list[int]) -> None:
    whole = outcome(data, [])[0]
    assert outcome(data, cuts)[0] == whole
    assert outcome(data, list(range(len(data))))[0] == whole


@given(damaged(), CUTS)
def test_of_a_refused_body_nothing_was_forwarded_that_a_lax_parser_takes_for_whole(
    data: bytes, cuts: list[int]
) -> None:
    """The lax one takes a bare LF for a line's end everywhere, and spaces around a size."""
    found, forwarded = outcome(data, cuts)
    if found is REFUSED:
        assert not _lax_end(forwarded)


def _lax_end(data: bytes) -> bool:
    """Whether a parser that is content with bare LF sees this body's end within `data`."""
    while True:
        line, lf, data = data.partition(b"\n")
        size = line.partition(b";")[0].strip()
        if not lf or not size or not set(size) <= set(b"0123456789abcdefABCDEF"):
            return False
        length = int(size, 16)
        if length == 0:
            return any(not line.strip(b"\r") for line in data.split(b"\n")[:-1])
        data = data[length:]
        data = data[2:] if data.startswith(b"\r\n") else data[1:] if data.startswith(b"\n") else b""
