"""Which of what a namespace holds is ours and goes, in every backend, old versions included. Pure.

What others share with us stays, and is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.plan.iptables_saved import is_our_chain
from agent.ruleset.inventory import HEADGATE, HeldChain, HeldRule, HeldTable, Inventory, Tool, owns
from agent.ruleset.whose import AMBIENT, ISTIO, KUMA, makers

PASSTHROUGH6: Final = "::6"
"""istio-iptables and kumactl add it to lo, too (`ip -6 addr add ::6/128 dev lo`)."""


@dataclass(frozen=True, slots=True)
class Removal:
    """`nft_tables`: (family, name). `iptables`: where chains or jumps of ours are. `words`: what goes, for people;
    `kept`: what looks like ours and stays, and why."""

    nft_tables: tuple[tuple[str, str], ...] = ()
    iptables: tuple[Tool, ...] = ()
    return_path: bool = False
    loopback_addresses: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        return not self.words


def removal(inventory: Inventory) -> Removal:
    tables = [table for table in inventory.tables if table.tool is Tool.NFT and table.whose == HEADGATE]
    saved = [table for table in inventory.tables if table.tool is not Tool.NFT]
    others = makers(inventory.tables)
    return_path, path_words, kept_path = _return_path(inventory)
    addresses, kept_addresses = _loopback(inventory, others)
    return Removal(
        tuple((table.family, table.name) for table in tables),
        tuple(dict.fromkeys(table.tool for table in saved if owns(table))),
        return_path,
        addresses,
        (
            *(f"nft table {table.family} {table.name} ({_rules(len(list(table.rules)))})" for table in tables),
            *(words for table in saved for words in _words(table)),
            *path_words,
            *(f"address {address}/128 on lo" for address in addresses),
        ),
        (*kept_path, *kept_addresses),
    )


# ── iptables ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _outside(table: HeldTable) -> Iterator[tuple[HeldChain, HeldRule]]:
    """Rules of ours in chains that are not."""
    return ((chain, rule) for chain, rule in table.rules if rule.is_ours and not _is_ours(chain))


def _is_ours(chain: HeldChain) -> bool:
    return is_our_chain(chain.name)


def _words(table: HeldTable) -> Iterator[str]:
    where = f"{table.tool.value} table {table.name} ({'IPv4' if table.family == 'ip' else 'IPv6'})"
    for chain in table.chains:
        if _is_ours(chain):
            yield f"{where}: chain {chain.name} ({_rules(len(chain.rules))})"
    for chain, rule in _outside(table):
        yield f"{where}: in chain {chain.name}: {rule.text}"


def _rules(number: int) -> str:
    return "1 rule" if number == 1 else f"{number} rules"


# ── Routing ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _return_path(inventory: Inventory) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    routing = inventory.routing
    found = [
        *((f"ip rule {rule.preference}: {rule.text} ({_family(rule.family)})", rule.whose) for rule in routing.rules),
        *((f"ip route {route.text}, table 100 ({_family(route.family)})", route.whose) for route in routing.routes),
    ]
    ours = tuple(words for words, whose in found if whose == HEADGATE)
    kept = tuple(f"{words}: {AMBIENT}'s rules use the very same" for words, whose in found if whose == AMBIENT)
    return bool(ours), ours, kept


def _family(name: str) -> str:
    return "IPv4" if name == "ip" else "IPv6"


def _loopback(inventory: Inventory, others: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if PASSTHROUGH6 not in inventory.routing.loopback_addresses:
        return (), ()
    users = sorted(others & {ISTIO, KUMA})
    if users:
        return (), (f"address {PASSTHROUGH6}/128 on lo: {', '.join(users)} may use it",)
    return (PASSTHROUGH6,), ()
