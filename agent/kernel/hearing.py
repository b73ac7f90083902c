"""Who changes nftables, policy rules and routes, in every network namespace that has a number (agent.kernel.nsid).

Two sockets of the agent's own namespace hear all others (NETLINK_LISTEN_ALL_NSID, netlink(7)), so nothing is held open
in any pod. What is heard is a hint, never a proof: the kernel drops messages when the reader is slow, says nothing when
a link that goes down takes its IPv4 routes along, and who sent a request is known by a number only.

Numbers are of linux/netlink.h, linux/rtnetlink.h, linux/netfilter/nfnetlink.h and linux/filter.h.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kernel import own_threads
from agent.kernel.netlink import attributes
from agent.kernel.nft_messages import NETLINK_NETFILTER, NEWGEN, NFGENMSG, NFNL_SUBSYS_NFTABLES
from agent.pods import NetnsId
from agent.printable import printable

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 1, 8
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33

_NFNLGRP_NFTABLES: Final = 7
_LINK_GROUP: Final = 1
_ROUTE_GROUPS: Final = (_LINK_GROUP, 7, 8, 11, 19)  # RTNLGRP_: LINK, IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE, IPV6_RULE
_RTM_NEWLINK: Final = 16
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWRULE, _RTM_DELRULE = 32, 33
_RT_TABLE_COMPAT: Final = 252  # what the one-byte field says of a table above 255
_LOOPBACK_INDEX: Final = 1
_NFT_NEWGEN: Final = NFNL_SUBSYS_NFTABLES << 8 | NEWGEN
_GEN_PROC_NAME: Final = 3

_HEADER: Final = struct.Struct("=IHHII")
_S32: Final = struct.Struct("=i")
_ROOM: Final = 512  # of a message only its beginning is read: a NEWGEN has 48 bytes, a route some 100
_ANCILLARY: Final = socket.CMSG_SPACE(_S32.size)
_AT_ONCE: Final = 512
"""Messages read before pods are looked at: a receive buffer holds no more of them (measured: 277 in 208 KiB)."""
_BUFFER_BYTES: Final = 1 << 20
"""250 pods that are installed at once make some 1,500 messages of 768 bytes within a second."""

# linux/bpf_common.h: load half word, byte, word; jump if equal; return.
_LDH, _LDB, _LDW, _JEQ, _RET = 0x28, 0x30, 0x20, 0x15, 0x06
_INSTRUCTION: Final = struct.Struct("=HBBI")
_KIND_AT, _TABLE_AT, _INDEX_AT = 4, 20, 20  # in nlmsghdr; in rtmsg and ifinfomsg behind it

UNSEEN: Final = "unknown (changed while nobody listened)"


@dataclass(frozen=True, slots=True)
class Heard:
    """Something was changed in the namespace numbered `nsid`. `pid`: who did it, 0 when it was the kernel itself or is
    not known; `name` of that process, "" when the message does not say."""

    nsid: int
    pid: int
    name: str


class Hearing:
    """Made in the agent's own namespace. Raises OSError when the kernel refuses (EPERM: CAP_NET_BROADCAST)."""

    __slots__ = ("_sockets",)

    def __init__(self, table: int) -> None:
        """`table`: the routing table whose changes are heard; what happens to others stays in the kernel."""
        self._sockets: list[socket.socket] = []
        try:
            self._listen(NETLINK_NETFILTER, (_NFNLGRP_NFTABLES,), _generations_only())
            self._listen(socket.NETLINK_ROUTE, _ROUTE_GROUPS, _return_paths_only(table))
        except BaseException:
            self.close()
            raise

    def _listen(self, protocol: int, groups: Sequence[int], program: bytes) -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        self._sockets.append(sock)
        _attach(sock, program)
        with suppress(OSError):  # without CAP_NET_ADMIN over the node the usual buffer must do
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.bind((0, 0))
        sock.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def filenos(self) -> tuple[int, ...]:
        return tuple(sock.fileno() for sock in self._sockets)

    def read(self) -> tuple[list[Heard], bool]:
        """What was heard, of other namespaces only; and whether some was lost: then anything may have changed."""
        heard: list[Heard] = []
        lost = False
        for sock in self._sockets:
            for _ in range(_AT_ONCE):
                try:
                    data, ancillary, _, sender = sock.recvmsg(_ROOM, _ANCILLARY)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    lost = True
                    continue
                # Only the kernel's own word counts: a pod may send to a group too (af_netlink.c: netlink_sendmsg).
                if ancillary and sender[0] == 0:
                    heard.append(_understood(_S32.unpack(ancillary[0][2])[0], data))
        return heard, lost

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def who(heard: Heard, netns_id: NetnsId, proc: Path = Path("/proc")) -> str:
    """Name and pid of who did it, as far as they can be told; "" for this process itself. `proc`: the node's.

    nftables tells both, of the thread. rtnetlink tells the sending socket's number, which is its process's as a rule,
    as that sees itself: in a container, another's on the node. So the name is taken only from a process that runs in
    that very namespace.
    """
    if heard.pid == 0:
        return ""
    if heard.name:
        return "" if own_threads.is_ours(heard.pid) else f"{heard.name} (pid {heard.pid})"
    if heard.pid == os.getpid():
        return ""
    with suppress(OSError):
        status = (proc / f"{heard.pid}/ns/net").stat()
        if (status.st_dev, status.st_ino) == (netns_id.device, netns_id.inode):
            name = (proc / f"{heard.pid}/comm").read_text(errors="replace").rstrip("\n")
            return f"{printable(name)} (pid {heard.pid})"
    # A socket that did not get its process's number has one from the top half (af_netlink.c: netlink_autobind).
    return f"a process that is not seen (pid {heard.pid})" if heard.pid < 1 << 22 else ""


def _understood(nsid: int, data: bytes) -> Heard:
    _, kind, _, _, port = _HEADER.unpack_from(data)
    if kind != _NFT_NEWGEN:
        return Heard(nsid, port, "")
    found = attributes(data[_HEADER.size + NFGENMSG.size :])
    name = found.get(_GEN_PROC_NAME, b"").partition(b"\0")[0].decode("utf-8", "replace")
    return Heard(nsid, int.from_bytes(found.get(own_threads.GEN_PROC_PID, b""), "big"), printable(name))


# ── What is worth waking for ───────────────────────────────────────────────────────────────────────────────────────
# A node's routing daemon, kube-proxy's thousands of rules and each address of each new pod are told to the same groups.
def _generations_only() -> bytes:
    """Each transaction ends with one message of its own that says who made it; the objects' own are not needed."""
    return _program(
        (_LDH, 0, 0, _KIND_AT),
        (_JEQ, 0, 1, _half(_NFT_NEWGEN)),
        (_RET, 0, 0, 0xFFFFFFFF),
        (_RET, 0, 0, 0),
    )


def _return_paths_only(table: int) -> bytes:
    """Every policy rule, the routes of our table, and what happens to lo, with which its routes go."""
    return _program(
        (_LDH, 0, 0, _KIND_AT),
        (_JEQ, 9, 0, _half(_RTM_NEWRULE)),
        (_JEQ, 8, 0, _half(_RTM_DELRULE)),
        (_JEQ, 3, 0, _half(_RTM_NEWROUTE)),
        (_JEQ, 2, 0, _half(_RTM_DELROUTE)),
        (_JEQ, 3, 0, _half(_RTM_NEWLINK)),
        (_RET, 0, 0, 0),
        (_LDB, 0, 0, _TABLE_AT),
        (_JEQ, 2, 3, table if table < 256 else _RT_TABLE_COMPAT),
        (_LDW, 0, 0, _INDEX_AT),
        (_JEQ, 0, 1, int.from_bytes(struct.pack("=I", _LOOPBACK_INDEX), "big")),
        (_RET, 0, 0, 0xFFFFFFFF),
        (_RET, 0, 0, 0),
    )


def _half(kind: int) -> int:
    """A netlink field is in host order, and a filter loads in network order."""
    return int.from_bytes(kind.to_bytes(2, sys.byteorder), "big")


def _program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def _attach(sock: socket.socket, program: bytes) -> None:
    """socket(7): SO_ATTACH_FILTER; struct sock_fprog names the program by address."""
    instructions = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
