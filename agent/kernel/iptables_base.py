"""Tables and built-in chains of iptables-nft, which are made when first used, and taken away when nobody needs them.

Whoever jumps first makes them; iptables-save does not show which are there. So nf_tables is asked, and what was made
for our sake is written into our jumps' comments (agent.plan.render.iptables.Made).

Numbers are of linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h.
"""

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.kernel.netlink import NLM_F_ACK, Message, Netlink, attribute, attributes, encode
from agent.kernel.nft_messages import (
    GETCHAIN,
    GETTABLE,
    NETLINK_NETFILTER,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    dump,
    message,
)
from agent.plan.iptables_saved import SavedTable, is_our_chain
from agent.plan.render.iptables import ENTRY, TABLES, Entry, Made, Table
from agent.plan.rules import IPFamily

_DELTABLE, _DELCHAIN = 2, 5
_NONREC: Final = 0x100  # linux/netlink.h: not with what is in it
_BATCH_BEGIN, _BATCH_END = 16, 17
_TABLE_NAME, _CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 1, 3, 4, 5
_ACCEPT: Final = struct.pack(">I", 1)  # linux/netfilter.h: NF_ACCEPT

_PRINTED_TABLES: Final = frozenset({*TABLES, "security"})

_NUMBER: Final = {IPFamily.IPV4: int(socket.AF_INET), IPFamily.IPV6: int(socket.AF_INET6)}
_FAMILY: Final = {number: family for family, number in _NUMBER.items()}

Place = tuple[IPFamily, str, str]
"""Family, table, chain."""


@dataclass(frozen=True, slots=True)
class Present:
    """Of families ip and ip6. `hooked`: built-in chains, with whether they accept what no rule decides."""

    tables: frozenset[tuple[IPFamily, str]]
    hooked: Mapping[Place, bool]
    ours: frozenset[Place]


def present() -> Present:
    """Raises OSError."""
    tables: set[tuple[IPFamily, str]] = set()
    hooked: dict[Place, bool] = {}
    ours: set[Place] = set()
    with Netlink(NETLINK_NETFILTER) as netlink:
        for family, data in dump(netlink, GETTABLE):
            if family in _FAMILY:
                tables.add((_FAMILY[family], _text(attributes(data).get(_TABLE_NAME, b""))))
        for family, data in dump(netlink, GETCHAIN):
            if family not in _FAMILY:
                continue
            found = attributes(data)
            place = _FAMILY[family], _text(found.get(_CHAIN_TABLE, b"")), _text(found.get(_CHAIN_NAME, b""))
            if _CHAIN_HOOK in found:
                hooked[place] = found.get(_CHAIN_POLICY) == _ACCEPT
            elif is_our_chain(place[2]):
                ours.add(place)
    return Present(frozenset(tables), hooked, frozenset(ours))


def misleading_name() -> str | None:
    """A chain whose name would read as more than a name in what iptables-save prints: the kernel takes line breaks.
    None: there is none. Raises OSError."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        found = [attributes(data) for family, data in dump(netlink, GETCHAIN) if family in _FAMILY]
    printed = (chain for chain in found if _text(chain.get(_CHAIN_TABLE, b"")) in _PRINTED_TABLES)
    names = (_text(chain.get(_CHAIN_NAME, b"")) for chain in printed)
    return next((name for name in names if not name.isprintable() or " " in name), None)


def noted(
    tables: Iterable[Table], family: IPFamily, saved: Mapping[str, SavedTable], there: Present
) -> tuple[Table, ...]:
    """The tables, each jump with what was made for its sake: as the jumps say that are there already, else what is not
    there now."""
    told = {(name, one.builtin): made_for(one) for name, table in saved.items() for one in table.our_entries}

    def note(table: str, one: Entry) -> Entry:
        made = told.get((table, one.builtin))
        if made is None:
            known = (family, table) in there.tables
            made = Made.TABLE if not known else Made.CHAIN
            made = Made.NOTHING if (family, table, one.builtin) in there.hooked else made
        return Entry(one.builtin, one.spec.replace(ENTRY, f"{ENTRY}{made.value}", 1))

    return tuple(replace(table, entries=tuple(note(table.name, one) for one in table.entries)) for table in tables)


def made_for(one: Entry) -> Made:
    """What the jump's comment says."""
    return next((kind for kind in (Made.TABLE, Made.CHAIN) if f"{ENTRY}{kind.value}" in one.spec), Made.NOTHING)


def sweep(family: IPFamily, entries: Iterable[tuple[str, Entry]]) -> None:
    """Of the jumps (table, jump) that are gone: what was made for their sake goes, unless somebody uses it by now.

    The kernel refuses to delete what has something in it; what has a policy of its own is somebody's too. Raises
    OSError.
    """
    gone = [(table, one.builtin, made_for(one)) for table, one in entries]
    if all(made is Made.NOTHING for _, _, made in gone):
        return
    accepting = {place for place, accepts in present().hooked.items() if accepts}
    chains = dict.fromkeys(
        (table, chain)
        for table, chain, made in gone
        if made is not Made.NOTHING and (family, table, chain) in accepting
    )
    tables = dict.fromkeys(table for table, _, made in gone if made is Made.TABLE)
    number = _NUMBER[family]
    deletions = [_deletion(_DELCHAIN, number, table, chain) for table, chain in chains]
    deletions += [_deletion(_DELTABLE, number, table) for table in tables]
    with Netlink(NETLINK_NETFILTER) as netlink:
        # All at once, for each transaction that deletes waits for a grace period; one by one what somebody uses by now.
        if any(netlink.transact(_batch(deletions)).values()):
            for deletion in deletions:
                netlink.transact(_batch([deletion]))


def _deletion(kind: int, family: int, table: str, chain: str | None = None) -> Message:
    """The table's name is the first attribute of either."""
    names = attribute(_TABLE_NAME, table.encode() + b"\0")
    if chain is not None:
        names += attribute(_CHAIN_NAME, chain.encode() + b"\0")
    return message(kind, _NONREC | NLM_F_ACK, names, family)


def _batch(messages: Sequence[Message]) -> bytes:
    """One transaction. Refused with EBUSY, in use, or ENOENT, gone."""
    frame = NFGENMSG.pack(socket.AF_UNSPEC, 0, struct.pack(">H", NFNL_SUBSYS_NFTABLES))
    framed = (Message(_BATCH_BEGIN, 0, frame), *messages, Message(_BATCH_END, 0, frame))
    return b"".join(encode(one, sequence) for sequence, one in enumerate(framed, start=1))


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode("utf-8", "replace")
