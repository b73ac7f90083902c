"""iptables-nft's tables, whose own text says what nft's JSON cannot: one table of both. Pure.

What iptables-nft writes into the kernel are nft's expressions as far as there are some, and matches and targets of
x_tables for the rest, which nft lists by name alone (`xt match owner`). Of a rule that holds such a one the text of
iptables-nft-save is complete: nobody else can write it. Of rules that nft made in such a table it may leave out what it
does not know (1.8.9: `ip daddr @set accept` is printed as `-j ACCEPT`): who can tell them apart asks nft for those.
"""

from collections.abc import Mapping
from typing import Final

from agent.explain.tables import Chain, Table, Tool

_FAMILIES: Final = ("ip", "ip6")
_NAMES: Final = ("raw", "mangle", "nat", "filter", "security")
"""iptables-nft has no others; in the order in which a packet meets them."""


def join(nft: tuple[Table, ...], saved: tuple[Table, ...]) -> tuple[Table, ...]:
    """`nft` with the rules of `saved`, those of iptables-nft-save, where there are any; and what else was saved.

    Where and when a chain is asked is what the kernel was told (hook, priority, policy, handle): nft's. No rules are
    read here.
    """
    texts = {(table.family, table.name): table for table in saved if table.tool is Tool.IPTABLES_NFT}
    joined = []
    for table in nft:
        text = texts.pop((table.family, table.name), None)
        joined.append(table if text is None else _laid_over(table, text))
    others = tuple(table for table in saved if table.tool is not Tool.IPTABLES_NFT)
    return (*joined, *texts.values(), *others)


def unsaved(nft: tuple[Table, ...], saved: tuple[Table, ...]) -> tuple[str, ...]:
    """Tables that bear a name of iptables' and that iptables-nft-save did not print: who made them used nft, or both.
    Matches and targets of x_tables in them stay unknown."""
    texts = {(table.family, table.name) for table in saved if table.tool is Tool.IPTABLES_NFT}
    return tuple(
        f"table {table.family} {table.name}: iptables cannot list it, since nft's own rules are in it"
        for table in nft
        if table.family in _FAMILIES and table.name in _NAMES and (table.family, table.name) not in texts
    )


def _laid_over(table: Table, text: Table) -> Table:
    return Table(
        Tool.IPTABLES_NFT, table.family, table.name, _chains(table, text), table.sets, table.handle, table.dormant
    )


def _chains(table: Table, text: Table) -> Mapping[str, Chain]:
    """In nft's order. A chain that one side lacks came or went in between: who reads both reads again then."""
    chains: dict[str, Chain] = {}
    for name, chain in table.chains.items():
        told = text.chains.get(name)
        chains[name] = chain if told is None else Chain(name, told.rules, chain.base, chain.handle)
    for name, chain in text.chains.items():
        if name not in chains and chain.base is None:
            chains[name] = chain
    return chains
