"""What nftables holds in a namespace of given tables, as the kernel's own messages: equal or not, and nothing more.

Reading them takes a tenth of what libnftables takes to list the same tables, and leaves no room for deceit: a comment
with a line break in it can make one rule look like two in a listing. What makes equal rules differ is masked out:
handles, positions, counter values, the socket's number, the generation.

Numbers are of linux/netfilter/nf_tables.h.
"""

import functools
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.kernel.netlink import Netlink, attribute, attributes
from agent.kernel.nft_messages import (
    GETCHAIN,
    GETRULE,
    GETSET,
    GETSETELEM,
    GETTABLE,
    NETLINK_NETFILTER,
    NEWCHAIN,
    NEWRULE,
    NEWSET,
    NEWTABLE,
    NFGENMSG,
    NFPROTO_INET,
    message,
)
from agent.printable import printable

_TABLE_NAME, _TABLE_FLAGS, _TABLE_USE, _TABLE_HANDLE = 1, 2, 3, 4
_CHAIN_TABLE, _CHAIN_HANDLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 2, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_HANDLE, _SET_TYPE, _SET_COUNT = 1, 2, 3, 16, 19, 20
_ELEM_LIST_SET, _ELEM_LIST_ELEMENTS = 2, 3
_RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_POSITION = 3, 4, 6
_EXPR_NAME, _EXPR_DATA = 1, 2

_PARTS: Final = {
    NEWTABLE: (_TABLE_NAME, _TABLE_FLAGS, _TABLE_USE),
    NEWCHAIN: (_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, 5, 6, _CHAIN_TYPE, 10),  # POLICY, USE, TYPE, FLAGS
    NEWSET: (_SET_TABLE, _SET_NAME, _SET_FLAGS, 4, 5, 6, 7),  # KEY_TYPE, KEY_LEN, DATA_TYPE, DATA_LEN
}
_VOLATILE: Final = {
    NEWTABLE: frozenset({_TABLE_HANDLE}),
    NEWCHAIN: frozenset({_CHAIN_HANDLE}),
    NEWSET: frozenset({_SET_HANDLE, _SET_TYPE, _SET_COUNT}),
    NEWRULE: frozenset({_RULE_HANDLE, _RULE_POSITION}),
}
"""SET_TYPE is where the kernel keeps the set's methods, SET_COUNT how many connections are older than the rules."""
_ANONYMOUS: Final = 1  # NFT_SET_ANONYMOUS: part of a rule, and as constant as the rule

_MESSAGE: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NESTED_MASK: Final = 0x3FFF
_HEAD_BYTES: Final = _MESSAGE.size + NFGENMSG.size
_SEQUENCE_AT, _SEQUENCE_BYTES = 8, 8  # and the port, behind length, type and flags
_GENERATION_AT, _GENERATION_BYTES = 18, 2  # nfgenmsg's resource: the low half of the generation

_NAT_HOOKS: Final = {0: "prerouting", 3: "output"}  # linux/netfilter.h: NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT
_FAMILIES: Final = {1: "inet", 2: "ip", 10: "ip6"}
_DUMPS: Final = (
    (GETTABLE, socket.AF_UNSPEC),
    (GETCHAIN, socket.AF_UNSPEC),
    (GETSET, NFPROTO_INET),
    (GETRULE, NFPROTO_INET),
)
_SETS_DUMP: Final = 2
_SETS: Final = 64
"""Remembered readings of a table's sets, 1.5 KB each."""
_SIGNED: Final = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`messages`: of all tables and chains of the namespace, and of all rules and sets of family inet, as they came;
    `elements`: of those sets that are part of a rule of ours, each set's sorted, because a hash table's order is by
    chance (net/netfilter/nft_set_hash.c: a seed for each). None: not read."""

    messages: bytes
    elements: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a snapshot is compared with. `mask` has ones where bytes must be equal; both are the bytes taken as one
    number, because masking ten kilobytes is then three operations instead of three hundred."""

    length: int
    mask: int
    messages: int
    elements: tuple[bytes, ...] | None

    def matches(self, snapshot: Snapshot) -> bool:
        return (
            len(snapshot.messages) == self.length
            and int.from_bytes(snapshot.messages, "little") & self.mask == self.messages
            and snapshot.elements in (None, self.elements)
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """A snapshot taken apart. `objects`: tables, chains, sets and elements, each by the parts that make it what it is;
    `rules`: of our tables; `foreign`: other tables' chains that can take a connection before ours do."""

    objects: tuple[bytes, ...]
    rules: tuple[bytes, ...]
    foreign: tuple[str, ...]


def pattern_of(snapshot: Snapshot) -> Pattern:
    """The pattern that every namespace matches which holds the same tables and no other."""
    mask = bytearray(b"\xff" * len(snapshot.messages))
    for start, length in _volatile(snapshot.messages):
        mask[start : start + length] = bytes(length)
    ones = int.from_bytes(mask, "little")
    return Pattern(len(mask), ones, int.from_bytes(snapshot.messages, "little") & ones, snapshot.elements)


def read(tables: tuple[str, ...], *, elements: bool = True) -> Snapshot:
    """Of the calling thread's namespace; `tables`: ours, of family inet. Raises OSError.

    Not atomic: take the generation before, and read again when it is another afterwards. Without `elements` what only
    a transaction can change is read, short of what a rule's own set holds: for who knows that there was none.
    """
    with Netlink(NETLINK_NETFILTER) as netlink:
        pieces = [netlink.dump_whole(message(kind, 0, b"", family)) for kind, family in _DUMPS]
        of_sets = _anonymous(pieces[_SETS_DUMP], _names(tables)) if elements else ()
        lists = [element for of_set in of_sets for element in _elements(netlink, of_set)]
    return Snapshot(b"".join(pieces), tuple(lists) if elements else None)


def only_of(snapshot: Snapshot, tables: tuple[str, ...]) -> Snapshot:
    """The same without what is of other tables: what a namespace would tell that has none."""
    names = _names(tables)
    messages = snapshot.messages
    ours = [messages[start:end] for start, end in _messages(messages) if _is_of(messages[start:end], names)]
    return Snapshot(b"".join(ours), snapshot.elements)


def take_apart(snapshot: Snapshot, tables: tuple[str, ...], priority: int) -> Holding:
    """`priority`: of our nat chains."""
    names = _names(tables)
    objects = list(snapshot.elements or ())
    rules: list[bytes] = []
    foreign: list[str] = []
    for start, end in _messages(snapshot.messages):
        whole = snapshot.messages[start:end]
        kind, family, data = _kind(whole), whole[_MESSAGE.size], whole[_HEAD_BYTES:]
        found = attributes(data)
        ours = _is_of(whole, names)
        if ours and kind == NEWRULE:
            rules.append(data)
        elif ours:
            objects.append(_parts(kind, found))
        elif kind == NEWCHAIN and found.get(_CHAIN_TYPE) == b"nat\0" and _CHAIN_HOOK in found:
            foreign += _before_ours(family, found, priority)
    return Holding(tuple(objects), tuple(rules), tuple(foreign))


def _names(tables: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(table.encode() + b"\0" for table in tables)


def _is_of(whole: bytes, names: frozenset[bytes]) -> bool:
    """Attribute 1 names the table in messages of all kinds."""
    return whole[_MESSAGE.size] == NFPROTO_INET and attributes(whole[_HEAD_BYTES:]).get(_TABLE_NAME) in names


@functools.lru_cache(maxsize=_SETS)
def _anonymous(sets: bytes, names: frozenset[bytes]) -> tuple[bytes, ...]:
    """The attributes that name each. Remembered by the bytes, which equal pods have in common as a rule."""
    wanted: list[bytes] = []
    for start, end in _messages(sets):
        found = attributes(sets[start + _HEAD_BYTES : end])
        flags = int.from_bytes(found.get(_SET_FLAGS, b""), "big")
        if flags & _ANONYMOUS and _is_of(sets[start:end], names):
            wanted.append(attribute(_SET_TABLE, found[_SET_TABLE]) + attribute(_ELEM_LIST_SET, found[_SET_NAME]))
    return tuple(wanted)


def _elements(netlink: Netlink, of_set: bytes) -> list[bytes]:
    dumped = netlink.dump_whole(message(GETSETELEM, 0, of_set, NFPROTO_INET))
    return sorted(
        of_set + dumped[element : element + length]
        for start, end in _messages(dumped)
        for kind, at, size in _attributes(dumped, start + _HEAD_BYTES, end)
        if kind == _ELEM_LIST_ELEMENTS
        for _, element, length in _attributes(dumped, at, at + size)
    )


def _before_ours(family: int, found: dict[int, bytes], priority: int) -> Iterator[str]:
    hook = attributes(found[_CHAIN_HOOK])
    (number,) = _SIGNED.unpack(hook[_HOOK_NUMBER])
    (at,) = _SIGNED.unpack(hook[_HOOK_PRIORITY])
    if number in _NAT_HOOKS and at <= priority:
        table, chain = (_text(found[kind]) for kind in (_CHAIN_TABLE, _CHAIN_NAME))
        where = f"nat hook {_NAT_HOOKS[number]}, priority {at}"
        yield f"table {_FAMILIES.get(family, family)} {table}: chain {chain} ({where})"


def _parts(kind: int, found: dict[int, bytes]) -> bytes:
    return bytes((kind,)) + b"".join(attribute(part, found[part]) for part in _PARTS[kind] if part in found)


def _text(name: bytes) -> str:
    return printable(name.rstrip(b"\0").decode("utf-8", "replace"))


# ── What differs between equal tables ──────────────────────────────────────────────────────────────────────────────
def _volatile(messages: bytes) -> Iterator[tuple[int, int]]:
    """Place and length of each."""
    for start, end in _messages(messages):
        kind = _kind(messages[start : start + _MESSAGE.size])
        yield start + _SEQUENCE_AT, _SEQUENCE_BYTES
        yield start + _GENERATION_AT, _GENERATION_BYTES
        for part, at, size in _attributes(messages, start + _HEAD_BYTES, end):
            if part in _VOLATILE[kind]:
                yield at, size
            elif kind == NEWRULE and part == _RULE_EXPRESSIONS:
                yield from _counted(messages, at, at + size)


def _counted(rules: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    for _, expression, size in _attributes(rules, start, end):
        parts = {kind: (at, length) for kind, at, length in _attributes(rules, expression, expression + size)}
        at, length = parts[_EXPR_NAME]
        if rules[at : at + length] == b"counter\0":
            at, length = parts[_EXPR_DATA]
            yield from ((value, octets) for _, value, octets in _attributes(rules, at, at + length))


def _kind(whole: bytes) -> int:
    """Of nftables' own kinds: the low byte, under the subsystem's."""
    return int(_MESSAGE.unpack_from(whole)[1]) & 0xFF


def _messages(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each begins and ends."""
    offset = 0
    while offset + _MESSAGE.size <= len(data):
        length = _MESSAGE.unpack_from(data, offset)[0]
        yield offset, offset + length
        offset += (length + 3) & ~3


def _attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, place and size of each one's value."""
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        yield kind & _NESTED_MASK, start + _ATTRIBUTE.size, length - _ATTRIBUTE.size
        start += (length + 3) & ~3
