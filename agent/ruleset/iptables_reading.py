"""What the two iptables say of the network namespace that the calling thread is in.

iptables-nft's tables are nftables' too, and only its own tool tells all of them; it is asked for everything where that
is little, else chain by chain, when one is entered.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from agent.explain import iptables_text
from agent.explain.tables import Rule, Table, Tool
from agent.kernel import iptables_tools
from agent.kernel.iptables_tools import Variant
from agent.kernel.refused import KernelRefused
from agent.plan import IPFamily
from agent.plan.render.iptables import TABLES
from agent.ruleset.nft_outline import TableKey, TableOutline

FAMILIES: Final = {IPFamily.IPV4: "ip", IPFamily.IPV6: "ip6"}
_OF_WORD: Final = {word: family for family, word in FAMILIES.items()}
NAMES: Final = frozenset((*TABLES, "security"))
"""The tables that iptables has: nobody else's are asked of it."""
_TARGET: Final = re.compile(r" -[jg] (\S+)")
_SAVED_WHOLE: Final = 64
"""Chains of one family. The save takes 50 µs for each chain, the tool for one chain 3 ms, and a packet enters ten."""


def by_nft(
    families: Collection[IPFamily], outline: Mapping[TableKey, TableOutline], unread: list[str]
) -> Iterator[Table]:
    """Of iptables-nft's tables those that its save tells at once; what it gives up at is asked of it by chain."""
    for family in families:
        word = FAMILIES[family]
        chains = [len(found.chains) for (of, name), found in outline.items() if of == word and name in NAMES]
        if not chains:
            continue
        if (missing := iptables_tools.missing(Variant.NFT, family)) is not None:
            unread.append(f"iptables-nft, {family.value}: {missing}: matches and targets of its own stay unknown")
        elif sum(chains) <= _SAVED_WHOLE:
            try:
                text = iptables_tools.save(Variant.NFT, family) or ""
            except KernelRefused:  # at one rule of nft's (`meta skuid`) in one chain
                continue
            yield from iptables_text.tables(text, Tool.IPTABLES_NFT, word)


def of_chain(family: str, table: str, chain: str, chains: Collection[str]) -> Sequence[Rule] | None:
    """iptables-nft's rules of one chain of those of the table; None where its tool does not tell them."""
    try:
        said = iptables_tools.chain_rules(_OF_WORD[family], table, chain)
    except KernelRefused:
        return None
    if said is None:
        return None
    # Its first line declares the chain in other words than a save, which declares those that are led to as well.
    rules = said.partition("\n")[2]
    declared = {chain, *(name for name in _TARGET.findall(rules) if name in chains)}
    lines = [f"*{table}", *(f":{name} - [0:0]" for name in sorted(declared)), f"{rules}COMMIT\n"]
    (found,) = iptables_text.tables("\n".join(lines), Tool.IPTABLES_NFT, family)
    return found.chains[chain].rules


def legacy(families: Collection[IPFamily], unread: list[str]) -> dict[str, str]:
    """What its tool prints, by family (ip, ip6). Not asked where only root may know whether it was ever used: that
    would make its tables."""
    texts: dict[str, str] = {}
    for family in families:
        used = iptables_tools.legacy_used(family)
        missing = iptables_tools.missing(Variant.LEGACY, family)
        if used and missing is not None:
            unread.append(f"iptables-legacy, {family.value}: {missing}")
        elif used is None and missing is None:
            unread.append(f"iptables-legacy, {family.value}: only root may know whether it holds something")
        elif used:
            try:
                texts[FAMILIES[family]] = iptables_tools.save(Variant.LEGACY, family) or ""
            except KernelRefused as error:
                unread.append(str(error))
    return texts


def timeless(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Without the lines that say when it was printed."""
    return {family: [line for line in text.split("\n") if not line.startswith("# ")] for family, text in texts.items()}
