"""Trace messages and packets as the kernel writes them, for tests of who reads them."""

import struct
from ipaddress import ip_address

from agent.kernel.netlink import attribute, nested
from agent.kernel.nftrace import RULE, TraceEvent, decode

INET, IPV4, IPV6 = 1, 2, 10
ACCEPT, DROP, CONTINUE, JUMP = 1, 0, -1, -3
SYN, ACK = 2, 16


def ip_header(source: str, destination: str, protocol: int = 6, ident: int = 7, length: int = 60) -> bytes:
    here, there = ip_address(source), ip_address(destination)
    if here.version == 4:
        return struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, ident, 0x4000, 64, protocol, 0, here.packed, there.packed)
    return struct.pack(">IHBB16s16s", 6 << 28 | ident, length, protocol, 64, here.packed, there.packed)


def tcp_header(source_port: int, destination_port: int, flags: int = SYN, sequence: int = 1000) -> bytes:
    return struct.pack(">HHIIBBHHH", source_port, destination_port, sequence, 0, 0xA0, flags, 64240, 0, 0)


def udp_header(source_port: int, destination_port: int) -> bytes:
    return struct.pack(">HHHH", source_port, destination_port, 12, 0)


def message(
    trace_id: int,
    table: str,
    chain: str,
    *,
    kind: int = RULE,
    handle: int = 0,
    verdict: int = CONTINUE,
    target: str = "",
    policy: int | None = None,
    mark: int = 0,
    iif: int = 0,
    oif: int = 0,
    headers: tuple[bytes, bytes] | None = None,
    family: int = INET,
    nfproto: int = IPV4,
    ct_id: int | None = None,
) -> bytes:
    """One NFT_MSG_TRACE (linux/netfilter/nf_tables.h)."""
    parts = [
        attribute(15, nfproto.to_bytes(4, "big")),
        attribute(4, kind.to_bytes(4, "big")),
        attribute(6, trace_id.to_bytes(4, "big")),
        attribute(2, chain.encode() + b"\0"),
        attribute(1, table.encode() + b"\0"),
    ]
    if handle:
        parts.append(attribute(3, handle.to_bytes(8, "big")))
    parts.append(_verdict(verdict, target) if policy is None else attribute(16, policy.to_bytes(4, "big")))
    parts += [
        attribute(number, value.to_bytes(4, "big")) for number, value in ((14, mark), (10, iif), (12, oif)) if value
    ]
    if headers is not None:
        parts += [attribute(8, headers[0]), attribute(9, headers[1])]
    if ct_id is not None:
        parts.append(attribute(18, ct_id.to_bytes(4, "big")))
    body = struct.pack("=BBH", family, 0, 0) + b"".join(parts)
    return struct.pack("=IHHII", 16 + len(body), 10 << 8 | 17, 0, 0, 0) + body


def _verdict(verdict: int, target: str) -> bytes:
    jump = (attribute(2, target.encode() + b"\0"),) if target else ()
    return nested(5, attribute(1, struct.pack(">i", verdict)), *jump)


def event(*args: object, **words: object) -> TraceEvent:
    """Such a message as it is decoded."""
    found = decode(message(*args, **words))  # type: ignore[arg-type]  # handed on as it came
    assert found is not None
    return found
