"""The kernel's own trace of packets through nftables (`meta nftrace set 1`), as messages of one namespace.

A message tells one rule that matched, the end of a chain, or a policy; a rule that did not match tells nothing. The
first of each base chain has the packet's headers as they are there, so what NAT writes shows in the next one's.
Numbers are of linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h; what is sent when, net/netfilter/
nf_tables_trace.c. iptables-legacy's rules send none.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from agent.kernel.nft_messages import NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1  # linux/netlink.h
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55  # asm-generic/socket.h
_MEMINFO_DROPS: Final = struct.Struct("=9I")  # linux/sock_diag.h: SK_MEMINFO_DROPS is the ninth
_NFNLGRP_NFTRACE: Final = 9
_NFNLGRP_CONNTRACK_NEW: Final = 1

_MSG_TRACE: Final = NFNL_SUBSYS_NFTABLES << 8 | 17
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID = 1, 2, 3, 4, 5, 6
_NETWORK, _TRANSPORT, _IIF, _OIF = 8, 9, 10, 12
_MARK, _NFPROTO, _POLICY = 14, 15, 16
_CT_ID, _CT_DIRECTION, _CT_STATUS, _CT_STATE = 18, 19, 20, 21
"""NFTA_TRACE_*; those of conntrack since Linux 6.16, and only where conntrack has seen the packet."""
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2

_HEADER: Final = struct.Struct("=IHHIIBBH")  # struct nlmsghdr, struct nfgenmsg
_ATTRIBUTE: Final = struct.Struct("=HH")
_SIGNED: Final = struct.Struct(">i")

_ROOM: Final = 1 << 13
BUFFER_BYTES: Final = 64 << 20
"""A message takes 1 to 1.3 KiB of the buffer, whatever its length (skb truesize): 1,000 new connections a second that
meet 40 rules each are 40 MiB a second, and the reader may be kept away for one (measured: tests/netns/tracing)."""

RULE, POLICY = 3, 1
"""`TraceEvent.kind` (enum nft_trace_types). A RULE without handle is the end of a chain."""


@dataclass(slots=True)
class TraceEvent:
    """`trace_id`: of the packet, until it goes over lo: then it has another. `family`: of the table; `nfproto`: of the
    packet. Names in no UTF-8 have surrogates (PEP 383), as in agent.ruleset.nft_objects. `verdict`: NF_* or NFT_*; of a
    policy, the policy. `handle` 0: no rule. `network`, `transport`: the beginnings of these headers, empty but in the
    first message of a base chain. `ct_id` None: conntrack has not seen the packet, or this kernel does not say. Not
    frozen: 25,000 are made a second."""

    trace_id: int
    kind: int
    family: int
    nfproto: int
    table: str
    chain: str
    handle: int
    verdict: int
    target: str
    mark: int
    iif: int
    oif: int
    network: bytes
    transport: bytes
    ct_id: int | None
    ct_status: int


class TraceSocket:
    """Hears traces and new conntrack entries of the namespace in which it is made, and pins it: close promptly.

    Raises OSError when the kernel refuses (PermissionError: CAP_NET_ADMIN in that namespace).
    """

    __slots__ = ("_socket", "overruns")

    def __init__(self, group: int = _NFNLGRP_NFTRACE, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.overruns = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        try:
            with suppress(OSError):  # without CAP_NET_ADMIN over the node the usual buffer must do; losses are counted
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise

    @classmethod
    def of_connections(cls) -> Self:
        """Of new conntrack entries. The kernel tells those that are made while somebody listens (sysctl
        nf_conntrack_events, 2: nf_conntrack_ecache.c)."""
        return cls(_NFNLGRP_CONNTRACK_NEW)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, at_most: int) -> Iterator[bytes]:
        """Messages that are there, at most so many. One that somebody else sent than the kernel is left out."""
        receive = self._socket.recvfrom
        for _ in range(at_most):
            try:
                data, sender = receive(_ROOM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1  # told once, however many were lost: `lost` knows
                continue
            if sender[0] == 0:
                yield data

    def lost(self) -> int:
        """Messages that found the buffer full, since the socket was made (af_netlink.c: netlink_overrun)."""
        return int(
            _MEMINFO_DROPS.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_DROPS.size))[8]
        )


def decode(data: bytes) -> TraceEvent | None:
    """None for another message. What is cut short ends the reading."""
    if len(data) < _HEADER.size:
        return None
    end, message, _, _, _, family, _, _ = _HEADER.unpack_from(data)
    if message != _MSG_TRACE or end > len(data):
        return None
    event = TraceEvent(0, 0, family, 0, "", "", 0, 0, "", 0, 0, 0, b"", b"", None, 0)
    offset, unpack, number = _HEADER.size, _ATTRIBUTE.unpack_from, int.from_bytes
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            break
        value = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
        kind &= 0x3FFF  # NLA_TYPE_MASK
        if kind == _TABLE:
            event.table = value[:-1].decode("utf-8", "surrogateescape")
        elif kind == _CHAIN:
            event.chain = value[:-1].decode("utf-8", "surrogateescape")
        elif kind == _HANDLE:
            event.handle = number(value, "big")
        elif kind == _TYPE:
            event.kind = number(value, "big")
        elif kind == _ID:
            event.trace_id = number(value, "big")
        elif kind == _VERDICT:
            _decide(event, value)
        elif kind == _POLICY:
            event.verdict = number(value, "big")
        else:
            _rest(event, kind, value)
    return event


def _decide(event: TraceEvent, nested: bytes) -> None:
    offset = 0
    while offset + 4 <= len(nested):
        length, kind = _ATTRIBUTE.unpack_from(nested, offset)
        if length < 4 or offset + length > len(nested):
            return
        value = nested[offset + 4 : offset + length]
        if kind == _VERDICT_CODE and len(value) == _SIGNED.size:
            event.verdict = _SIGNED.unpack(value)[0]
        elif kind == _VERDICT_CHAIN:
            event.target = value[:-1].decode("utf-8", "surrogateescape")
        offset += (length + 3) & ~3


def _rest(event: TraceEvent, kind: int, value: bytes) -> None:
    if kind == _NETWORK:
        event.network = value
    elif kind == _TRANSPORT:
        event.transport = value
    elif kind == _MARK:
        event.mark = int.from_bytes(value, "big")
    elif kind == _NFPROTO:
        event.nfproto = int.from_bytes(value, "big")
    elif kind == _IIF:
        event.iif = int.from_bytes(value, "big")
    elif kind == _OIF:
        event.oif = int.from_bytes(value, "big")
    elif kind == _CT_ID:
        event.ct_id = int.from_bytes(value, "big")
    elif kind == _CT_STATUS:
        event.ct_status = int.from_bytes(value, "big")
