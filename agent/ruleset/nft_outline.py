"""Which tables, base chains, chains and sets nftables has in the namespace that the calling thread is in; no rule.

Asked of the kernel itself: its answer is a tenth of libnftables' in time, and names come as they are. Numbers are of
linux/netfilter/nf_tables.h and linux/netfilter.h.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.explain.tables import Base, ChainType, Hook
from agent.kernel.netlink import Netlink, attribute_list, attributes
from agent.kernel.nft_messages import GETCHAIN, GETSET, GETTABLE, NETLINK_NETFILTER, dump

_TABLE_NAME, _TABLE_FLAGS, _TABLE_HANDLE = 1, 2, 4
_CHAIN_TABLE, _CHAIN_HANDLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 2, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE, _HOOK_DEVICES = 1, 2, 3, 4
_SET_TABLE, _SET_NAME, _SET_FLAGS = 1, 2, 3
_IS_DORMANT, _IS_ANONYMOUS, _IS_MAP = 0x1, 0x1, 0x8

_FAMILIES: Final = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
"""Those that an IP packet of a namespace meets; not arp, nor bridge, which sees what passes through a bridge of it."""
_INET_HOOKS: Final = (
    Hook.PREROUTING, Hook.INPUT, Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING, Hook.INGRESS,
)  # fmt: skip
_NETDEV_HOOKS: Final = (Hook.INGRESS, Hook.EGRESS)
_DROP: Final = 0  # linux/netfilter.h: NF_DROP
_SIGNED: Final = struct.Struct(">i")

TableKey = tuple[str, str]
"""Family and name."""


@dataclass(frozen=True, slots=True)
class ChainOutline:
    base: Base | None
    handle: int


@dataclass(slots=True)
class TableOutline:
    """`sets`: of the named ones, whether each is a map."""

    handle: int
    dormant: bool
    chains: dict[str, ChainOutline] = field(default_factory=dict)
    sets: dict[str, bool] = field(default_factory=dict)


def read() -> dict[TableKey, TableOutline]:
    """In the order of the tables' making. Raises OSError."""
    tables: dict[TableKey, TableOutline] = {}
    with Netlink(NETLINK_NETFILTER) as netlink:
        for family, found in _known(dump(netlink, GETTABLE)):
            dormant = bool(_number(found, _TABLE_FLAGS) & _IS_DORMANT)
            tables[family, _text(found.get(_TABLE_NAME))] = TableOutline(_number(found, _TABLE_HANDLE), dormant)
        for family, found in _known(dump(netlink, GETCHAIN)):
            # One that was made between the two dumps is of a table that is not there yet: the generation tells.
            if table := tables.get((family, _text(found.get(_CHAIN_TABLE)))):
                outline = ChainOutline(_base(family, found), _number(found, _CHAIN_HANDLE))
                table.chains[_text(found.get(_CHAIN_NAME))] = outline
        for family, found in _known(dump(netlink, GETSET)):
            table, flags = tables.get((family, _text(found.get(_SET_TABLE)))), _number(found, _SET_FLAGS)
            if table is not None and not flags & _IS_ANONYMOUS:  # those are told with the rule that holds them
                table.sets[_text(found.get(_SET_NAME))] = bool(flags & _IS_MAP)
    return dict(sorted(tables.items(), key=lambda item: item[1].handle))


def _known(dumped: Iterable[tuple[int, bytes]]) -> Iterable[tuple[str, dict[int, bytes]]]:
    return ((_FAMILIES[number], attributes(data)) for number, data in dumped if number in _FAMILIES)


def _base(family: str, found: dict[int, bytes]) -> Base | None:
    """None for a chain that is jumped to."""
    if _CHAIN_HOOK not in found:
        return None
    hook = attributes(found[_CHAIN_HOOK])
    hooks = _NETDEV_HOOKS if family == "netdev" else _INET_HOOKS
    number = _number(hook, _HOOK_NUMBER)
    devices = [hook[_HOOK_DEVICE]] if _HOOK_DEVICE in hook else []
    devices = [name for _, name in attribute_list(hook.get(_HOOK_DEVICES, b""))] or devices
    return Base(
        ChainType(_text(found.get(_CHAIN_TYPE))),
        hooks[number],
        _SIGNED.unpack(hook.get(_HOOK_PRIORITY, bytes(4)))[0],
        _CHAIN_POLICY in found and _number(found, _CHAIN_POLICY) == _DROP,
        tuple(_text(name) for name in devices),
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "big")


def _text(raw: bytes | None) -> str:
    """Two names in no UTF-8 stay two: of what is told under one name, one would be hidden."""
    return (raw or b"").rstrip(b"\0").decode("utf-8", "surrogateescape")
