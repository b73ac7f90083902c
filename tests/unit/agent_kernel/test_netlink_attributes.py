"""netlink attributes, as written and as read."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink import Message, attribute, attribute_list, attributes, encode, nested

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


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_a_list_keeps_order_and_repeated_types(values: list[tuple[int, bytes]]) -> None:
    assert list(attribute_list(b"".join(attribute(kind, data) for kind, data in values))) == values


def test_a_message_tells_its_length_without_the_padding() -> None:
    """netlink(7): struct nlmsghdr is length, type, flags, sequence, port; the next message is aligned to 4."""
    expected = struct.pack("=IHHII", 21, 7, 0x1 | 0x400, 9, 0) + b"12345" + bytes(3)
    assert encode(Message(7, 0x400, b"12345"), 9) == expected
