"""What iptables-save(8) prints, read; and how it differs from what a plan wants, in an operator's words.

The same rule is printed in several ways: by version, and by which of the two iptables prints it (`-m tcp` once or
twice, states in another order, what is the default left out). So rules are compared as sets of options. What is read
may have been written by the pod: it is never trusted to be well formed, never shown raw, and only what is made of our
own words is ours and can get into a text for iptables-restore: see `of_our_words`.
"""

import functools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import groupby
from typing import Final

from agent.plan import drift
from agent.plan.render.iptables import (
    CHAIN_PREFIX,
    COMMENT_PREFIX,
    ENTRY,
    ENTRY_WORD,
    GUARD,
    TABLES,
    Chain,
    Entry,
    Table,
)
from agent.printable import printable

_RULE: Final = re.compile(r"(?:\[(\d+):(\d+)\] )?-A (\S+) ?(.*)", re.DOTALL)
_CHAIN: Final = re.compile(r":(\S+) (\S+)")
_PIECE: Final = re.compile(
    r"""(?:-[a-zA-Z]|--(?:match-set|(?:add|del|map)-set|name|set|timeout|helper))\ +[^ ]*  # printed as it is
    | "(?:[^"\\]|\\.)*"  # xtables_save_string(), iptables' libxtables
    | (")  # the same, without an end
    | [^ ]+""",
    re.DOTALL | re.VERBOSE,
)
_PLAIN_COMMENT: Final = re.compile(r' --comment "[^"\\]*"(?: |$)')
_LONGEST_RULE: Final = 8192
"""Characters: far more than a rule has, and as far as an open quote is followed."""
_WORD: Final = re.compile(r'"([^"]*)"|([^\s"]+)')
_RULES: Final = 4096
"""Remembered readings of rules, half a KB each: those of twenty plans."""
_NO_POLICY: Final = "-"
_OLDER: Final = re.compile(rf"{COMMENT_PREFIX}(?:in|out)-grandfathered[46]")
_OLDER_CHAIN: Final = f"{CHAIN_PREFIX}GRANDFATHERED_"
_IMPLIED: Final = frozenset({"tcp", "udp", "comment"})
"""Modules that test nothing by themselves."""
_OUR_CHAIN: Final = re.compile(rf"{CHAIN_PREFIX}[A-Za-z0-9_-]{{1,19}}")
"""x_tables takes names of 28 characters (linux/netfilter/x_tables.h: XT_EXTENSION_MAXNAMELEN)."""
_BUILTINS: Final = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_OUR_OPTION: Final = re.compile(
    r"-[sdiopmjg]|--([sd]ports?|tcp-flags|ctstate|comment|mark|set-xmark|[ug]id-owner|socket-exists|nowildcard"
    r"|restore-skmark|zone-orig|to-ports|reject-with)"
)
_OUR_VALUE: Final = re.compile(r"[A-Za-z0-9_.:@][A-Za-z0-9_.,:/@+-]*")
_DEFAULTS: Final = frozenset({"--reject-with icmp-port-unreachable", "--reject-with icmp6-port-unreachable"})


@dataclass(frozen=True, slots=True)
class SavedRule:
    """`spec` as it was printed behind `-A CHAIN`. Packets and bytes are 0 when the counters were not asked for."""

    chain: str
    spec: str
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SavedTable:
    """`policies`: of built-in chains ACCEPT or DROP, of the others `-`; in the order in which they were printed."""

    name: str
    policies: Mapping[str, str]
    rules: tuple[SavedRule, ...]

    def of_chain(self, chain: str) -> tuple[SavedRule, ...]:
        return tuple(rule for rule in self.rules if rule.chain == chain)

    def is_builtin(self, chain: str) -> bool:
        return self.policies.get(chain, _NO_POLICY) != _NO_POLICY

    @property
    def our_chains(self) -> tuple[str, ...]:
        if self.name not in TABLES:
            return ()
        return tuple(name for name in self.policies if is_our_chain(name))

    @property
    def our_entries(self) -> tuple[Entry, ...]:
        """Rules of ours in built-in chains: jumps into our chains, and what bears our comment."""
        return tuple(Entry(rule.chain, rule.spec) for rule in self.rules if self._is_entry(rule))

    def _is_entry(self, rule: SavedRule) -> bool:
        place = self.name in TABLES and rule.chain in _BUILTINS and self.is_builtin(rule.chain)
        return place and is_ours(rule.spec)


def parse(text: str) -> dict[str, SavedTable]:
    """By name of the table, in the order in which they were printed. Lines that mean nothing here are passed over."""
    tables: dict[str, SavedTable] = {}
    name, policies, rules = "", {}, []  # type: tuple[str, dict[str, str], list[SavedRule]]
    for line in _logical_lines(text):
        if line.startswith("*"):
            name, policies, rules = line[1:], {}, []
        elif line == "COMMIT":
            tables[name] = SavedTable(name, policies, tuple(rules))
        elif found := _RULE.match(line):
            packets, octets, chain, spec = found.groups()
            rules.append(SavedRule(chain, spec, int(packets or 0), int(octets or 0)))
        elif found := _CHAIN.match(line):
            policies[found[1]] = found[2]
    return tables


def _logical_lines(text: str) -> Iterator[str]:
    """Lines; one in which a quoted value is open goes on to where it is closed: a comment may hold a line break, and
    behind it what looks like a rule."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        joined = lines[number]
        number += 1
        if '"' in joined and not joined.startswith(("#", ":")):
            whole, taken = joined, number
            while _is_open(whole) and taken < len(lines) and len(whole) < _LONGEST_RULE:
                whole, taken = f"{whole}\n{lines[taken]}", taken + 1
            if not _is_open(whole):  # else it is no value that iptables-save quotes, and what follows is lines again
                joined, number = whole, taken
        yield joined


def _is_open(rule: str) -> bool:
    """Whether a quoted value does not end. Names of interfaces, chains and sets are printed without quotes, and may
    have some in them."""
    if rule.count('"') == 2 and _PLAIN_COMMENT.search(rule):  # nearly every rule that has one
        return False
    return any(piece[1] for piece in _PIECE.finditer(rule))


def ours(table: SavedTable) -> Table:
    """What is ours of it, as it is: to be put back, or to be compared."""
    chains = (Chain(name, tuple(rule.spec for rule in table.of_chain(name))) for name in table.our_chains)
    return Table(table.name, tuple(chains), table.our_entries)


def is_our_chain(name: str) -> bool:
    return _OUR_CHAIN.fullmatch(name) is not None


def holds_ours(saved: Mapping[str, SavedTable]) -> bool:
    return any(table.our_chains or table.our_entries for table in saved.values())


def foreign_rules(saved: Mapping[str, SavedTable]) -> int:
    """How many rules are somebody else's."""
    return sum(
        not is_our_chain(rule.chain) and not (table.is_builtin(rule.chain) and is_ours(rule.spec))
        for table in saved.values()
        for rule in table.rules
    )


def rule_id(spec: str) -> str | None:
    """The plan's rule that it is, or is a part of."""
    comment = _comment(spec)
    return comment.removeprefix(COMMENT_PREFIX) if comment.startswith(COMMENT_PREFIX) else None


def is_older(spec: str) -> bool:
    """Whether it lets pass one connection that is older than the rules: one, by addresses and ports."""
    options = _options(spec) or ()
    found = {name: value for negated, name, value in options if not negated}
    single = all(_is_address(found.get(end, "")) for end in ("-s", "-d"))
    ports = all(found.get(port, "").isdecimal() for port in ("--sport", "--dport"))
    return single and ports and found.get("-j") == "RETURN" and _OLDER.fullmatch(_comment(spec)) is not None


# ── Compared ───────────────────────────────────────────────────────────────────────────────────────────────────────
def same(wanted: Table | None, found: Table | None) -> bool:
    """Whether they mean the same, the connections that are older than the rules apart. None: nothing of ours there."""
    return _meaning(wanted) == _meaning(found)


def same_entries(wanted: Iterable[Entry], found: Iterable[Entry]) -> bool:
    """Those of one built-in chain in the same order; what was made for their sake does not count."""
    return _entries(wanted) == _entries(found)


def without_guard(table: Table) -> Table:
    """All but what stands there while rules are changed."""
    return Table(
        table.name,
        tuple(chain for chain in table.chains if not chain.name.startswith(GUARD)),
        tuple(entry for entry in table.entries if not is_of_guard(entry)),
    )


def is_of_guard(entry: Entry) -> bool:
    return GUARD in entry.spec


def describe(
    wanted: Sequence[Table], saved: Mapping[str, SavedTable], tool: str, *, guard_stands: bool = False
) -> tuple[str, ...]:
    """What differs, one change each; empty when the plan is in force. `tool` is the family's name: iptables, ip6tables.
    `guard_stands`: as it is to be for the moment."""
    changes: list[str] = []
    expected = {table.name: table for table in wanted}
    for name in dict.fromkeys((*expected, *saved)):
        found = ours(saved[name]) if name in saved else Table(name, (), ())
        rest = without_guard(found)
        if rest != found and not guard_stands:
            changes.append(f"{tool} {name}: the guard of an interrupted change is still in force")
        found = rest
        want = expected.get(name, Table(name, (), ()))
        if not same(want, found):
            label = f"{tool} {name}"
            listings = _listing(want), _listing(found) if found.chains or found.entries else None
            changes += [f"{tool} {name}: {what}" for what in drift.describe(*listings, label)]
    return tuple(changes)


def _meaning(table: Table | None) -> object:
    if table is None:
        return {}, {}
    return {chain.name: _rules(chain) for chain in table.chains}, _entries(table.entries)


def _rules(chain: Chain) -> tuple[tuple[str, ...], ...]:
    return tuple(normal(rule) for rule in _compared(chain))


def _compared(chain: Chain) -> tuple[str, ...]:
    if not chain.name.startswith(_OLDER_CHAIN):
        return chain.rules
    return tuple(rule for rule in chain.rules if not is_older(rule))


def _entries(entries: Iterable[Entry]) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for entry in entries:
        found.setdefault(entry.builtin, []).append(normal(entry.spec))
    return found


@functools.lru_cache(maxsize=_RULES)
def normal(spec: str) -> tuple[str, ...]:
    """The rule's options, sorted; equal for rules that mean the same, of those that a plan can ask for."""
    options = _options(spec)
    if options is None:
        return (spec,)
    found = []
    for negated, name, value in options:
        option = f"{name} {_value(name, value)}".rstrip()
        if not (name == "-m" and value in _IMPLIED) and option not in _DEFAULTS:
            found.append(f"! {option}" if negated else option)
    return tuple(sorted(set(found)))


def _options(spec: str) -> list[tuple[bool, str, str]] | None:
    """Each option with whether it is negated and its values; None for what no shell could have written."""
    words = _words(spec)
    if words is None:
        return None
    options: list[tuple[bool, str, str]] = []
    negated = False
    for word in words:
        if word == "!":
            negated = True
        elif word.startswith("-") or not options:
            options.append((negated, word, ""))
            negated = False
        else:
            was_negated, name, value = options[-1]
            options[-1] = (was_negated, name, f"{value} {word}".lstrip())
    return options


def _words(spec: str) -> list[str] | None:
    """As a shell would split it; what needs no shell is split without, which takes a tenth of the time."""
    if "\\" not in spec and "'" not in spec and spec.count('"') % 2 == 0:
        return [quoted or plain for quoted, plain in _WORD.findall(spec)]
    try:
        return shlex.split(spec)
    except ValueError:
        return None


def _value(name: str, value: str) -> str:
    match name:
        case "-s" | "-d":
            return _network(value)
        case "--ctstate":
            return ",".join(sorted(value.split(",")))
        case "--uid-owner" | "--gid-owner":
            first, _, last = value.partition("-")
            return first if first == last else value
        case "--comment":
            return COMMENT_PREFIX + ENTRY_WORD if value.startswith(ENTRY) else value
        case _:
            return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        return value


def _is_address(value: str) -> bool:
    try:
        return ip_network(value).num_addresses == 1
    except ValueError:
        return False


def _comment(spec: str) -> str:
    options = _options(spec) or ()
    return next((value for _, name, value in options if name == "--comment"), "")


def is_ours(spec: str) -> bool:
    """Of a rule in a built-in chain: a jump into a chain of ours, or our comment; and nothing in it but our words."""
    options = _options(spec) or ()
    claimed = any(
        (name in ("-j", "-g") and value.startswith(CHAIN_PREFIX))
        or (name == "--comment" and value.startswith(COMMENT_PREFIX))
        for _, name, value in options
    )
    return claimed and of_our_words(spec)


@functools.lru_cache(maxsize=_RULES)
def of_our_words(spec: str) -> bool:
    """Whether the rule is one line of options and values that a plan can have, of this version or an earlier one.

    Only then it may be written back. The kernel takes line breaks in comments and chains' names, and blanks in
    interfaces' names: iptables-restore would read the rest of such a rule as lines and options of its own, and it runs
    with the rights of the agent, where the rule was made with those of a pod.
    """
    if not (spec.isascii() and spec.isprintable()) or "\\" in spec or "'" in spec or spec.count('"') % 2:
        return False
    words = [quoted or plain for quoted, plain in _WORD.findall(spec)]
    return all(word == "!" or _OUR_OPTION.fullmatch(word) or _OUR_VALUE.fullmatch(word) for word in words)


# ── As agent.plan.drift reads ──────────────────────────────────────────────────────────────────────────────────────
def _listing(table: Table) -> str:
    """Chains with their rules in one form of words, those that are parts of one rule of the plan as one."""
    blocks = {chain.name: [_told(rule) for rule in _compared(chain)] for chain in table.chains}
    for entry in table.entries:
        blocks.setdefault(entry.builtin, []).append(_told(entry.spec))
    chains = "".join(f"\tchain {name} {{\n{_joined(lines)}\t}}\n" for name, lines in blocks.items())
    return f"table {table.name} {{\n{chains}}}"


def _told(spec: str) -> tuple[str, str]:
    """The plan's rule that it is of, and the options."""
    options = [option for option in normal(spec) if not option.startswith("--comment ")]
    identity = rule_id(spec) or ""
    if identity.startswith(ENTRY_WORD):
        identity = f"{ENTRY_WORD} {next((option[3:] for option in options if option[:3] in ('-j ', '-g ')), '')}"
    return identity, " ".join(options)


def _joined(lines: Iterable[tuple[str, str]]) -> str:
    text = ""
    for identity, group in groupby(lines, key=lambda line: line[0]):
        options = [options for _, options in group]
        if identity:
            text += f'\t\t{_one_line(" | ".join(options))} comment "{COMMENT_PREFIX}{_one_line(identity)}"\n'
        else:
            text += "".join(f"\t\t{_one_line(option)}\n" for option in options)
    return text


def _one_line(text: str) -> str:
    """What may have been written by the pod opens no block and no line of its own here."""
    return printable(text).replace("\n", " ").replace('"', "'")
