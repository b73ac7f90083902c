"""The packets of fds.sock and the frame of a box."""

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import fd_box, stream, zds
from proxy.api.stream import BoxedListener, BoxFound, BoxFrame, Deposit, NoBox, Refused, Stored, StoreHello, Take

UID = st.text(min_size=1, max_size=256)
COOKIE = st.integers(0, 2**64 - 1)
FRAME = BoxFrame("uid-1", 4711, (BoxedListener(15001, 4), BoxedListener(15001, 6)))


@given(
    st.one_of(
        st.builds(StoreHello, st.booleans()),
        st.builds(Deposit, UID, COOKIE),
        st.builds(Take, UID),
        st.just(Stored()),
        st.builds(Refused, st.text(max_size=200)),
        st.builds(BoxFound, UID, COOKIE),
        st.just(NoBox()),
    )
)
def test_every_message_is_read_as_it_was_written_and_fits_into_a_packet(message: stream.StoreMessage) -> None:
    packet = stream.encode_store(message)
    assert stream.decode_store(packet) == message
    assert len(packet) <= stream.MAX_STORE_PACKET_BYTES


@pytest.mark.parametrize("character", ["\0", "\x7f", "é", "\ud800", "☃", "\U0001f600"])
def test_the_longest_uid_of_a_zds_message_fits_into_a_packet(character: str) -> None:
    bytes_each = len(character.encode("utf-8", "surrogatepass"))
    deposit = Deposit(character * (zds.MAX_MESSAGE_BYTES // bytes_each), 2**64 - 1)
    packet = stream.encode_store(deposit)
    assert len(packet) <= stream.MAX_STORE_PACKET_BYTES
    assert stream.decode_store(packet) == deposit


def test_messages_have_the_agreed_form() -> None:
    assert json.loads(stream.encode_store(Deposit("uid-1", 7))) == {
        "type": "deposit",
        "uid": "uid-1",
        "netns_cookie": 7,
    }
    assert json.loads(stream.encode_store(Take("uid-1"))) == {"type": "take", "uid": "uid-1"}
    assert json.loads(stream.encode_box(FRAME)) == {
        "uid": "uid-1",
        "netns_cookie": 4711,
        "listeners": [{"port": 15001, "family": 4}, {"port": 15001, "family": 6}],
    }


@given(
    UID,
    COOKIE,
    st.lists(
        st.builds(BoxedListener, st.integers(0, 65535), st.sampled_from((4, 6))),
        min_size=1,
        max_size=stream.MAX_BOX_LISTENERS,
    ),
)
def test_every_frame_is_read_as_it_was_written(uid: str, cookie: int, listeners: list[BoxedListener]) -> None:
    frame = BoxFrame(uid, cookie, tuple(listeners))
    assert stream.decode_box(stream.encode_box(frame)) == frame


@given(st.binary(max_size=200))
def test_hostile_packets_are_read_or_refused(packet: bytes) -> None:
    for decode in (stream.decode_store, stream.decode_box):
        try:
            decode(packet)
        except stream.InvalidMessage as error:
            assert str(error)


@pytest.mark.parametrize(
    ("packet", "what"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no JSON"),
        (b"[" * 5000, "no JSON"),
        (b"{}", "type"),
        (b'{"type":"objects"}', "type"),
        (b'{"type":"take"}', "uid"),
        (b'{"type":"take","uid":""}', "uid"),
        (b'{"type":"take","uid":7}', "uid"),
        (b'{"type":"take","uid":"' + b"a" * 1025 + b'"}', "uid"),
        (b'{"type":"deposit","uid":"a"}', "netns_cookie"),
        (b'{"type":"deposit","uid":"a","netns_cookie":true}', "netns_cookie"),
        (b'{"type":"deposit","uid":"a","netns_cookie":-1}', "netns_cookie"),
        (b'{"type":"deposit","uid":"a","netns_cookie":18446744073709551616}', "netns_cookie"),
    ],
)
def test_a_packet_that_cannot_be_understood_names_its_field(packet: bytes, what: str) -> None:
    with pytest.raises(stream.InvalidMessage, match=what):
        stream.decode_store(packet)


@pytest.mark.parametrize(
    ("listeners", "what"),
    [
        (None, "listeners"),
        ([], "listeners"),
        ([7], "listeners"),
        ([{"port": 15001, "family": 5}], "family"),
        ([{"port": 70000, "family": 4}], "port"),
        ([{"port": 15001, "family": 4}] * 254, "listeners"),
    ],
)
def test_a_frame_that_cannot_be_understood_names_its_field(listeners: object, what: str) -> None:
    with pytest.raises(stream.InvalidMessage, match=what):
        stream.decode_box(json.dumps({"uid": "a", "netns_cookie": 1, "listeners": listeners}).encode())


# ── Boxes ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def box_with(*descriptors: int) -> socket.socket:
    return fd_box.make_box(FRAME, descriptors)


def test_what_is_in_a_box_can_be_looked_at_again_and_again() -> None:
    reading, writing = os.pipe()
    with box_with(writing) as box:
        os.close(writing)
        for _ in range(3):
            packet = fd_box.look_into(box)
            assert packet is not None
            assert stream.decode_box(packet.data) == FRAME
            packet.close()
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):  # somebody still holds the writing end: the box
            os.read(reading, 1)
        fd_box.empty(box)
        assert os.read(reading, 1) == b""
        os.close(reading)


def test_a_box_that_one_holder_empties_is_empty_for_the_other_one() -> None:
    reading, writing = os.pipe()
    with box_with(writing) as box, box.dup() as other:
        os.close(writing)
        fd_box.empty(other)
        assert os.read(reading, 1) == b""
        assert fd_box.look_into(box) is None
        fd_box.empty(box)
        os.close(reading)


def test_a_box_keeps_its_content_until_the_last_holder_closes_it() -> None:
    reading, writing = os.pipe()
    with box_with(writing) as box:
        os.close(writing)
        other = box.dup()
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
    other.close()
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_looking_into_what_is_no_box_is_an_error_and_emptying_it_is_none() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        right.send(b"x" * (stream.MAX_STORE_PACKET_BYTES + 1))
        with pytest.raises(zds.ProtocolError, match="cut short"):
            fd_box.look_into(left)
        fd_box.empty(left)
        assert fd_box.look_into(left) is None
        right.send(b"x")
        right.send(b"y")
        fd_box.empty(left)
        assert fd_box.look_into(left) is None
