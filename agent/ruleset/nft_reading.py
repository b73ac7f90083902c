"""nftables' tables with chains and sets that are read from the kernel when they are first asked for, in the network
namespace that the calling thread is in.

A rule that iptables-nft wrote with a match or target of x_tables is opaque to nft, and its save tells it in full. A
rule without such is nft's to tell, since it may be nft's: iptables-nft-save leaves out what it does not know and says
nothing (1.8.9: `ip daddr @set accept` becomes `-j ACCEPT`). nft itself writes no x_tables, so the others are iptables'.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, overload

from agent.explain import nft_json
from agent.explain.statements import Elements, Opaque, Unread
from agent.explain.tables import Chain, Rule, Table, Tool
from agent.kernel import nft_apart
from agent.kernel.netlink import Netlink, attribute
from agent.kernel.nft_messages import GETRULE, NETLINK_NETFILTER, dump
from agent.kernel.refused import KernelRefused
from agent.printable import printable
from agent.ruleset import iptables_reading, nft_unlisted
from agent.ruleset.iptables_reading import NAMES
from agent.ruleset.nft_outline import TableKey, TableOutline

_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4  # linux/netfilter/nf_tables.h
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, type
_TYPE_MASK: Final = 0x3FFF
_XT: Final = (b"match\0", b"target\0")
_BUILTIN: Final = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_COUNTER: Final = b"counter\0"
_OF_IPTABLES: Final = frozenset({"ip", "ip6"})
_FAMILIES: Final = {"inet": 1, "ip": 2, "netdev": 5, "ip6": 10}  # linux/netfilter.h: NFPROTO_*
_NAMED: Final = re.compile(r'"@((?:[^"\\]|\\.)*)"')
_OPENING, _CLOSING = '{"nftables": [', "]}"


class Changed(KernelRefused):
    """What had been there was gone when it was read; may be retried."""

    def __init__(self, what: str) -> None:
        super().__init__("nft list", f"{what} has gone while it was read", "somebody changes the rules: try again")


def listed(key: TableKey, outline: TableOutline) -> Table:
    """As nft tells it."""
    family, name = key
    chains = {
        chain: Chain(chain, _Late(partial(_rules, key, chain, outline)), found.base, found.handle)
        for chain, found in outline.chains.items()
    }
    return Table(Tool.NFT, family, name, chains, _Sets(key, outline), outline.handle, outline.dormant)


def with_text(table: Table, outline: Mapping[TableKey, TableOutline]) -> Table:
    """`table` as agent.explain.joined makes it, where rules are iptables' text or opaque: each chain in iptables' words
    where it is iptables', and in nft's where it may be nft's. A table into which nft hung a chain of its own is told as
    nft's. Those of other names as they are."""
    key = table.family, table.name
    if (
        table.tool is Tool.IPTABLES_LEGACY
        or table.name not in NAMES
        or key[0] not in _OF_IPTABLES
        or key not in outline
    ):
        return table
    found = outline[key]
    chains = {
        name: Chain(name, _Late(partial(_both, key, name, found, _saved(chain))), chain.base, chain.handle)
        for name, chain in table.chains.items()
        if name in found.chains
    }
    by_nft = any(chain.base is not None and name not in _BUILTIN for name, chain in chains.items())
    return replace(table, chains=chains, tool=Tool.NFT if by_nft else Tool.IPTABLES_NFT)


def _saved(chain: Chain) -> Sequence[Rule] | None:
    """That is there already: the save's. nft's own are read in their place."""
    return None if isinstance(chain.rules, _Late) else chain.rules


class _Late(Sequence[Rule]):
    """Rules that are read when they are first asked for."""

    __slots__ = ("_found", "_read")

    def __init__(self, read: Callable[[], Sequence[Rule]]) -> None:
        self._read = read
        self._found: Sequence[Rule] | None = None

    def _all(self) -> Sequence[Rule]:
        if self._found is None:
            self._found = self._read()
        return self._found

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        return self._all()[index]


class _Sets(Mapping[str, Elements]):
    """A table's sets and maps, each read when it is first asked for."""

    __slots__ = ("_found", "_key", "_outline")

    def __init__(self, key: TableKey, outline: TableOutline) -> None:
        self._key = key
        self._outline = outline
        self._found: dict[str, Elements] = {}

    def __getitem__(self, name: str) -> Elements:
        if name not in self._outline.sets:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = _understood(self._key, [_set(self._key, name, self._outline)]).sets[name]
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outline.sets)

    def __len__(self) -> int:
        return len(self._outline.sets)


# ── nft's own words ────────────────────────────────────────────────────────────────────────────────────────────────
def _rules(key: TableKey, chain: str, outline: TableOutline) -> Sequence[Rule]:
    """What libnftables cannot print is one rule of which nobody knows what it does."""
    try:
        return _told(key, chain, outline)
    except Changed:
        raise
    except KernelRefused as error:
        return (_unread(1, chain, error),)


def _unread(place: int, chain: str, error: KernelRefused) -> Rule:
    return Rule(place, (Unread(Opaque(f"chain {printable(chain)}", str(error))),))


def _told(key: TableKey, chain: str, outline: TableOutline) -> Sequence[Rule]:
    objects = _objects("chain", key, chain)
    named = {_plain(match[0]) for match in _NAMED.finditer(objects)} & outline.sets.keys()
    documents = [objects, *(_set(key, name, outline) for name in sorted(named))]
    rules = _understood(key, documents).chains[chain].rules
    return nft_unlisted.with_them(rules, _FAMILIES[key[0]], key[1], chain)


def _plain(quoted: str) -> str:
    """A name in JSON's quotes; a comment that looks like one at worst names a set that is there."""
    return str(json.loads(quoted)).removeprefix("@")


def _set(key: TableKey, name: str, outline: TableOutline) -> str:
    return _objects("map" if outline.sets[name] else "set", key, name)


def _objects(kind: str, key: TableKey, name: str) -> str:
    """The inside of the list that libnftables answers with."""
    if any("\udc80" <= character <= "\udcff" for character in f"{key[1]}{name}"):  # agent.ruleset.nft_outline
        raise KernelRefused(
            "nft -j list", "a name in no UTF-8, which libnftables does not take", "see `nft list ruleset`"
        )
    document = nft_apart.list_json(kind, *key, name)
    if document is None:
        raise Changed(f"{kind} {printable(name)} of table {key[0]} {printable(key[1])}")
    return document.strip().removeprefix(_OPENING).removesuffix(_CLOSING)


def _understood(key: TableKey, objects: Sequence[str]) -> Table:
    """Of the several answers, one table."""
    family, name = key
    try:
        (found,) = nft_json.tables(f"{_OPENING}{', '.join(objects)}{_CLOSING}")
    except ValueError as error:
        told = f"of table {family} {printable(name)} it says what cannot be read: {error}"
        raise KernelRefused("nft -j list", told, "another nft than 1.0? compare `nft list ruleset`") from None
    return found


# ── iptables' words beside them ────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class _Written:
    """A rule in the kernel: its handle, whether an expression of x_tables is in it, and if not, whether a counter is,
    which iptables puts into every rule."""

    handle: int
    xt: bool
    counts: bool


def _both(key: TableKey, chain: str, outline: TableOutline, texts: Sequence[Rule] | None) -> Sequence[Rule]:
    written = _written(key, chain)
    if texts is None and any(one.xt or one.counts for one in written):
        texts = iptables_reading.of_chain(*key, chain, outline.chains)
    if texts is None or len(texts) != len(written):  # nft's own are in it, or it changed in between: `settled` tells
        return _rules(key, chain, outline)
    if all(one.xt for one in written):
        return _Handled(texts, written)
    told = _told_or_not(key, chain, outline, len(texts))
    if len(told) != len(texts):
        raise Changed(f"a rule of chain {printable(chain)}")
    return tuple(
        _handled(text, one.handle)
        if one.xt
        else Rule(
            rule.place, rule.statements, text.text if one.counts else "", rule.comment or text.comment, one.handle
        )
        for one, text, rule in zip(written, texts, told, strict=True)
    )


class _Handled(Sequence[Rule]):
    """iptables' rules with their handles, each read when it is asked for: a packet meets half of a long chain."""

    __slots__ = ("_found", "_texts", "_written")

    def __init__(self, texts: Sequence[Rule], written: Sequence[_Written]) -> None:
        self._texts = texts
        self._written = written
        self._found: list[Rule | None] = [None] * len(texts)

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        rule = self._found[index]
        if rule is None:
            rule = self._found[index] = _handled(self._texts[index], self._written[index].handle)
        return rule


def _handled(rule: Rule, handle: int) -> Rule:
    return Rule(rule.place, rule.statements, rule.text, rule.comment, handle)


def _told_or_not(key: TableKey, chain: str, outline: TableOutline, count: int) -> Sequence[Rule]:
    """Where libnftables cannot print the chain, of each rule that nobody knows what it does."""
    try:
        return _told(key, chain, outline)
    except Changed:
        raise
    except KernelRefused as error:
        return tuple(_unread(place, chain, error) for place in range(1, count + 1))


def _written(key: TableKey, chain: str) -> list[_Written]:
    family, table = key
    names = (name.encode("utf-8", "surrogateescape") + b"\0" for name in (table, chain))
    asked = b"".join(map(attribute, (_RULE_TABLE, _RULE_CHAIN), names))
    with Netlink(NETLINK_NETFILTER) as netlink:
        return [_made_of(data) for _, data in dump(netlink, GETRULE, asked, _FAMILIES[family])]


def _made_of(rule: bytes) -> _Written:
    """Flat, because a chain has a thousand: with agent.kernel.netlink's generators it takes three times as long."""
    handle, counts = 0, False
    offset, end = 0, len(rule)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(rule, offset)
        if length < 4:
            break
        kind &= _TYPE_MASK
        if kind == _RULE_HANDLE:
            handle = int.from_bytes(rule[offset + 4 : offset + length], "big")
        elif kind == _RULE_EXPRESSIONS:
            at, last = offset + 4, offset + length
            while at + 8 <= last:
                # An expression: its header, then its name's header, then the name (nf_tables_fill_expr_info).
                name = rule[at + 8 : at + 16]
                if name.startswith(_XT):
                    return _Written(handle, xt=True, counts=True)
                counts |= name == _COUNTER
                at += (max(_ATTRIBUTE.unpack_from(rule, at)[0], 4) + 3) & ~3
        offset += (length + 3) & ~3
    return _Written(handle, xt=False, counts=counts)
