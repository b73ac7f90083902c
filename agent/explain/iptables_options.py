"""A rule as iptables-save(8) prints it, taken apart: what every rule can have, its matches, its target. Pure.

Values that a user chose (comments, prefixes, names) may be words of any kind, options too: they are cut out first. What
a name without quotes holds cannot always be told from what follows it; a rule with the same word twice is not read.
"""

import re
from dataclasses import dataclass
from typing import Final

_CHOSEN: Final = (
    "comment|log-prefix|nflog-prefix|ulog-prefix|string|hex-string|name|hashlimit-name|helper|label|timeout|selctx"
    "|led-trigger-id|nfacct-name|rateest|rateest-name|rateest[12]|genre|object-pinned|bytecode|path|u32|log-level"
    "|timestart|timestop|queue-cpu|set-class"
)
"""Options that have exactly one value, which libxtables prints by xtables_save_string() or as it is."""
_VALUE: Final = re.compile(
    rf"""(?:(?<=\ )(-[a-eg-zA-Z]\ )([^ ]*)  # printed as it is: the name of an interface, a chain, a module
    | (--(?:{_CHOSEN})\ )("(?:[^"\\]|\\.)*"|[^ ]*)
    | (?<=\ )("(?:[^"\\]|\\.)*"))(?=\ |$)""",
    re.DOTALL | re.VERBOSE,
)
_HAS_CHOSEN: Final = re.compile(rf'--(?:{_CHOSEN}) |"')
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_MODULE: Final = " -m comment "
_COMMENTS: Final = " -m comment --comment "
_PLAIN: Final = frozenset(
    {"tcp", "udp", "sctp", "multiport", "icmp", "icmp6", "mark", "connmark", "owner", "conntrack", "state", "addrtype"}
    | {"iprange", "statistic", "set", "socket", "CT", "MARK", "CONNMARK", "REDIRECT", "DNAT", "SNAT", "MASQUERADE"}
    | {"REJECT", "TPROXY"}
)
"""Matches and targets without a value that a user chose freely, but for the name of an ipset: nobody can tell what its
match does anyhow."""
_CUT: Final = "\0"
"""What stands where a value was cut out, with its number: the kernel's names hold no such character."""


class Twofold(ValueError):
    """What was printed can be read in more than one way."""


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    negated: bool
    values: tuple[str, ...]

    @property
    def value(self) -> str:
        """The only one. Raises ValueError."""
        (value,) = self.values
        return value


@dataclass(frozen=True, slots=True)
class Spec:
    """`head`: what stands before the first match. `matches`: what follows each `-m`, the module's name first. `target`:
    what follows `-j` or `-g` (`goes`: it was -g), empty for a rule without. All still as printed, but what was cut out
    of them: `cut`. `text`: the rule without its comment."""

    head: str
    matches: tuple[str, ...]
    target: str
    goes: bool
    comment: str
    text: str
    cut: tuple[str, ...] = ()


def taken_apart(spec: str) -> Spec:
    """Raises Twofold. Flat: it is done for every rule that a packet meets."""
    rest, comment = f" {spec}", ""
    start = rest.find(_COMMENTS)
    if start >= 0:
        begin = start + len(_COMMENTS)
        quoted = rest.startswith('"', begin)
        end = rest.find('"', begin + 1) + 1 if quoted else rest.find(" ", begin)
        end = end if end > 0 else len(rest)
        comment = rest[begin + 1 : end - 1] if quoted else rest[begin:end]
        if "\\" in comment:
            return _with_chosen(spec)
        rest = rest[:start] + rest[end:]
    if '"' in rest:
        return _with_chosen(spec)
    try:
        parts = _parts(rest, comment, rest[1:], ())
    except Twofold:
        if _HAS_CHOSEN.search(rest):
            return _with_chosen(spec)
        raise
    if _PLAIN.issuperset([match.partition(" ")[0] for match in parts.matches]):
        name, given, _ = parts.target.partition(" ")
        if not given or name in _PLAIN:
            return parts
    return _with_chosen(spec) if _HAS_CHOSEN.search(rest) else parts


def _with_chosen(spec: str) -> Spec:
    return _parts(*_without_values(f" {spec}"))


def _parts(rest: str, comment: str, text: str, cut: tuple[str, ...]) -> Spec:
    rest, jumps, target = rest.partition(" -j ")
    goes = not jumps and " -g " in rest
    if goes:
        rest, _, target = rest.partition(" -g ")
    if " -j " in target or " -g " in target or " -m " in target:
        raise Twofold("it has two targets, or a name in it has blanks")
    head, *matches = rest.split(" -m ")
    if cut:
        matches = [match for match in matches if not match.startswith("comment ")]
    return Spec(head[1:], tuple(matches), target, goes, comment, text, cut)


def options(group: str, cut: tuple[str, ...] = ()) -> tuple[Option, ...]:
    """Of a group of words behind its first, in order."""
    found: list[Option] = []
    name, negated, values = "", False, []  # type: str, bool, list[str]
    negates_next = False
    for word in group.split(" "):
        if word == "!":
            negates_next = True
        elif word[:1] == "-":
            if name:
                found.append(Option(name, negated, tuple(values)))
            name, negated, values, negates_next = word, negates_next, [], False
        elif word:
            values.append(cut[int(word[1:])] if word[0] == _CUT else word)
    if name:
        found.append(Option(name, negated, tuple(values)))
    return tuple(found)


def _without_values(rest: str) -> tuple[str, str, str, tuple[str, ...]]:
    """The rule with numbers for values, its first comment, the rule as it was but for that comment, the values."""
    cut: list[str] = []
    comments: list[tuple[int, int, str]] = []

    def placed(found: re.Match[str]) -> str:
        if found[1]:
            return found[0]
        raw = found[4] if found[3] else found[5]
        cut.append(_ESCAPED.sub(r"\1", raw[1:-1]) if raw[:1] == '"' else raw)
        if found[3] == "--comment " and rest.endswith(_MODULE, 0, found.start()):
            comments.append((found.start() - len(_MODULE), found.end(), cut[-1]))
        return f"{found[3] or ''}{_CUT}{len(cut) - 1}"

    left, text, comment = _VALUE.sub(placed, rest), rest, ""
    if comments:
        start, end, comment = comments[0]
        text = f"{rest[:start]}{rest[end:]}"
    return left, comment, text[1:], tuple(cut)
