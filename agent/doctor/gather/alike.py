"""Namespaces whose rules are the same, byte for byte, but for counters: read in full once, and known again by what the
kernel itself tells of them. Two hundred sidecars of one mesh differ in nothing; both makes' iptables-save for both
families takes 30 ms a pod, this 3.
"""

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.kernel import iptables_tools
from agent.kernel.netlink import Netlink, attributes
from agent.kernel.nft_messages import GETCHAIN, GETRULE, GETSET, GETTABLE, NETLINK_NETFILTER, dump, message
from agent.kernel.nft_snapshot import Pattern, Snapshot, pattern_of
from agent.plan import IPFamily
from agent.plan.render.nft import ANCHOR_TABLE, TABLE
from agent.ruleset.inventory import Inventory
from agent.ruleset.read import inventory

_REMEMBERED: Final = 16
"""Kinds of namespaces: a mesh's sidecars, a CNI plugin's, of one or two versions each."""
_SET_TABLE: Final = 1  # linux/netfilter/nf_tables.h: NFTA_SET_TABLE
_OURS: Final = frozenset({TABLE.encode() + b"\0", ANCHOR_TABLE.encode() + b"\0"})

# linux/netfilter_ipv4/ip_tables.h and its sister: IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO: Final = struct.Struct("=32sI5I5III")  # name, valid hooks, hook entries, underflows, number of entries, size
_ENTRIES_HEAD: Final = struct.Struct("=32sI4x")
_NAME_BYTES: Final = 32
_NAMES_BYTES: Final = 4096
_COUNTER_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Family:
    """`next_at`, `counters_at`: places in struct ipt_entry or ip6t_entry."""

    family: socket.AddressFamily
    level: int
    next_at: int
    counters_at: int


_FAMILIES: Final = {
    IPFamily.IPV4: (_Family(socket.AF_INET, socket.IPPROTO_IP, 90, 96), "/proc/thread-self/net/ip_tables_names"),
    IPFamily.IPV6: (_Family(socket.AF_INET6, socket.IPPROTO_IPV6, 142, 152), "/proc/thread-self/net/ip6_tables_names"),
}
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class _LegacyTable:
    """`entries`: as the kernel gives them, counters included."""

    family: "_Family"
    name: bytes
    entries: bytes


@dataclass(frozen=True, slots=True)
class _Seen:
    nft: Snapshot
    legacy: tuple[_LegacyTable, ...]

    @property
    def legacy_bytes(self) -> Snapshot:
        return Snapshot(b"".join(table.name + table.entries for table in self.legacy), None)


@dataclass(frozen=True, slots=True)
class _Kind:
    nft: Pattern
    legacy: Pattern
    found: Inventory

    def is_of(self, seen: _Seen) -> bool:
        return self.nft.matches(seen.nft) and self.legacy.matches(seen.legacy_bytes)


class Alike:
    """Used by several threads at once."""

    def __init__(self) -> None:
        self._kinds: list[_Kind] = []
        self._lock = threading.Lock()

    def inventory(self) -> Inventory:
        """Of the namespace that the calling thread is in; its routing may be another's. Raises as
        agent.ruleset.read.inventory."""
        seen = _seen()
        if seen is None:
            return inventory()
        with self._lock:
            kinds = tuple(self._kinds)
        for kind in kinds:
            if kind.is_of(seen):
                return kind.found
        found = inventory()
        self._remember(_Kind(pattern_of(seen.nft), _legacy_pattern(seen), found))
        return found

    def _remember(self, kind: _Kind) -> None:
        """Only what was still so when it had been read, and read as a whole."""
        again = _seen()
        if again is None or kind.found.unread or not kind.is_of(again):
            return
        with self._lock:
            if len(self._kinds) < _REMEMBERED:
                self._kinds.append(kind)


def _seen() -> _Seen | None:
    """None: not to be compared so. What others' sets hold is not in the messages of their rules."""
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            if any(attributes(data).get(_SET_TABLE) not in _OURS for _, data in dump(netlink, GETSET)):
                return None
            kinds = (GETTABLE, GETCHAIN, GETRULE)
            messages = b"".join(netlink.dump_whole(message(kind, 0, b"", socket.AF_UNSPEC)) for kind in kinds)
        return _Seen(Snapshot(messages, None), tuple(_legacy()))
    except OSError:
        return None


# ── iptables-legacy ────────────────────────────────────────────────────────────────────────────────────────────────
def _legacy() -> Iterator[_LegacyTable]:
    """Of the tables that are there: to ask for another would make it, for good."""
    for family, (numbers, names) in _FAMILIES.items():
        if not iptables_tools.legacy_used(family):
            continue
        fd = os.open(names, os.O_RDONLY | os.O_CLOEXEC)
        try:
            tables = sorted(os.read(fd, _NAMES_BYTES).split())
        finally:
            os.close(fd)
        with socket.socket(numbers.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for table in tables:
                yield _LegacyTable(numbers, table.ljust(_NAME_BYTES, b"\0"), _entries(sock, numbers, table))


def _entries(sock: socket.socket, family: _Family, table: bytes) -> bytes:
    """Raises OSError; EAGAIN when it changed meanwhile."""
    info = _ask(sock, family.level, _GET_INFO, table.ljust(_NAME_BYTES, b"\0"), _INFO.size)
    size = _INFO.unpack(info)[-1]
    head = _ENTRIES_HEAD.pack(table, size)
    return _ask(sock, family.level, _GET_ENTRIES, head, len(head) + size)[len(head) :]


def _legacy_pattern(seen: _Seen) -> Pattern:
    """With ones where bytes must be equal: not in counters."""
    whole = seen.legacy_bytes.messages
    mask = bytearray(b"\xff" * len(whole))
    start = 0
    for table in seen.legacy:
        start += len(table.name)
        for at in _counters(table):
            mask[start + at : start + at + _COUNTER_BYTES] = bytes(_COUNTER_BYTES)
        start += len(table.entries)
    ones = int.from_bytes(mask, "little")
    return Pattern(len(mask), ones, int.from_bytes(whole, "little") & ones, None)


def _counters(table: _LegacyTable) -> Iterator[int]:
    at, family, entries = 0, table.family, table.entries
    while at + family.counters_at + _COUNTER_BYTES <= len(entries):
        yield at + family.counters_at
        step = int.from_bytes(entries[at + family.next_at : at + family.next_at + 2], "little")
        if not step:
            return
        at += step


def _ask(sock: socket.socket, level: int, option: int, head: bytes, size: int) -> bytes:
    """getsockopt(2) by ctypes: Python's takes no more than 1,024 bytes, and none to begin with."""
    buffer = ctypes.create_string_buffer(head, size)
    length = ctypes.c_uint32(size)
    if _libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw
