"""What becomes of a packet, and why: the interpreter's answer. Pure values; names in them are not yet printable."""

from dataclasses import dataclass
from enum import Enum

from agent.explain.statements import Statement, Value
from agent.explain.tables import Hook, Rule, Table
from agent.pods import IPAddress


class Fate(Enum):
    """The values are those of `headgate rules explain -o json`."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    REDIRECT = "redirect"  # to a port of this namespace
    DNAT = "dnat"
    TPROXY = "tproxy"
    UNKNOWN = "unknown"  # what cannot be read decides between several: `Explanation.either`


@dataclass(frozen=True, slots=True)
class Outcome:
    """`address`, `port`: where the packet is led, of redirect, dnat and tproxy; None for a part that stays as it was.

    `note`: what else happens to it that the fate does not say, in words (`delivered here`, `leaves by eth0`,
    `no route`, `source becomes 10.0.0.5`).
    """

    fate: Fate
    address: IPAddress | None = None
    port: int | None = None
    note: tuple[str, ...] = ()


class Result(Enum):
    """What a rule did with the packet."""

    MISSED = "no match"
    WENT_ON = "goes on"  # matched, and decided nothing (counter, mark, log)
    DECIDED = "decides"
    PERHAPS = "unknown"  # both ways are followed


@dataclass(frozen=True, slots=True)
class Step:
    """One rule met, or the end of a base chain (`rule` None: its policy), in the order in which the kernel meets them.

    `what`: the result in words, as `redirect to :15001`, `jump to ISTIO_OUTPUT`, `policy accept`, `mark becomes 0x539`.
    `failed`: of a rule that missed, the first statement that did not hold; not in words yet, because of 5,000 rules
    that are met a person is shown a hundred. `had`: what the packet has there, if that is one value.
    """

    hook: Hook
    table: Table
    chain: str
    rule: Rule | None
    result: Result
    what: str = ""
    failed: Statement | None = None
    had: Value | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """Something on the way that no rule did: routing, conntrack's decision, a second pass over lo. In words."""

    what: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """What could not be interpreted, and where it stands. `rule` None: not one rule, but the order of whole chains."""

    table: Table
    chain: str
    rule: Rule | None
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`outcome`: UNKNOWN when `doubts` leave several possible; `either` are those, each with the path that leads there
    (the first one's path is `path`). One that all ways agree upon is certain, whatever doubts there are."""

    outcome: Outcome
    path: tuple[Step | Passage, ...]
    doubts: tuple[Doubt, ...] = ()
    either: tuple[tuple[Outcome, tuple[Step | Passage, ...]], ...] = ()
