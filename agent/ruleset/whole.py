"""All rules of the network namespace that the calling thread is in, as agent.explain walks them.

Of five thousand rules a packet meets a few hundred at most, and libnftables takes 52 µs for each that it prints: so
tables, hooks and names are read at once, a chain's rules only when they are asked for. That all of it stood at one
moment is looked up afterwards, by the generation.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from agent.explain import iptables_text
from agent.explain.joined import join
from agent.explain.tables import Ruleset, Tool
from agent.kernel import glance
from agent.kernel.nft_apart import one_helper
from agent.plan import IPFamily
from agent.ruleset import iptables_reading, nft_outline, nft_reading
from agent.ruleset.iptables_reading import timeless
from agent.ruleset.nft_reading import Changed

T = TypeVar("T")

ATTEMPTS: Final = 4
"""Read, and again up to three times when it changed meanwhile: a change of kube-proxy's comes once a second at most
(its minSyncPeriod), a reading takes a tenth of that."""
CHANGING: Final = "the rules changed each time while they were read: what is told may be of several moments"


def ruleset(families: Collection[IPFamily] = tuple(IPFamily)) -> Ruleset:
    """As of now; of iptables' the tables of those families. The rules of nftables' chains are read when they are asked
    for: in this namespace, on this thread or one that is in it too, and soon. Raises OSError (PermissionError:
    CAP_NET_ADMIN is missing) or KernelRefused."""
    unread: list[str] = []
    return _ruleset(families, iptables_reading.legacy(families, unread), unread)


def settled(ask: Callable[[Ruleset], T], families: Collection[IPFamily] = tuple(IPFamily)) -> T:
    """What `ask` makes of the ruleset, all of which stood at one moment; asked again when it changed meanwhile, and
    after the last attempt told so in `unread`. Raises as `ruleset`."""
    with one_helper():
        return _settled(ask, families)


def _settled(ask: Callable[[Ruleset], T], families: Collection[IPFamily]) -> T:
    for left in range(ATTEMPTS - 1, -1, -1):
        unread: list[str] = []
        generation, legacy = glance.generation(), iptables_reading.legacy(families, unread)
        try:
            found = _ruleset(families, legacy, unread)
            answer = ask(found)
        except Changed:
            if not left:
                raise
            continue
        # iptables-legacy counts no generations: its text is compared. Not read on another thread meanwhile: the helper
        # that libnftables runs in would inherit the pipe from that tool, and hold it open until it is closed itself.
        if glance.generation() == generation and timeless(iptables_reading.legacy(families, [])) == timeless(legacy):
            break
        if not left:
            answer = ask(replace(found, unread=(*found.unread, CHANGING)))
    return answer


def _ruleset(families: Collection[IPFamily], legacy: Mapping[str, str], unread: list[str]) -> Ruleset:
    outline = nft_outline.read()
    saved = [*iptables_reading.by_nft(families, outline, unread)]
    for family, text in legacy.items():
        saved += iptables_text.tables(text, Tool.IPTABLES_LEGACY, family)
    tables = join(tuple(nft_reading.listed(key, found) for key, found in outline.items()), tuple(saved))
    return Ruleset(tuple(nft_reading.with_text(table, outline) for table in tables), tuple(unread))
