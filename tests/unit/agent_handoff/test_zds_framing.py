"""ZDS on the wire: the bytes of istio-cni and ztunnel, and what each side refuses."""

import os
import socket
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import zds
from tests.unit.agent_handoff.client import open_descriptors

INFO = zds.WorkloadInfo("web", "shop", "default")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


# ── The issue's field numbers, written out by hand: tag = number << 3 | wire type ──────────────────────────────────
@pytest.mark.parametrize(
    ("encoded", "wire"),
    [
        (zds.encode_hello(), b"\x08\x01"),
        # Ours: fields 50001 and 50002, beyond what they number.
        (zds.encode_hello(zds.Hello(3, 5)), b"\x08\x01" + b"\x88\xb5\x18\x03" + b"\x90\xb5\x18\x05"),
        (
            zds.encode_request(zds.AddWorkload("u1", INFO)),
            b"\x0a\x1a" + b"\x0a\x02u1" + b"\x12\x14" + b"\x0a\x03web" + b"\x12\x04shop" + b"\x1a\x07default",
        ),
        (zds.encode_request(zds.DeleteWorkload("u1")), b"\x12\x04" + b"\x12\x02u1"),
        # Ours: field 50001, in milliseconds.
        (zds.encode_request(zds.DeleteWorkload("u1", 2.0)), b"\x12\x09" + b"\x12\x02u1" + b"\x88\xb5\x18\xd0\x0f"),
        (zds.encode_request(zds.SnapshotSent()), b"\x1a\x00"),
        (zds.encode_request(zds.KeepWorkload("u1")), b"\x2a\x04" + b"\x0a\x02u1"),
        (zds.encode_ack(), b"\x0a\x00"),
        (zds.encode_ack("no"), b"\x0a\x04" + b"\x0a\x02no"),
    ],
)
def test_issue_2_messages_have_the_wire_form_of_istio_and_ztunnel(encoded: bytes, wire: bytes) -> None:
    assert encoded == wire


names = st.text(max_size=80)
requests = st.one_of(
    st.builds(zds.AddWorkload, st.text(min_size=1, max_size=80), st.builds(zds.WorkloadInfo, names, names, names)),
    st.builds(zds.KeepWorkload, st.text(min_size=1, max_size=80)),
    st.builds(
        zds.DeleteWorkload,
        st.text(min_size=1, max_size=80),
        st.integers(min_value=0, max_value=(1 << 32) - 1).map(lambda milliseconds: milliseconds / 1000),
    ),
    st.just(zds.SnapshotSent()),
)


@given(requests)
def test_every_request_is_read_as_it_was_written_or_refused_as_too_long(request: zds.Request) -> None:
    try:
        encoded = zds.encode_request(request)
    except ValueError:
        assert isinstance(request, zds.AddWorkload)
        return
    assert len(encoded) <= zds.MAX_MESSAGE_BYTES
    assert zds.decode_request(encoded) == request


@given(st.binary(max_size=200))
def test_hostile_bytes_are_read_or_refused_never_worse(data: bytes) -> None:
    for decode in (zds.decode_request, zds.decode_ack, zds.decode_hello):
        try:
            decode(data)
        except zds.ProtocolError as error:
            assert str(error)


def test_unknown_fields_are_ignored() -> None:
    unknown = b"\x7a\x03new"  # field 15, bytes
    assert zds.decode_request(zds.encode_request(zds.KeepWorkload("u1")) + unknown) == zds.KeepWorkload("u1")
    assert zds.decode_ack(zds.encode_ack("no") + unknown) == "no"
    zds.decode_hello(zds.encode_hello() + unknown)


def test_how_many_requests_a_proxy_takes_at_once_is_said_by_its_hello() -> None:
    said = [zds.decode_hello(zds.encode_hello(zds.Hello(number, 7))) for number in (1, 2, 16)]
    assert said == [zds.Hello(1, 7), zds.Hello(2, 7), zds.Hello(16, 7)]
    assert zds.decode_hello(b"\x08\x01\x88\xb5\x18\x00") == zds.Hello()  # nobody takes none


@pytest.mark.parametrize("hello", [b"", b"\x08\x00", b"\x08\x02"])
def test_hello_of_another_version_is_refused(hello: bytes) -> None:
    with pytest.raises(zds.ProtocolError, match="version"):
        zds.decode_hello(hello)


@pytest.mark.parametrize("request_", [b"", b"\x22\x00", b"\x0a\x00", b"\x2a\x00", b"\x12\x00", b"\x0a\x02\x0a\xff"])
def test_request_without_payload_or_uid_is_refused(request_: bytes) -> None:
    with pytest.raises(zds.ProtocolError):
        zds.decode_request(request_)


def test_names_that_would_not_arrive_whole_are_refused_before_sending() -> None:
    long = zds.WorkloadInfo("n" * 400, "s" * 400, "a" * 400)
    with pytest.raises(ValueError, match="at most 1024"):
        zds.encode_request(zds.AddWorkload("u1", long))


@given(st.text(max_size=3000))
def test_long_refusal_is_cut_so_that_it_arrives(error: str) -> None:
    encoded = zds.encode_ack(error)
    assert len(encoded) <= zds.MAX_MESSAGE_BYTES
    read = zds.decode_ack(encoded)
    assert error.encode("utf-8", "replace").decode().startswith(read)
    assert bool(read) == bool(error)


def test_add_needs_exactly_one_descriptor_and_the_others_none() -> None:
    for request, count in [
        (zds.AddWorkload("u1", INFO), 0),
        (zds.AddWorkload("u1", INFO), 2),
        (zds.DeleteWorkload("u1"), 1),
        (zds.KeepWorkload("u1"), 1),
        (zds.SnapshotSent(), 1),
    ]:
        before = open_descriptors()
        descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
        with pytest.raises(zds.ProtocolError, match=f"with {count} descriptors"):
            zds.take_descriptor(request, descriptors)
        assert open_descriptors() == before
    assert zds.take_descriptor(zds.SnapshotSent(), ()) is None
    assert zds.take_descriptor(zds.AddWorkload("u1", INFO), (7,)) == 7


def test_descriptor_arrives_beside_its_message(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    zds.send(left, b"message", (left.fileno(),))
    packet = zds.receive(right)
    assert packet.data == b"message"
    (fd,) = packet.descriptors
    assert os.fstat(fd).st_ino == os.fstat(left.fileno()).st_ino
    assert not os.get_inheritable(fd)
    packet.close()


def test_message_cut_short_closes_its_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    before = open_descriptors()
    zds.send(left, b"x" * (zds.MAX_MESSAGE_BYTES + 1), (left.fileno(),))
    with pytest.raises(zds.ProtocolError, match="message cut short"):
        zds.receive(right)
    assert open_descriptors() == before


@pytest.mark.parametrize("count", [17, 100, 253])
def test_more_descriptors_than_fit_are_all_closed(pair: tuple[socket.socket, socket.socket], count: int) -> None:
    left, right = pair
    before = open_descriptors()
    rights = array("i", [left.fileno()] * count)
    left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    with pytest.raises(zds.ProtocolError, match="ancillary data cut short"):
        zds.receive(right)
    assert open_descriptors() == before


def test_message_of_exactly_the_limit_arrives(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    zds.send(left, b"x" * zds.MAX_MESSAGE_BYTES)
    assert len(zds.receive(right).data) == zds.MAX_MESSAGE_BYTES
