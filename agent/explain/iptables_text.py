"""What iptables-save(8) prints, of either make and either family, as tables of statements. Pure.

A rule is read when it is asked for: of thousands, a packet meets a few hundred.
"""

import functools
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Final, overload

from agent.explain.iptables_matches import read_match
from agent.explain.iptables_options import Spec, taken_apart
from agent.explain.iptables_targets import read_target
from agent.explain.iptables_values import V4, V6, interface, network, of_protocol
from agent.explain.statements import (
    Bits,
    Constant,
    Decision,
    Field,
    Match,
    Op,
    Opaque,
    Perhaps,
    Read,
    Statement,
    Unread,
    Verdict,
)
from agent.explain.tables import Base, Chain, ChainType, Hook, Rule, Table, Tool
from agent.plan.iptables_saved import SavedTable, parse

_HOOKS: Final = {
    "PREROUTING": Hook.PREROUTING,
    "INPUT": Hook.INPUT,
    "FORWARD": Hook.FORWARD,
    "OUTPUT": Hook.OUTPUT,
    "POSTROUTING": Hook.POSTROUTING,
}
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
"""linux/netfilter_ipv4.h: NF_IP_PRI_*."""
_DESTINATION_NAT, _SOURCE_NAT = -100, 100
_CHANGES_DESTINATION: Final = frozenset({Hook.PREROUTING, Hook.OUTPUT})
_FRAGMENT_OFFSET: Final = 0x1FFF  # net/ip.h: IP_OFFSET
_HEADS: Final = 4096


def tables(text: str, tool: Tool, family: str) -> tuple[Table, ...]:
    """Of what iptables-save (`family` ip) or ip6tables-save (ip6) printed, with counters or without. Never fails:
    a rule that cannot be read holds a Perhaps or an Unread that says so."""
    return tuple(_table(saved, tool, family) for saved in parse(text).values())


def _table(saved: SavedTable, tool: Tool, family: str) -> Table:
    specs: dict[str, list[str]] = {name: [] for name in saved.policies}
    for rule in saved.rules:
        specs.setdefault(rule.chain, []).append(rule.spec)  # one that nobody declared is shown all the same
    read = functools.partial(read_rule, v6=family == "ip6", chains=specs.keys())
    chains = {name: Chain(name, Rules(of_chain, read), _base(saved, name)) for name, of_chain in specs.items()}
    return Table(tool, family, saved.name, chains, {})


def _base(saved: SavedTable, chain: str) -> Base | None:
    hook = _HOOKS.get(chain)
    if hook is None or not saved.is_builtin(chain):
        return None
    drops = saved.policies[chain] == "DROP"
    if saved.name == "nat":
        priority = _DESTINATION_NAT if hook in _CHANGES_DESTINATION else _SOURCE_NAT
        return Base(ChainType.NAT, hook, priority, drops)
    if saved.name not in _PRIORITIES:
        return None
    routes_again = saved.name == "mangle" and hook is Hook.OUTPUT  # net/ipv4/netfilter/iptable_mangle.c
    kind = ChainType.ROUTE if routes_again else ChainType.FILTER
    return Base(kind, hook, _PRIORITIES[saved.name], drops)


class Rules(Sequence[Rule]):
    """A chain's, each read at its first use."""

    __slots__ = ("_read", "_rules", "_specs")

    def __init__(self, specs: Sequence[str], read: Callable[[str, int], Rule]) -> None:
        self._specs = specs
        self._read = read
        self._rules: list[Rule | None] = [None] * len(specs)

    def __len__(self) -> int:
        return len(self._specs)

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        rule = self._rules[index]
        if rule is None:
            place = index % len(self._rules)
            rule = self._rules[place] = self._read(self._specs[place], place + 1)
        return rule

    def __iter__(self) -> Iterator[Rule]:
        rules, read = self._rules, self._read
        for place, spec in enumerate(self._specs):
            rule = rules[place]
            if rule is None:
                rule = rules[place] = read(spec, place + 1)
            yield rule


def read_rule(spec: str, place: int, *, v6: bool, chains: Container[str]) -> Rule:
    """`spec` as it was printed behind `-A CHAIN`. `chains`: of its table, to tell a jump from a target."""
    try:
        parts = taken_apart(spec)
    except ValueError as error:
        return Rule(place, (Unread(Opaque(spec, str(error))),), spec)
    statements = _head(parts.head, v6) if parts.head else []
    for group in parts.matches:
        statements += read_match(group, v6, parts.cut if "\0" in group else ())
    if parts.target:
        statements += _target(parts, v6, chains)
    return Rule(place, tuple(statements), parts.text, parts.comment)


def _target(parts: Spec, v6: bool, chains: Container[str]) -> tuple[Statement, ...]:
    if parts.target in chains:
        return _jump(parts.target, parts.goes)
    return read_target(parts.target, v6, parts.cut if "\0" in parts.target else ())


@functools.lru_cache(maxsize=_HEADS)
def _jump(chain: str, goes: bool) -> tuple[Statement, ...]:
    return (Verdict(Decision.GOTO if goes else Decision.JUMP, chain),)


def _head(head: str, v6: bool) -> list[Statement]:
    """Source, destination, interfaces, protocol, fragments: each at most once."""
    found: list[Statement] = []
    words = iter(head.split(" "))
    negated, seen = False, ""
    try:
        for word in words:
            if word == "!":
                negated = True
                continue
            if word in seen:
                raise ValueError(word)
            seen += word
            found.append(_of_head(word, "" if word == "-f" else next(words), v6, negated))
            negated = False
    except (ValueError, StopIteration):
        return [Perhaps(Opaque(head, "it is not in the form in which iptables-save writes it"))]
    return found


def _of_head(name: str, value: str, v6: bool, negated: bool) -> Match:
    match name:
        case "-s":
            return network(V6.source if v6 else V4.source, value, v6, negated)
        case "-d":
            return network(V6.destination if v6 else V4.destination, value, v6, negated)
        case "-p":
            return of_protocol(value, negated)
        case "-i":
            return interface(Field.IIFNAME, value, negated)
        case "-o":
            return interface(Field.OIFNAME, value, negated)
        case "-f":  # the second and later ones
            offset = Bits(Read(Field.IP_FRAG_OFF), _FRAGMENT_OFFSET)
            return Match(offset, Op.EQUAL if negated else Op.UNEQUAL, Constant(0))
    raise ValueError(name)
