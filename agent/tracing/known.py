"""The rules of a namespace by what a trace calls them: table and handle. Read as a trace begins, and as they change.

A handle is never given twice in a table (nf_tables.h: hgenerator), but a table that is made anew begins at 1 again; so
what both readings have differently is told as changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from agent.kernel import nft
from agent.kernel.netlink import Netlink, attributes
from agent.kernel.nft_messages import GETGEN, NETLINK_NETFILTER, NFGENMSG, NFPROTO_INET, message
from agent.ruleset import nft_listing, nft_objects
from agent.ruleset.inventory import UNKNOWN, HeldChain, HeldTable, Inventory, Tool
from agent.ruleset.meanings import meanings_for
from agent.ruleset.nft_objects import RuleObject
from agent.ruleset.read import UNTOLD, inventory
from agent.ruleset.whose import TRACE

_GEN_ID: Final = 1  # NFTA_GEN_ID
_ATTEMPTS: Final = 3

RuleKey = tuple[str, str, int]
"""Family and name of the table, handle of the rule."""
ChainKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class KnownRule:
    """`text` as its tool writes it, without counter and comment; `place` in its chain, from 1. `rule_id`, `meaning`: of
    ours. `changed`: while it was traced another took its handle, or it went."""

    tool: str
    whose: str
    text: str
    comment: str
    place: int
    rule_id: str | None = None
    meaning: str | None = None
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """`hooks`: of base chains, as `nat output, priority -100`. `makers`: whose a chain is. `legacy`: families whose
    iptables-legacy tables hold rules; they send no trace. `unread`: what could not be read, and why."""

    rules: dict[RuleKey, KnownRule] = field(default_factory=dict)
    hooks: dict[ChainKey, str] = field(default_factory=dict)
    makers: dict[ChainKey, str] = field(default_factory=dict)
    legacy: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    generation: int = 0

    def later(self, other: "Known") -> "Known":
        """What is known after another reading, of a ruleset that changed."""
        rules = dict(other.rules)
        for key, rule in self.rules.items():
            now = rules.get(key)
            if now is None or replace(now, place=rule.place, changed=rule.changed) != rule:
                rules[key] = replace(rule, changed=True)
        return replace(other, rules=rules, hooks=self.hooks | other.hooks, makers=self.makers | other.makers)

    def differs(self, other: "Known") -> bool:
        """Another trace's table that came or went is no difference."""
        return _texts(self) != _texts(other) or self.legacy != other.legacy


def _texts(known: Known) -> dict[RuleKey, str]:
    return {key: rule.text for key, rule in known.rules.items() if rule.whose != TRACE}


def generation() -> int:
    """Of the calling thread's namespace: another number after each change (NFT_MSG_GETGEN). Raises OSError."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        data = netlink.ask(message(GETGEN, 0, b"", NFPROTO_INET))
    return int.from_bytes(attributes(data[NFGENMSG.size :]).get(_GEN_ID, b""), "big")


def read() -> Known:
    """Of the namespace that the calling thread is in. Read again when it changed meanwhile; after three attempts taken
    as it came. Raises OSError or KernelRefused."""
    for _ in range(_ATTEMPTS):
        before = generation()
        objects, found = nft_objects.read(), inventory()
        if generation() == before:
            break
    ids = meanings_for(found.rule_ids)
    known = Known(
        hooks={(*key, name): chain.hook for key, chains in objects.items() for name, chain in chains.items()},
        legacy=tuple(sorted(_legacy(found))),
        unread=found.unread,
        generation=before,
    )
    for table in found.tables:
        if table.tool is Tool.IPTABLES_LEGACY:
            continue
        held = objects.get((table.family, table.name), {})
        for chain in table.chains:
            known.makers[table.family, table.name, chain.name] = chain.whose
            written = held[chain.name].rules if chain.name in held else []
            for handle, rule in _rules(table, _told_by_nft(table, chain, written), [rule.handle for rule in written]):
                meaning = ids(rule.rule_id) if rule.rule_id is not None else None
                known.rules[table.family, table.name, handle] = replace(rule, meaning=meaning)
    return known


def _legacy(found: Inventory) -> set[str]:
    return {
        table.family for table in found.tables if table.tool is Tool.IPTABLES_LEGACY and any(True for _ in table.rules)
    }


def _told_by_nft(table: HeldTable, chain: HeldChain, written: list[RuleObject]) -> HeldChain:
    """The chain, with nft's words for what nft wrote into a table of iptables': of that iptables-nft-save leaves out
    what it does not know, and says nothing (1.8.9). iptables puts a counter into every rule, nft only where asked."""
    of_nft = [table.tool is Tool.IPTABLES_NFT and rule.packets is None for rule in written]
    if not any(of_nft) or len(written) != len(chain.rules):
        return chain
    texts = nft_listing.rules_of_chain(nft.list_chain(table.family, table.name, chain.name) or "", len(written))
    told = texts or [UNTOLD] * len(written)
    rules = (
        replace(rule, text=text) if is_nfts else rule
        for rule, text, is_nfts in zip(chain.rules, told, of_nft, strict=True)
    )
    return replace(chain, rules=tuple(rules))


def _rules(table: HeldTable, chain: HeldChain, handles: list[int]) -> Iterator[tuple[int, KnownRule]]:
    """None where the tool's listing and the kernel's messages disagree: a text is not guessed."""
    if len(handles) != len(chain.rules):
        return
    for place, (handle, rule) in enumerate(zip(handles, chain.rules, strict=True), start=1):
        whose = rule.whose if rule.whose != UNKNOWN else chain.whose
        rule_id = rule.rule_id if rule.is_ours else None
        yield handle, KnownRule(table.tool.value, whose, rule.text, rule.comment, place, rule_id)
