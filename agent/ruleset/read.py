"""The inventory of the network namespace that the calling thread is in: every table, whatever tool made it."""

from collections.abc import Iterable
from typing import Final

from agent.kernel import iptables_tools, nft
from agent.kernel.iptables_tools import Variant
from agent.kernel.refused import KernelRefused
from agent.plan import IPFamily
from agent.ruleset import nft_listing, nft_objects, routing, saved
from agent.ruleset.inventory import HeldChain, HeldRule, HeldTable, Inventory, Tool
from agent.ruleset.whose import makers, told_apart

_VARIANTS: Final = {Tool.IPTABLES_NFT: Variant.NFT, Tool.IPTABLES_LEGACY: Variant.LEGACY}
UNTOLD: Final = "(not told apart: a name or comment in this table holds a line break; see nft list ruleset)"


def inventory(*, ask_legacy: bool = False) -> Inventory:
    """What cannot be read is told in the result. Raises OSError or KernelRefused when nothing can be read at all.

    `ask_legacy`: also where only root may know whether iptables-legacy was ever used. To ask its tool makes its tables,
    empty and for good: for who is about to change something anyway.
    """
    unread: list[str] = []
    by_iptables = [
        *_saved(Tool.IPTABLES_NFT, tuple(IPFamily), unread),
        *_saved(Tool.IPTABLES_LEGACY, _legacy_families(ask_legacy, unread), unread),
    ]
    # What iptables-nft made is shown by its save: nft shows some of it as opaque expressions, users and ports lost.
    shown_already = {(table.family, table.name) for table in by_iptables if table.tool is Tool.IPTABLES_NFT}
    tables = tuple(told_apart(table) for table in (*_nft_tables(shown_already), *by_iptables))
    return Inventory(tables, routing.read(makers(tables)), tuple(unread))


def _nft_tables(shown_already: set[nft_objects.TableKey]) -> Iterable[HeldTable]:
    objects = {key: chains for key, chains in nft_objects.read().items() if key not in shown_already}
    listing = nft_listing.take_apart(nft.list_tables(objects))
    for (family, name), chains in objects.items():
        listed = listing.get((family, name), nft_listing.ListedTable())
        held = tuple(_chain(chain, found, listed.rules.get(chain, [])) for chain, found in chains.items())
        yield HeldTable(Tool.NFT, family, name, held, tuple(listed.objects))


def _chain(name: str, found: nft_objects.ChainObject, texts: list[str]) -> HeldChain:
    if len(texts) != len(found.rules):
        texts = [UNTOLD] * len(found.rules)
    rules = (
        HeldRule(text, rule.comment, rule.packets, rule.bytes) for text, rule in zip(texts, found.rules, strict=True)
    )
    return HeldChain(name, tuple(rules), found.hook, found.policy)


def _saved(tool: Tool, families: Iterable[IPFamily], unread: list[str]) -> Iterable[HeldTable]:
    for family in families:
        try:
            text = iptables_tools.save(_VARIANTS[tool], family, counters=True)
        except KernelRefused as error:
            unread.append(str(error))
            continue
        if text is not None:
            yield from saved.tables(text, tool, family)


def _legacy_families(ask: bool, unread: list[str]) -> Iterable[IPFamily]:
    """Of those where there may be something to read."""
    for family in IPFamily:
        used = iptables_tools.legacy_used(family)
        missing = iptables_tools.missing(Variant.LEGACY, family)
        if used and missing is not None:
            unread.append(f"iptables-legacy, {family.value}: {missing}")
        elif used or (used is None and ask):
            yield family
        elif used is None and missing is None:
            unread.append(f"iptables-legacy, {family.value}: only root may know whether it holds something")
