"""The lines of objects.sock."""

import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import stream

NONCE = "0123456789abcdef0123456789abcdef"
PROOF = stream.Proof(NONCE, 4711, "outbound", ip_address("10.0.0.9"), 15002)


def test_messages_have_the_agreed_form() -> None:
    assert stream.encode(stream.Hello("none")) == b'{"type":"hello","objects":"none"}\n'
    assert stream.encode(stream.Serving(False)) == b'{"type":"serving","serves":false}\n'
    assert json.loads(stream.encode(PROOF)) == {
        "type": "proof",
        "nonce": NONCE,
        "netns_cookie": 4711,
        "direction": "outbound",
        "original_destination": "10.0.0.9",
        "port": 15002,
    }


@given(
    st.one_of(
        st.builds(stream.Hello, st.text()),
        st.builds(stream.ObjectSeen, st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()))),
        st.builds(stream.ObjectGone, st.builds(stream.ObjectName, st.text(), st.text(), st.text(), st.text())),
        st.just(stream.Synced()),
        st.builds(stream.Serving, st.booleans()),
        st.builds(
            stream.Verdict,
            st.builds(stream.ObjectName, st.text(), st.text(), st.text(), st.text()),
            st.integers(0, 2**63 - 1),
            st.booleans(),
            st.text(),
            st.text(),
        ),
        st.builds(
            stream.Proof,
            st.text("0123456789abcdef", min_size=32, max_size=32),
            st.integers(0, 2**64 - 1),
            st.sampled_from(("outbound", "inbound")),
            st.ip_addresses(),
            st.integers(0, 65535),
        ),
    )
)
def test_every_message_is_one_line_and_read_as_it_was_written(message: stream.Message) -> None:
    line = stream.encode(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert stream.decode(line) == message


@given(st.binary(max_size=100))
def test_hostile_lines_are_read_ignored_or_refused(line: bytes) -> None:
    try:
        stream.decode(line)
    except stream.InvalidMessage as error:
        assert str(error)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"type":"object"}', "object"),
        (b'{"type":"object","object":[]}', "object"),
        (b'{"type":"gone","group":"","kind":"Pod","namespace":"default"}', "name"),
        (b'{"type":"gone","group":5,"kind":"Pod","namespace":"default","name":"a"}', "group"),
        (b'{"type":"verdict","group":"g","kind":"K","namespace":"n","name":"a","generation":-1}', "generation"),
        (b'{"type":"verdict","group":"g","kind":"K","namespace":"n","name":"a","generation":1}', "field"),
    ],
)
def test_a_message_of_objects_that_says_too_little_is_refused(line: bytes, field: str) -> None:
    with pytest.raises(stream.InvalidMessage, match=field):
        stream.decode(line)


def test_unknown_types_and_fields_are_ignored() -> None:
    assert stream.decode(b'{"type":"objects","items":[]}') is None
    assert stream.decode(b'{"type":"hello","objects":"none","more":1}') == stream.Hello("none")


@pytest.mark.parametrize("said", [b'{"type":"serving"}', b'{"type":"serving","serves":"later","more":1}'])
def test_a_proxy_of_which_it_is_not_known_that_it_waits_serves(said: bytes) -> None:
    assert stream.decode(said) == stream.Serving(True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nonce", "short"),
        ("nonce", NONCE.upper()),
        ("nonce", 5),
        ("netns_cookie", -1),
        ("netns_cookie", True),
        ("netns_cookie", 2**64),
        ("direction", "sideways"),
        ("original_destination", "example.org"),
        ("port", 65536),
        ("port", None),
    ],
)
def test_wrong_field_is_named(field: str, value: object) -> None:
    fields = json.loads(stream.encode(PROOF)) | {field: value}
    with pytest.raises(stream.InvalidMessage, match=field):
        stream.decode(json.dumps(fields).encode())


@pytest.mark.parametrize("line", [b"", b"[]", b"1", b"{", b'{"type":1}', b"{}", b"[" * 100_000])
def test_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(stream.InvalidMessage):
        stream.decode(line)


def test_proof_request_is_48_bytes_and_recognised_only_whole() -> None:
    request = stream.encode_proof_request(NONCE)
    assert request == b"HEADGATE-PROOF " + NONCE.encode() + b"\n"
    assert len(request) == stream.PROOF_BYTES == 48
    assert stream.match_proof_request(request) == NONCE
    for other in (b"", request[:-1], request + b"x", request.replace(b"PROOF", b"proof"), request[:-2] + b"g\n"):
        assert stream.match_proof_request(other) is None


def test_proof_request_needs_a_nonce() -> None:
    with pytest.raises(ValueError, match="32"):
        stream.encode_proof_request("x\nGET / HTTP/1.1")
