"""RedirectPlan as iptables-restore(8) text: one text a family, of up to four tables.

One chain of ours a stage and direction, `HEADGATE_…`, entered by a jump from the built-in chain; every rule carries the
comment `headgate:<rule-id>`. Where the plan's rule speaks of a set, there are as many rules as the sets need, which
share the id: `multiport` takes 15 ports, `owner` one range, an address match one network.

An exemption returns instead of accepting: what others have in the same table behind our jump still sees the packet, as
it does in nft, where our chains are our own. Connections older than the rules have a rule each, in the chain in which
the stage FORGOTTEN goes on (`goto`): they come and go without the others being touched.

The anchor has no table of its own here: the chains TRACK and MARK stay while the pod is drained, and in nat two empty
chains with their jumps, which is what keeps steered connections translated (agent.plan.render.nft tells why).
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from agent.plan.drift import Form
from agent.plan.render.iptables_match import SYN_ONLY, Way, ways
from agent.plan.rules import (
    Capture,
    Direction,
    DropForgotten,
    Exempt,
    Inspect,
    IPFamily,
    KeepMark,
    PassGrandfathered,
    Protocol,
    RedirectPlan,
    Refuse,
    RestoreMark,
    Rule,
    SplitZone,
    Stage,
)
from agent.plan.tuples import FlowKey

CHAIN_PREFIX: Final = "HEADGATE_"
COMMENT_PREFIX: Final = "headgate:"
ENTRY_WORD: Final = "entry"
ENTRY: Final = f"{COMMENT_PREFIX}{ENTRY_WORD}"
"""Comment of the jumps into our chains; what is added to it says what was made for their sake: see `Made`."""
GUARD: Final = f"{CHAIN_PREFIX}GUARD"
TABLES: Final = ("raw", "mangle", "nat", "filter")
"""In the order in which a packet meets them (linux/netfilter_ipv4.h: enum nf_ip_hook_priorities)."""

_PLANS: Final = 64
"""Rendered plans that are remembered: pods of equal annotations share one."""
_SUFFIX: Final = {Direction.INBOUND: "IN", Direction.OUTBOUND: "OUT"}
_HOOK: Final = {Direction.INBOUND: "PREROUTING", Direction.OUTBOUND: "OUTPUT"}
# REJECT works in these chains only (iptables-extensions(8)), of the table filter by custom.
_FILTER_HOOKS: Final = {Direction.INBOUND: ("INPUT", "FORWARD"), Direction.OUTBOUND: ("OUTPUT",)}


@dataclass(frozen=True, slots=True)
class Chain:
    """`rules` as iptables takes them, without `-A NAME`."""

    name: str
    rules: tuple[str, ...]


class Made(Enum):
    """What was not there before our jump: added to its comment, so that it can be taken away with the last one. Of
    iptables-nft alone, where tables and built-in chains are made when first used; legacy tables stay for good."""

    NOTHING = ""
    CHAIN = "+chain"
    TABLE = "+table"


@dataclass(frozen=True, slots=True)
class Entry:
    """The jump from a built-in chain into one of ours; `spec` as iptables takes it, without `-A BUILTIN`."""

    builtin: str
    spec: str


@dataclass(frozen=True, slots=True)
class Table:
    """What is ours of one table of one family: chains, and the jumps into them in the order in which they stand."""

    name: str
    chains: tuple[Chain, ...]
    entries: tuple[Entry, ...]


# What a stage's rules lie in: table, and middle of the chain's name.
_STAGE: Final = {
    Stage.TRACK: ("raw", "TRACK"),
    Stage.MARK: ("mangle", "MARK"),
    Stage.FORGOTTEN: ("mangle", "FORGOTTEN"),
    Stage.CAPTURE: ("nat", "CAPTURE"),
    Stage.DATAGRAM: ("filter", "DATAGRAM"),
}
_INSPECTED: Final = {Protocol.TCP: Stage.FORGOTTEN, Protocol.UDP: Stage.DATAGRAM}


# ── What a namespace is to hold ────────────────────────────────────────────────────────────────────────────────────
@functools.lru_cache(maxsize=_PLANS)
def tables_of(plan: RedirectPlan, form: Form, family: IPFamily) -> tuple[Table, ...]:
    """All that one family is to hold, without the connections that are older than the rules. Raises InvalidPlan for an
    interface that nobody may be called."""
    places: dict[tuple[str, str], list[str]] = {("nat", _chain(Stage.CAPTURE, way)): [] for way in Direction}
    behind: dict[tuple[str, str], str] = {}
    for rule in (*plan.anchor, *(plan.rules if form is Form.STEERING else plan.drain)):
        table, chain = _place(rule)
        chain = behind.get((table, chain), chain)
        lines = places.setdefault((table, chain), [])
        match rule:
            case PassGrandfathered(family=family_of_rule, direction=direction):
                if family_of_rule is family:
                    behind[table, chain] = older_chain(direction)
                    lines.append(f"-m comment --comment {ENTRY} -g {older_chain(direction)}")
                    places[table, older_chain(direction)] = []
            case Inspect(direction=direction, protocol=protocol):
                places.setdefault((table, _chain(_INSPECTED[protocol], direction)), [])
                lines += rule_lines(rule, family)
            case _:
                lines += rule_lines(rule, family)
    return _assembled(places)


def guard_of(plan: RedirectPlan, family: IPFamily) -> Table:
    """What drops, meanwhile, all that the plan would capture, and nothing else."""
    chains: list[Chain] = []
    entries: list[Entry] = []
    for direction in Direction:
        lines: list[str] = []
        for rule in plan.rules:
            if rule.direction is direction and _decides_capture(rule):
                target = "-j RETURN" if isinstance(rule, Exempt) else "-j DROP"
                lines += _lines(_tests(rule), direction, family, target, "guard")
        if lines:
            name = f"{GUARD}_{_SUFFIX[direction]}"
            chains.append(Chain(name, tuple(lines)))
            entries += [entry(hook, name) for hook in _FILTER_HOOKS[direction]]
    return Table("filter", tuple(chains), tuple(entries))


def older_chain(direction: Direction) -> str:
    """Where the connections that are older than the rules stand; always of the table mangle."""
    return f"{CHAIN_PREFIX}GRANDFATHERED_{_SUFFIX[direction]}"


def with_older(tables: Iterable[Table], flows: Iterable[FlowKey], family: IPFamily) -> tuple[Table, ...]:
    """The tables, with a rule for each connection of that family that is older than the rules, in a fixed order."""
    version = 4 if family is IPFamily.IPV4 else 6
    ours = sorted({flow for flow in flows if flow[0].version == version})
    older = {older_chain(way): [_older_rule(flow, way) for flow in ours] for way in Direction}

    def filled(chain: Chain) -> Chain:
        return Chain(chain.name, (*older.get(chain.name, ()), *chain.rules))

    return tuple(replace(table, chains=tuple(map(filled, table.chains))) for table in tables)


def _older_rule(flow: FlowKey, direction: Direction) -> str:
    local, local_port, remote, remote_port = flow
    ends = ((local, local_port), (remote, remote_port))
    (source, sport), (destination, dport) = ends if direction is Direction.OUTBOUND else reversed(ends)
    bits = source.max_prefixlen
    tests = f"-s {source}/{bits} -d {destination}/{bits} -p tcp -m tcp --sport {sport} --dport {dport}"
    way = "in" if direction is Direction.INBOUND else "out"
    return f"{tests} {_comment(f'{way}-grandfathered{source.version}')} -j RETURN"


def restore_text(tables: Sequence[Table]) -> str:
    """For iptables-restore --noflush into a namespace that holds nothing of ours; and for people to read."""
    texts = []
    for table in tables:
        chains = "".join(f":{chain.name} - [0:0]\n" for chain in table.chains)
        rules = "".join(f"-A {chain.name} {rule}\n" for chain in table.chains for rule in chain.rules)
        texts.append(f"*{table.name}\n{chains}{rules}{''.join(entry_lines(table.entries))}COMMIT\n")
    return "".join(texts)


def entry(builtin: str, chain: str, made: Made = Made.NOTHING) -> Entry:
    return Entry(builtin, f"-m comment --comment {ENTRY}{made.value} -j {chain}")


def entry_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """Before everybody else's rules, in the order given."""
    places: dict[str, int] = {}
    for one in entries:
        places[one.builtin] = places.get(one.builtin, 0) + 1
        yield f"-I {one.builtin} {places[one.builtin]} {one.spec}\n"


def _assembled(places: dict[tuple[str, str], list[str]]) -> tuple[Table, ...]:
    """Chains without rules are left out, but for those that are led to, and those that hold nat's hooks open."""
    tables = []
    for name in TABLES:
        chains = [Chain(chain, tuple(lines)) for (table, chain), lines in places.items() if table == name]
        used = {rule.rpartition(" -g ")[2] for chain in chains for rule in chain.rules if " -g " in rule}
        chains = [chain for chain in chains if chain.rules or chain.name in used or name == "nat"]
        entries = [
            entry(builtin, chain.name)
            for chain in chains
            if chain.name not in used
            for builtin in _builtins(name, chain)
        ]
        if chains:
            tables.append(Table(name, tuple(chains), tuple(entries)))
    return tuple(tables)


def _builtins(table: str, chain: Chain) -> tuple[str, ...]:
    direction = Direction.INBOUND if chain.name.endswith("_IN") else Direction.OUTBOUND
    return _FILTER_HOOKS[direction] if table == "filter" else (_HOOK[direction],)


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def table_and_chain(rule: Rule) -> tuple[str, str]:
    """Where the rule lies. A rule that follows the connections older than the rules, in `older_chain`."""
    return _place(rule)


def rule_lines(rule: Rule, family: IPFamily) -> list[str]:
    """The rule as iptables takes it for that family, without `-A CHAIN`; none when it is the other family's alone."""
    if isinstance(rule, Inspect):
        target = f"-g {_chain(_INSPECTED[rule.protocol], rule.direction)}"
    else:
        target = f"-j {_target(rule)}"
    return _lines(_tests(rule), rule.direction, family, target, rule.rule_id)


def _lines(tests: Iterable[Way], direction: Direction, family: IPFamily, target: str, rule_id: str) -> list[str]:
    texts = (way.text(direction) for way in tests if way.family in (None, family))
    return [f"{text} {_comment(rule_id)} {target}".lstrip() for text in texts]


def _comment(rule_id: str) -> str:
    return f"-m comment --comment {COMMENT_PREFIX}{rule_id}"


def _chain(stage: Stage, direction: Direction) -> str:
    return f"{CHAIN_PREFIX}{_STAGE[stage][1]}_{_SUFFIX[direction]}"


def _place(rule: Rule) -> tuple[str, str]:
    match rule:
        case Inspect(direction=direction, protocol=protocol):
            return _STAGE[_INSPECTED[protocol]][0], f"{CHAIN_PREFIX}INSPECT_{_SUFFIX[direction]}"
        case _:
            return _STAGE[_stage(rule)][0], _chain(_stage(rule), rule.direction)


def _stage(rule: Rule) -> Stage:
    match rule:
        case SplitZone():
            return Stage.TRACK
        case KeepMark() | RestoreMark():
            return Stage.MARK
        case PassGrandfathered() | DropForgotten():
            return Stage.FORGOTTEN
        case Capture():
            return Stage.CAPTURE
        case Refuse():
            return Stage.DATAGRAM
        case Exempt(stage=stage):
            return stage
        case _:
            raise AssertionError(f"no stage of {rule}")


def _decides_capture(rule: Rule) -> bool:
    return isinstance(rule, Exempt | Capture) and _stage(rule) is Stage.CAPTURE


def _tests(rule: Rule) -> tuple[Way, ...]:
    match rule:
        case SplitZone(match=match) | Exempt(match=match) | DropForgotten(match=match) | Refuse(match=match):
            return ways(match)
        case KeepMark(marked=proxys):
            return ways(proxys, Way(interface="lo"))
        case RestoreMark(connection_mark=mark, unless=unless):
            others = f"-m mark ! --mark {unless.mark:#x}/{unless.mask:#x}"
            return (Way(tests=(others, f"-m connmark --mark {mark:#x}/{unless.mask:#x}")),)
        case Inspect(protocol=protocol, invalid_only=invalid_only):
            states = "INVALID" if invalid_only else "NEW" if protocol is Protocol.UDP else "NEW,INVALID"
            return (Way(protocol=protocol, tests=(f"-m conntrack --ctstate {states}",)),)
        case Capture(match=match, protocol=protocol):
            return ways(match, Way(protocol=protocol, tests=(SYN_ONLY,) if protocol is Protocol.TCP else ()))
        case _:
            raise AssertionError(f"no iptables form for {rule}")


def _target(rule: Rule) -> str:
    match rule:
        case SplitZone(zone=zone):
            return f"CT --zone-orig {zone}"
        case KeepMark(marked=proxys, connection_mark=mark):
            return f"CONNMARK --set-xmark {mark:#x}/{proxys.mask:#x}"
        case RestoreMark(connection_mark=mark, unless=unless):
            return f"MARK --set-xmark {mark:#x}/{unless.mask:#x}"
        case Exempt():
            return "RETURN"
        case DropForgotten():
            return "DROP"
        case Refuse():
            return "REJECT"
        case Capture(port=port):
            return f"REDIRECT --to-ports {port}"
        case _:
            raise AssertionError(f"no iptables target for {rule}")
