"""`nft -j list ruleset` (libnftables-json(5), schema version 1) as tables. Pure.

What JSON leaves out, and this therefore does not know: the rules' text, what iptables-nft's extensions say
(`holds_xt`); in nft 1.0.6 the devices of a netdev chain, and that a set is dynamic when no listed rule adds to it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, overload

from agent.explain.nft_sets import Listed, Sets
from agent.explain.nft_statements import XT, statements
from agent.explain.nft_text import Json, text_of
from agent.explain.statements import Perhaps, Unread
from agent.explain.tables import Base, Chain, ChainType, Hook, Rule, Table, Tool

_FAMILIES: Final = frozenset({"ip", "ip6", "inet", "netdev", "bridge", "arp"})
_CHANGES: Final = re.compile(r'"(?:set|map)":\s*("@(?:[^"\\]|\\.)*")')
"""In an element's statement (`add @s { … }`); a string's own quotes are escaped: no comment looks like it."""
_AGING: Final = frozenset({"timeout", "dynamic"})
_CUT: Final = (
    " (nft 1.0.6 cannot print a table that has flags, as dormant or owner, and may end there: list such tables apart)"
)


def tables(document: str) -> tuple[Table, ...]:
    """Of one listing, whole or in part, in the order of the document; tables that only chains, sets and rules name are
    there too. Chains' rules and sets are read when they are first asked for, and what cannot be read of one statement
    is said there. Raises ValueError for what is no such document."""
    return tuple(_table(key, found, document) for key, found in _objects(document).items())


def holds_xt(rule: Rule) -> bool:
    """Whether something in it is iptables' own, which only iptables-nft-save tells."""
    return any(isinstance(one, Perhaps | Unread) and one.what.text.startswith(XT) for one in rule.statements)


# ── The document ───────────────────────────────────────────────────────────────────────────────────────────────────
class _Found:
    """What the document has of one table."""

    __slots__ = ("chains", "rules", "sets", "table")

    def __init__(self) -> None:
        self.table: Json = {}
        self.chains: dict[str, Json] = {}
        self.rules: dict[str, list[Json]] = {}
        self.sets: dict[str, Json] = {}


def _objects(document: str) -> dict[tuple[str, str], _Found]:
    found: dict[tuple[str, str], _Found] = {}
    for number, listed in enumerate(_listing(document)):
        try:
            ((what, said),) = listed.items()
            if what == "rule":
                of = found.get((said["family"], said["table"]))
                if of is None:
                    of = _of(found, said["family"], said["table"])
                rules = of.rules.get(said["chain"])
                if rules is None:
                    of.rules[said["chain"]] = [said]
                else:
                    rules.append(said)
            elif what == "chain":
                _of(found, said["family"], said["table"]).chains[said["name"]] = said
            elif what in ("set", "map"):
                _of(found, said["family"], said["table"]).sets[said["name"]] = said
            elif what == "table":
                _of(found, said["family"], said["name"]).table = said
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"nft's JSON: object {number} is not as nft writes it: {text_of(listed)}") from error
    return found


def _of(found: dict[tuple[str, str], _Found], family: str, name: str) -> _Found:
    if family not in _FAMILIES or not isinstance(name, str):
        raise ValueError(family)
    return found.setdefault((family, name), _Found())


def _listing(document: str) -> Sequence[Json]:
    if not document.strip():  # libnftables prints nothing when there is nothing to print
        return ()
    try:
        whole = json.loads(document)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno} of {len(document)} characters"
        raise ValueError(f"nft's JSON: {error.msg} at {where}{_CUT}") from None
    except RecursionError:
        raise ValueError("nft's JSON: nested deeper than nft ever does") from None
    listing = whole.get("nftables") if isinstance(whole, dict) else None
    if not isinstance(listing, list):
        raise ValueError('nft\'s JSON: it has no list "nftables": give it what `nft -j list ruleset` prints')
    return listing


# ── Tables and chains ──────────────────────────────────────────────────────────────────────────────────────────────
def _table(key: tuple[str, str], found: _Found, document: str) -> Table:
    family, name = key
    sets = Sets(family, _sets(found.sets, document))
    chains: dict[str, Chain] = {}
    for chain, said in found.chains.items():
        chains[chain] = Chain(chain, _Rules(found.rules.get(chain, ()), sets), _base(said), _handle(said))
    for chain, rules in found.rules.items():
        if chain not in chains:
            chains[chain] = Chain(chain, _Rules(rules, sets))
    dormant = "dormant" in _several(found.table.get("flags", ()))
    return Table(Tool.NFT, family, name, chains, sets, _handle(found.table), dormant)


def _sets(found: Mapping[str, Json], document: str) -> Mapping[str, Listed]:
    if not found:
        return {}
    changed = {json.loads(name)[1:] for name in _CHANGES.findall(document)}
    return {name: Listed(said, name in changed or _ages(said)) for name, said in found.items()}


def _ages(said: Json) -> bool:
    return "timeout" in said or not _AGING.isdisjoint(_several(said.get("flags", ())))


def _several(raw: Json) -> Sequence[Json]:
    """nft writes one alone, or a list of one: by its version."""
    return raw if isinstance(raw, list | tuple) else (raw,)


def _handle(said: Json) -> int:
    handle = said.get("handle", 0)
    return handle if isinstance(handle, int) else 0


def _base(said: Json) -> Base | None:
    if "hook" not in said:
        return None
    devices = said.get("dev", ())
    try:
        return Base(
            ChainType(said["type"]),
            Hook(said["hook"]),
            int(said["prio"]),
            said.get("policy") == "drop",
            tuple(_several(devices)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"nft's JSON: chain {text_of(said.get('name'))} hangs nowhere known: {error}") from error


class _Rules(Sequence[Rule]):
    """A chain's, read all at once when one is asked for: a packet that enters a chain meets most of them."""

    __slots__ = ("_raw", "_rules", "_sets")

    def __init__(self, raw: Sequence[Json], sets: Sets) -> None:
        self._raw = raw
        self._sets = sets
        self._rules: tuple[Rule, ...] | None = None

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        return self._all()[index]

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def _all(self) -> tuple[Rule, ...]:
        if self._rules is None:
            self._rules = tuple(_rule(place, raw, self._sets) for place, raw in enumerate(self._raw, 1))
        return self._rules


def _rule(place: int, raw: Json, sets: Sets) -> Rule:
    comment, handle = raw.get("comment", ""), raw.get("handle", 0)
    if type(comment) is not str or type(handle) is not int:
        comment, handle = text_of(comment), 0
    return Rule(place, statements(raw.get("expr"), sets), "", comment, handle)
