"""Why a connection goes direct. Pure.

First what the kernel remembers of it (the sets of `inet headgate`), then what no rule ever steers, then what the rules
that are there now would do with its first packet: a rule that lets it pass is the reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.connections.values import Connection, Path, Reason, Way
from agent.explain.outcome import Explanation, Fate, Result, Step
from agent.explain.packet import TCP, Packet, Sender
from agent.explain.packet import Way as PacketWay
from agent.explain.statements import Decision, Verdict
from agent.explain.tables import ChainType, Hook, Rule
from agent.explain.words import in_words
from agent.plan import FlowKey, steerable
from agent.pods import IPAddress
from agent.ruleset.inventory import COMMENT_PREFIX
from agent.ruleset.meanings import meanings_for

Judge = Callable[[Packet], Explanation]
"""What the rules make of a first packet."""

MOST_JUDGED: Final = 200
"""Different first packets that the rules of one namespace are asked about: what is beyond is told without a reason. One
takes 0.1 ms where headgate's rules are alone, 100 ms with 5,000 others (issue 6), so that time bounds it too."""

_LED: Final = frozenset({Fate.REDIRECT, Fate.TPROXY})
_LEADING: Final = frozenset({Hook.PREROUTING, Hook.OUTPUT})


@dataclass(frozen=True, slots=True)
class Known:
    """`remembered`: what the sets in the kernel say, by the socket's key. `interfaces`: by address of the namespace."""

    remembered: Mapping[FlowKey, Reason]
    interfaces: Mapping[IPAddress, str]


@dataclass(frozen=True, slots=True)
class Reasoned:
    reason: Reason
    why: str = ""


class Reasons:
    """Remembers what the rules make of packets that are alike. `has_time`: asked before each packet that is not."""

    def __init__(self, known: Known, judge: Judge | None, has_time: Callable[[], bool] = lambda: True) -> None:
        self._known = known
        self._judge = judge
        self._has_time = has_time
        self._judged: dict[Packet, Reasoned] = {}
        self.unjudged = 0

    def explained(self, connection: Connection) -> Connection:
        """With its reason, where it `waits` for one."""
        if not waits(connection):
            return connection
        found = self._reason(connection)
        return replace(connection, reason=found.reason, why=found.why)

    def _reason(self, connection: Connection) -> Reasoned:
        source, destination = connection.source, connection.destination
        opened = source.address, source.port, destination.address, destination.port
        here = opened if connection.way is not Way.INBOUND else (*opened[2:], *opened[:2])
        remembered = self._known.remembered.get(here)
        if remembered is not None:
            return Reasoned(remembered)
        if not steerable(opened):
            return Reasoned(Reason.LOOPBACK if destination.address.is_loopback else Reason.LINK_LOCAL)
        packet = self._packet(connection)
        found = self._judged.get(packet)
        if found is None:
            if self._judge is None or len(self._judged) >= MOST_JUDGED or not self._has_time():
                self.unjudged += self._judge is not None
                return Reasoned(Reason.UNKNOWN)
            found = self._judged[packet] = self._of(self._judge(packet))
        return found

    def _packet(self, connection: Connection) -> Packet:
        """Without the port that it came from: those to one place are alike."""
        source, destination = connection.source, connection.destination
        if connection.way is Way.INBOUND:
            return Packet(
                PacketWay.INBOUND,
                TCP,
                destination.address,
                destination.port,
                source.address,
                interface=self._known.interfaces.get(destination.address),
            )
        sender = Sender(uid=source.uid)
        return Packet(PacketWay.OUTBOUND, TCP, destination.address, destination.port, source.address, sender=sender)

    def _of(self, explanation: Explanation) -> Reasoned:
        outcome = explanation.outcome
        if outcome.fate in _LED or (outcome.fate is Fate.DNAT and outcome.port is not None):
            return Reasoned(Reason.PAST, f"now: {outcome.fate.value} to port {outcome.port}")
        if outcome.fate is Fate.UNKNOWN:
            doubt = next(iter(explanation.doubts), None)
            return Reasoned(Reason.UNKNOWN, "" if doubt is None else f"{doubt.text}: {doubt.why}")
        if outcome.fate in (Fate.DROP, Fate.REJECT):
            return Reasoned(Reason.UNKNOWN, f"opened now it would meet {outcome.fate.value}")
        step = deciding_step(explanation)
        return Reasoned(Reason.NO_RULE) if step is None else Reasoned(Reason.EXCLUDED, words_of(step))


def waits(connection: Connection) -> bool:
    """It goes direct, and nobody has said why."""
    return connection.path is Path.DIRECT and connection.reason is None


def deciding_step(explanation: Explanation) -> Step | None:
    """The rule by which it is not led anywhere: in the nat chains where it could have been, the first that ends the
    chain, else the last that returns from one. None: it matched none."""
    in_nat, returned = False, None
    for step in explanation.path:
        if not isinstance(step, Step):
            continue
        base = step.table.chains[step.chain].base
        if base is not None:
            in_nat = base.kind is ChainType.NAT and base.hook in _LEADING
        if in_nat and step.rule is not None:
            if step.result is Result.DECIDED:
                return step
            if step.result is Result.WENT_ON and _returns(step.rule):
                returned = step
    return returned


def _returns(rule: Rule) -> bool:
    return any(isinstance(one, Verdict) and one.decision is Decision.RETURN for one in rule.statements)


def words_of(step: Step) -> str:
    """The rule, what it means and where it stands. May hold what a pod wrote: printable where it is shown."""
    rule = step.rule
    assert rule is not None
    place = f"{step.table.family} {step.table.name} {step.chain} rule {rule.place}"
    if rule.comment.startswith(COMMENT_PREFIX):
        rule_id = rule.comment.removeprefix(COMMENT_PREFIX)
        meaning = meanings_for([rule_id])(rule_id)
        if meaning is not None:
            return f"by {rule_id}: {meaning} ({place})"
    return f"by {in_words(rule)} ({place})"
