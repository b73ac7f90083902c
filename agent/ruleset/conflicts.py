"""What others' rules do to the marks, the routing rule and the table that ours go by. Pure.

Ours change the low twelve bits of a mark and leave the rest (B53): a program that writes these bits takes the proxy's
packets for its own, or hides them from us.
"""

import re
from collections.abc import Iterator
from typing import Final

from agent.ruleset.inventory import HEADGATE, HeldRule, HeldTable, Inventory, Tool
from proxy.api.constants import MARK_MASK, PROXY_MARK, RETURN_MARK, RETURN_RULE_PREFERENCE, RETURN_TABLE

_ALL: Final = 0xFFFFFFFF
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NFT_WRITES: Final = re.compile(
    r"\b(meta|ct) mark set ([^\n]*?)(?=$| (?:accept|drop|return|jump|goto|counter|comment)\b)"
)
_NFT_CHANGED: Final = re.compile(r"(?:meta|ct) mark((?: [&|^] 0x[0-9a-f]+)+)")
_NFT_STEP: Final = re.compile(r"([&|^]) 0x([0-9a-f]+)")
_XT_WRITES: Final = re.compile(r"-j (MARK|CONNMARK) --set-xmark 0x([0-9a-f]+)(?:/0x([0-9a-f]+))?")
_XT_COPIES: Final = re.compile(r"-j CONNMARK --(restore|save)-mark(?: --nfmask 0x([0-9a-f]+) --ctmask 0x([0-9a-f]+))?")
_FWMARK: Final = re.compile(r"\bfwmark 0x([0-9a-f]+)(?:/0x([0-9a-f]+))?")


def conflicts(inventory: Inventory) -> tuple[str, ...]:
    """Each in words, with where it is and the remedy; empty where nobody meddles."""
    found = [text for table in inventory.tables for text in _in_table(table)]
    found += _in_routing(inventory)
    return tuple(dict.fromkeys(found))


def _in_table(table: HeldTable) -> Iterator[str]:
    for chain, rule in table.rules:
        if rule.whose == HEADGATE:
            continue
        for kind, bits in _written(rule, table.tool):
            if bits & MARK_MASK:
                where = f"{table.tool.value} table {table.family} {table.name}, chain {chain.name}"
                yield (
                    f"{where}: `{rule.text}` writes bits {bits & MARK_MASK:#x} of the {kind} mark, "
                    f"which headgate goes by ({PROXY_MARK:#x}, {RETURN_MARK:#x} of {MARK_MASK:#x}): "
                    f"let it use bits above {MARK_MASK:#x}"
                )


def _written(rule: HeldRule, tool: Tool) -> Iterator[tuple[str, int]]:
    """Which mark, and which bits of it the rule may change."""
    text = _QUOTED.sub('""', rule.text)
    if tool is Tool.NFT:
        for match in _NFT_WRITES.finditer(text):
            yield ("packet" if match[1] == "meta" else "connection"), _changed(match[1], match[2].strip())
        return
    if written := _XT_WRITES.search(text):
        # linux/netfilter/xt_mark.h: (mark & ~MASK) ^ VALUE
        yield ("packet" if written[1] == "MARK" else "connection"), _hex(written[3], _ALL) | _hex(written[2], 0)
    if copied := _XT_COPIES.search(text):
        restored = copied[1] == "restore"
        yield ("packet" if restored else "connection"), _hex(copied[2] if restored else copied[3], _ALL)


def _changed(written: str, expression: str) -> int:
    """A mark's own bits that are masked, set or turned; anything else may change them all."""
    kept = _NFT_CHANGED.fullmatch(expression)
    if kept is None or not expression.startswith(written):
        return _ALL
    bits = 0
    for operator, number in _NFT_STEP.findall(kept[1]):
        value = int(number, 16)
        bits |= ~value & _ALL if operator == "&" else value
    return bits


def _hex(text: str | None, default: int) -> int:
    return default if text is None else int(text, 16)


def _in_routing(inventory: Inventory) -> Iterator[str]:
    routing = inventory.routing
    for rule in routing.rules:
        if rule.whose == HEADGATE:
            continue
        if (mark := _FWMARK.search(rule.text)) is not None:
            value, mask = int(mark[1], 16), _hex(mark[2], _ALL)
            of_ours = [ours for ours in (PROXY_MARK, RETURN_MARK) if value & MARK_MASK == ours & mask & MARK_MASK]
            if of_ours and mask & MARK_MASK and rule.preference <= RETURN_RULE_PREFERENCE:
                yield (
                    f"ip rule {rule.preference} ({rule.family}): `{rule.text}` takes packets with headgate's mark "
                    f"{of_ours[0]:#x} elsewhere: let it ask for bits above {MARK_MASK:#x}"
                )
    for route in routing.routes:
        if route.whose != HEADGATE:
            yield (
                f"route table {RETURN_TABLE} ({route.family}): `{route.text}` is somebody else's, and headgate leads "
                f"answers by that table: let it use another"
            )
