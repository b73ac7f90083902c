"""netlink attributes, as written and as read."""

from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink import attribute, attributes, nested

pairs = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=8)


@given(pairs)
def test_attributes_are_read_as_they_were_written(values: dict[int, bytes]) -> None:
    written = b"".join(attribute(kind, data) for kind, data in values.items())
    assert len(written) % 4 == 0
    assert attributes(written) == values


@given(pairs)
def test_nested_attributes_are_read_by_their_plain_type(values: dict[int, bytes]) -> None:
    inner = [attribute(kind, data) for kind, data in values.items()]
    assert attributes(attributes(nested(3, *inner))[3]) == values


@given(st.binary(max_size=64))
def test_what_is_cut_short_ends_the_reading(data: bytes) -> None:
    found = attributes(data)
    assert sum(len(value) for value in found.values()) <= len(data)
