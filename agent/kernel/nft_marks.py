"""Which bits of the packet's and the connection's mark a rule may change, as the kernel's messages tell it.

Numbers are of linux/netfilter/nf_tables.h; of iptables' own targets, of linux/netfilter/xt_mark.h and xt_connmark.h.
"""

import socket
import struct
import sys
from enum import Enum
from typing import Final

from agent.kernel.netlink import Netlink, attribute_list, attributes
from agent.kernel.nft_messages import GETRULE, NETLINK_NETFILTER, dump
from agent.printable import printable
from proxy.api.constants import MARK_MASK

_ALL: Final = 0xFFFFFFFF
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_EXPR_NAME, _EXPR_DATA = 1, 2
_FAMILIES: Final = {1: "inet", 2: "ip", 10: "ip6"}
_META_DREG, _META_KEY, _META_SREG, _META_MARK = 1, 2, 3, 3
_CT_DREG, _CT_KEY, _CT_SREG, _CT_MARK = 1, 2, 4, 3
_BITWISE_SREG, _BITWISE_DREG, _BITWISE_MASK, _BITWISE_XOR = 1, 2, 4, 5
_TARGET_NAME, _TARGET_REVISION, _TARGET_INFO, _DATA_VALUE = 1, 2, 3, 1
_RESTORES: Final = 2  # XT_CONNMARK_RESTORE
_CONNMARK: Final = {1: struct.Struct("=IIIB"), 2: struct.Struct("=IIIxxB")}
"""By revision: ctmark, ctmask, nfmask, mode; the second one can shift, too."""
_MARK: Final = struct.Struct("=II")  # mark, mask


class MarkOf(Enum):
    PACKET = "packet"
    CONNECTION = "connection"


_Registers = dict[bytes, tuple[MarkOf | None, int]]
"""What a register holds: the mark that was read into it, and which bits of it were changed since."""


def others_over_ours(tables: tuple[str, ...]) -> tuple[str, ...]:
    """B53: the chains of others, iptables-nft's too, that write bits of a mark which ours go by, in words. `tables`:
    ours, of family inet. Of the calling thread's namespace; raises OSError."""
    ours = {(1, name) for name in tables}
    found: dict[str, None] = {}
    with Netlink(NETLINK_NETFILTER) as netlink:
        for family, data in dump(netlink, GETRULE, b"", socket.AF_UNSPEC):
            rule = attributes(data)
            table, chain = (_text(rule.get(kind, b"")) for kind in (_RULE_TABLE, _RULE_CHAIN))
            if (family, table) in ours:
                continue
            for mark, bits in marks_written(rule.get(_RULE_EXPRESSIONS, b"")).items():
                if bits & MARK_MASK:
                    where = f"table {_FAMILIES.get(family, family)} {table}: chain {chain}"
                    which = f"bits {bits & MARK_MASK:#x} of the {mark.value} mark"
                    found[f"{where} writes {which}, which ours go by"] = None
    return tuple(found)


def _text(name: bytes) -> str:
    return printable(name.rstrip(b"\0").decode("utf-8", "replace"))


def marks_written(expressions: bytes) -> dict[MarkOf, int]:
    """Mark -> bits that may be changed; empty for a rule that writes none. `expressions`: NFTA_RULE_EXPRESSIONS."""
    registers: _Registers = {}
    written: dict[MarkOf, int] = {}
    for _, expression in attribute_list(expressions):
        parts = attributes(expression)
        data = attributes(parts.get(_EXPR_DATA, b""))
        match parts.get(_EXPR_NAME, b"").rstrip(b"\0"):
            case b"meta":
                _mark(MarkOf.PACKET, data, (_META_KEY, _META_MARK, _META_DREG, _META_SREG), registers, written)
            case b"ct":
                _mark(MarkOf.CONNECTION, data, (_CT_KEY, _CT_MARK, _CT_DREG, _CT_SREG), registers, written)
            case b"bitwise":
                read, bits = registers.get(data.get(_BITWISE_SREG, b""), (None, _ALL))
                changed = ~_value(data, _BITWISE_MASK) & _ALL | _value(data, _BITWISE_XOR)
                registers[data.get(_BITWISE_DREG, b"")] = (read, bits | changed)
            case b"target":
                _of_iptables(data, written)
            case _:
                # A register that is loaded with no mark, or only compared: who writes from it may change every bit.
                registers.pop(data.get(1, b""), None)
    return written


def _mark(
    mark: MarkOf,
    data: dict[int, bytes],
    keys: tuple[int, int, int, int],
    registers: _Registers,
    written: dict[MarkOf, int],
) -> None:
    kind, wanted, to, source = keys
    is_mark = int.from_bytes(data.get(kind, b""), "big") == wanted
    if to in data:
        registers[data[to]] = (mark, 0) if is_mark else (None, _ALL)
    elif is_mark and source in data:
        read, bits = registers.get(data[source], (None, _ALL))
        written[mark] = written.get(mark, 0) | (bits if read is mark else _ALL)


def _of_iptables(data: dict[int, bytes], written: dict[MarkOf, int]) -> None:
    info, revision = data.get(_TARGET_INFO, b""), int.from_bytes(data.get(_TARGET_REVISION, b""), "big")
    match data.get(_TARGET_NAME, b"").rstrip(b"\0"):
        case b"MARK" if len(info) >= _MARK.size:
            value, mask = _MARK.unpack_from(info)
            written[MarkOf.PACKET] = written.get(MarkOf.PACKET, 0) | value | mask
        case b"CONNMARK" if (layout := _CONNMARK.get(revision)) is not None and len(info) >= layout.size:
            value, mask, of_packet, mode = layout.unpack_from(info)
            which, bits = (MarkOf.PACKET, of_packet) if mode == _RESTORES else (MarkOf.CONNECTION, value | mask)
            written[which] = written.get(which, 0) | bits


def _value(data: dict[int, bytes], kind: int) -> int:
    """Registers hold a mark in the machine's own order."""
    return int.from_bytes(attributes(data.get(kind, b"")).get(_DATA_VALUE, b"")[:4], sys.byteorder)
