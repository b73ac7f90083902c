"""The kernel's trace messages: each field where it belongs, and nothing that could be in them is an error."""

import random

from agent.kernel.nftrace import POLICY, RULE, decode
from tests.unit.agent.tracing.messages import IPV4, JUMP, ip_header, message, tcp_header


def test_a_rule_that_jumps_is_told_with_its_handle_target_mark_and_headers() -> None:
    headers = (ip_header("10.0.0.5", "10.0.0.9"), tcp_header(4000, 80))
    data = message(
        77, "nat", "OUTPUT", handle=12, verdict=JUMP, target="ISTIO_OUTPUT", mark=0x539, oif=2, headers=headers, ct_id=9
    )
    found = decode(data)
    assert found is not None
    assert (found.trace_id, found.kind, found.nfproto, found.table, found.chain) == (77, RULE, IPV4, "nat", "OUTPUT")
    assert (found.handle, found.verdict, found.target, found.mark) == (12, JUMP, "ISTIO_OUTPUT", 0x539)
    assert (found.iif, found.oif, found.ct_id) == (0, 2, 9)
    assert (found.network, found.transport) == headers


def test_a_policy_is_told_as_its_verdict() -> None:
    found = decode(message(1, "filter", "INPUT", kind=POLICY, policy=1))
    assert found is not None and (found.kind, found.handle, found.verdict) == (POLICY, 0, 1)


def test_a_message_of_another_kind_is_none() -> None:
    data = bytearray(message(1, "t", "c"))
    data[4] = 16  # NFT_MSG_GETGEN
    assert decode(bytes(data)) is None
    assert decode(b"") is None


def test_names_that_are_no_text_are_kept_apart() -> None:
    data = message(1, "t", "chain").replace(b"chain\0", b"\xff\x1b[2J\0")
    found = decode(data)
    assert found is not None and found.chain == "\udcff\x1b[2J"


def test_no_message_however_broken_is_an_error() -> None:
    chance = random.Random(6)
    whole = message(1, "t", "c", handle=3, target="x", headers=(ip_header("::1", "::2"), b"abc"), nfproto=10)
    for _ in range(5000):
        data = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        decode(bytes(data))
