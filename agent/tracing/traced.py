"""One packet as the kernel traced it, joined with its rules and its connection. Values; names are not yet printable."""

from dataclasses import dataclass
from enum import Enum

from agent.explain.packet import Way
from agent.kernel.conntrack_news import Connection
from agent.tracing.headers import Headers
from agent.tracing.known import KnownRule


class Kind(Enum):
    RULE = "rule"  # one that matched
    END = "end"  # of a chain: nothing decided
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class TracedStep:
    """`hook`: of the base chain it began in, as `nat output, priority -100`; empty when that is not known. `whose`: the
    rule's, or the chain's. `handle`: of a RULE. `rule` None: its text is not known. `verdict`: `accept`, `drop`,
    `continue`, `return`, `jump`, `goto`, `queue`, `stolen`; `target`: where a jump goes. `mark`: of the packet, after
    the rule. `headers`: as they are in this base chain, of its first step only. `arrives`, `leaves`: interfaces, as far
    as decided."""

    kind: Kind
    family: str
    table: str
    chain: str
    hook: str
    whose: str
    handle: int
    rule: KnownRule | None
    verdict: str
    target: str
    mark: int
    headers: Headers | None
    arrives: str = ""
    leaves: str = ""


@dataclass(frozen=True, slots=True)
class TracedPacket:
    """`seen_at_s`: since the epoch, when its first message was read. `sent`, `mark`, `way`: before any rule. `steps`:
    of its whole way through this namespace, over lo again too. `connection` None: conntrack made no entry, or it was
    not heard of; then `last` has what could be seen of translation."""

    number: int
    seen_at_s: float
    sent: Headers
    steps: tuple[TracedStep, ...]
    connection: Connection | None = None
    mark: int = 0
    way: Way = Way.OUTBOUND

    @property
    def last(self) -> Headers:
        """As it was seen last."""
        return next((step.headers for step in reversed(self.steps) if step.headers is not None), self.sent)

    @property
    def dropped(self) -> TracedStep | None:
        """The step that ended its way."""
        return next((step for step in self.steps if step.verdict == "drop"), None)


@dataclass(frozen=True, slots=True)
class Loss:
    """What was not seen. `begun`: packets that the trace's rules marked, `read`: those of them that were decoded.
    `messages`: the kernel's count of messages that found no room. `over_limit`: packets that were meant and not traced,
    because there were more a second than the limit."""

    begun: int = 0
    read: int = 0
    messages: int = 0
    over_limit: int = 0
    connections: int = 0

    @property
    def packets(self) -> int:
        return max(0, self.begun - self.read)

    @property
    def nothing(self) -> bool:
        return not (self.packets or self.messages or self.over_limit)


@dataclass(frozen=True, slots=True)
class Trace:
    """`notes`: what else is to be known of it, in words: rules that send no trace, rules that changed meanwhile."""

    packets: tuple[TracedPacket, ...]
    loss: Loss
    notes: tuple[str, ...] = ()
