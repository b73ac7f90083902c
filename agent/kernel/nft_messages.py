"""nf_tables' own netlink messages: how they are framed, asked for and told apart.

Numbers are of linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h.
"""

import socket
import struct
from collections.abc import Iterator
from typing import Final

from agent.kernel.netlink import Message, Netlink

NETLINK_NETFILTER: Final = 12  # linux/netlink.h
NFPROTO_INET: Final = 1  # linux/netfilter.h
NFNL_SUBSYS_NFTABLES: Final = 10

NEWTABLE, GETTABLE, NEWCHAIN, GETCHAIN, NEWRULE, GETRULE = 0, 1, 3, 4, 6, 7
NEWSET, GETSET, NEWSETELEM, GETSETELEM = 9, 10, 12, 13
NEWGEN, GETGEN = 15, 16

NFGENMSG: Final = struct.Struct("=BB2s")  # family, version, resource in network order


def message(kind: int, flags: int, payload: bytes, family: int) -> Message:
    return Message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, NFGENMSG.pack(family, 0, b"\0\0") + payload)


def dump(
    netlink: Netlink, kind: int, payload: bytes = b"", family: int = socket.AF_UNSPEC
) -> Iterator[tuple[int, bytes]]:
    """Family and attributes of each object that matches; AF_UNSPEC asks for those of all families. Raises OSError."""
    for data in netlink.dump(message(kind, 0, payload, family)):
        yield data[0], data[NFGENMSG.size :]
