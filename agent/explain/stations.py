"""Who is asked at each hook, in the kernel's order: base chains, conntrack, and the NAT hooks that ask NAT's. Pure.

Of equal priority the one registered later is asked first (net/netfilter/core.c: nf_hook_entries_grow puts it before its
equals). Within a table the handles tell which that is; between tables nobody tells, and each order is followed.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.explain.tables import Chain, ChainType, Hook, Ruleset, Table

_CONNTRACK: Final = -200
"""linux/netfilter_ipv4.h: NF_IP_PRI_*; netfilter_ipv6.h has the same."""
_DESTINATION_NAT, _SOURCE_NAT = -100, 100
_NAT_HOOKS: Final = {
    Hook.PREROUTING: _DESTINATION_NAT,
    Hook.OUTPUT: _DESTINATION_NAT,
    Hook.POSTROUTING: _SOURCE_NAT,
    Hook.INPUT: _SOURCE_NAT,
}
_ON_DEVICES: Final = (Hook.INGRESS, Hook.EGRESS)
_MOST_TABLES: Final = 4
"""Tables of one priority of which all orders are followed, 24 at most; of more two: as made, and the other way."""


class Kind(Enum):
    CHAIN = "chain"
    CONNTRACK = "conntrack"
    NAT = "nat"


@dataclass(frozen=True, slots=True)
class Station:
    """`table`, `chain`: of a CHAIN. `orders`: of NAT, as those of a Group: its chains."""

    kind: Kind
    priority: int
    table: Table | None = None
    chain: Chain | None = None
    groups: "tuple[Group, ...]" = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Of one priority; each of `orders` is possible, the first is likeliest. `complete`: there is no other."""

    orders: tuple[tuple[Station, ...], ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Stations:
    """Of one family's packets. `devices`: interface → groups, of ingress and egress."""

    hooks: dict[Hook, tuple[Group, ...]]
    devices: dict[tuple[Hook, str], tuple[Group, ...]]


def stations(ruleset: Ruleset, version: int) -> Stations:
    """`version`: 4 or 6, the packet's."""
    families = ("inet", "ip" if version == 4 else "ip6")
    found: dict[Hook, list[Station]] = {hook: [] for hook in Hook}
    nat: dict[Hook, list[Station]] = {hook: [] for hook in Hook}
    devices: dict[tuple[Hook, str], list[Station]] = {}
    for table in ruleset.tables:
        if table.dormant or table.family not in (*families, "netdev"):
            continue
        for chain in table.chains.values():
            if (base := chain.base) is None:
                continue
            station = Station(Kind.CHAIN, base.priority, table, chain)
            if base.hook in _ON_DEVICES:
                for device in base.devices:
                    devices.setdefault((base.hook, device), []).append(station)
            elif base.kind is ChainType.NAT:
                nat[base.hook].append(station)
            else:
                found[base.hook].append(station)
    _kernels_own(found, nat)
    return Stations(
        {hook: _grouped(those) for hook, those in found.items()},
        {where: _grouped(those) for where, those in devices.items()},
    )


def _kernels_own(found: dict[Hook, list[Station]], nat: dict[Hook, list[Station]]) -> None:
    """Conntrack; and NAT, at all four hooks as soon as one chain is of its type (nf_nat_core.c: nf_nat_register_fn)."""
    for hook in (Hook.PREROUTING, Hook.OUTPUT):
        found[hook].append(Station(Kind.CONNTRACK, _CONNTRACK))
    if any(nat.values()):
        for hook, priority in _NAT_HOOKS.items():
            found[hook].append(Station(Kind.NAT, priority, groups=_grouped(nat[hook])))


def _grouped(those: Iterable[Station]) -> tuple[Group, ...]:
    ordered = sorted(those, key=lambda station: station.priority)
    return tuple(_group(tuple(equals)) for _, equals in itertools.groupby(ordered, lambda station: station.priority))


def _group(equals: Sequence[Station]) -> Group:
    if len(equals) == 1:
        return Group((tuple(equals),))
    # Whoever has nothing to say may be asked at any time: last, then.
    idle = tuple(station for station in equals if _is_idle(station))
    blocks: dict[int, list[Station]] = {}
    for station in equals:
        if station not in idle:
            blocks.setdefault(id(station.table), []).append(station)
    for block in blocks.values():
        block.sort(key=lambda station: -(station.chain.handle if station.chain else 0))
    likeliest = sorted(blocks.values(), key=lambda block: -(block[0].table.handle if block[0].table else 0))
    complete = len(likeliest) <= _MOST_TABLES
    orders = itertools.permutations(likeliest) if complete else (tuple(likeliest), tuple(reversed(likeliest)))
    return Group(tuple((*itertools.chain.from_iterable(order), *idle) for order in orders), complete)


def _is_idle(station: Station) -> bool:
    chain = station.chain
    return chain is not None and chain.base is not None and not chain.base.drops and not len(chain.rules)
