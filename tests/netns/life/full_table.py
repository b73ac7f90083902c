"""A pod's conntrack table with no room left: filled, and kept full while everybody else's entries come and go.

nf_conntrack_max is the machine's, not to be touched, and read-only in every other namespace; but each namespace has
that many entries of its own (nf_conntrack_core.c: __nf_conntrack_alloc). So the table of one pod is really filled.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
import threading
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, Self

from agent.kernel import conntrack
from agent.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, attribute, encode, nested
from agent.lab.node import LabPod

_NETLINK_NETFILTER: Final = 12
_NEW: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT = 1, 2, 3, 4, 7
_ASSURED: Final = (1 << 1) | (1 << 2) | (1 << 3)
"""Replies seen, assured, confirmed: what is assured is not evicted to make room (nf_conntrack_core.c: early_drop)."""
_ESTABLISHED: Final = 3
_HOUR_S: Final = 3600
_AT_ONCE: Final = 500
_AGAIN_S: Final = 0.002
"""Between two looks whether an entry of somebody else's has ended: a SYN in between finds room, and is lucky."""
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_FIRST: Final = int(IPv4Address("198.18.0.0"))  # RFC 2544: for such purposes, and nobody's here
_THERE: Final = (IPv4Address("192.0.2.1"), 80)


class FullTable:
    """The table of a pod's namespace is full from `with` on, until `make_room`."""

    def __init__(self, pod: LabPod) -> None:
        self._pod = pod
        self._netlink = pod.call(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._netlink.setblocking(False)
        # Refusals of a whole batch must fit its queue.
        self._netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        # One message is the pattern of all: encoding a quarter of a million would take half a minute.
        self._pattern = bytearray(
            encode(Message(_NEW, NLM_F_CREATE | NLM_F_EXCL, _entry(IPv4Address(0xABCDEF01), 0x7A7B)), 1)
        )
        self._places = [found.start() for found in re.finditer(re.escape(bytes.fromhex("abcdef01")), self._pattern)]
        self._ports = [found.start() for found in re.finditer(re.escape(bytes.fromhex("7a7b")), self._pattern)]
        assert len(self._places) == len(self._ports) == 2
        self._made = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_full, name="full table")

    def __enter__(self) -> Self:
        try:
            while not self._add(_AT_ONCE):
                assert self._made < 1 << 22, "the table never became full"
        except BaseException:
            self._netlink.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        self._netlink.close()

    def make_room(self, entries: int = 500) -> None:
        """Takes so many of its own out, and puts none in their place."""
        self._stopping.set()
        self._thread.join()
        callers = map(_caller, range(entries))
        self._pod.call(conntrack.forget, [conntrack.Tuple(IPv4Address(host), port, *_THERE) for host, port in callers])

    def _keep_full(self) -> None:
        while not self._stopping.wait(_AGAIN_S):
            self._add(1)

    def _add(self, number: int) -> bool:
        """Whether the table had no room for all of them."""
        batch = bytearray()
        for at in range(self._made, self._made + number):
            host, port = _caller(at)
            for place in self._places:
                self._pattern[place : place + 4] = host.to_bytes(4, "big")
            for place in self._ports:
                self._pattern[place : place + 2] = port.to_bytes(2, "big")
            batch += self._pattern
        self._netlink.send(batch)
        self._made += number
        return self._refused()

    def _refused(self) -> bool:
        """The kernel answers a message unasked only when it refuses it, and before `send` returns."""
        full = False
        try:
            while True:
                number = -int(struct.unpack_from("=i", self._netlink.recv(1 << 16), 16)[0])
                assert number == errno.ENOMEM, f"errno {number}"
                full = True
        except BlockingIOError:
            return full


def _caller(number: int) -> tuple[int, int]:
    return _FIRST + number // 60000, 1024 + number % 60000


def _entry(source: IPv4Address, port: int) -> bytes:
    there, here = _THERE
    tcp = nested(1, attribute(1, bytes([_ESTABLISHED])))
    return (
        struct.pack("=BBH", socket.AF_INET, 0, 0)
        + _tuple(_TUPLE_ORIG, source, port, there, here)
        + _tuple(_TUPLE_REPLY, there, here, source, port)
        + attribute(_STATUS, _ASSURED.to_bytes(4, "big"))
        + attribute(_TIMEOUT, _HOUR_S.to_bytes(4, "big"))
        + nested(_PROTOINFO, tcp)
    )


def _tuple(kind: int, source: IPv4Address, port: int, destination: IPv4Address, to: int) -> bytes:
    return nested(
        kind,
        nested(1, attribute(1, source.packed), attribute(2, destination.packed)),
        nested(2, attribute(1, b"\x06"), attribute(2, port.to_bytes(2, "big")), attribute(3, to.to_bytes(2, "big"))),
    )
