"""What the rules of a namespace make of the connections that prove a pod: agent.explain, asked for each of the four."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from agent.explain.interpret import explain
from agent.explain.outcome import Explanation, Fate, Result, Step
from agent.explain.packet import TCP, Packet, Sender, Way
from agent.explain.statements import Nat, Tproxy
from agent.explain.tables import Base, ChainType, Rule, Ruleset, Table, Tool
from agent.explain.words import in_words
from agent.kernel.dial import NOBODY, look_inside
from agent.kernel.iproute import InterfaceAddress
from agent.kernel.on_link import unused_on_link
from agent.kernel.surroundings import KernelSurroundings
from agent.pods import IPAddress
from agent.ruleset.inventory import COMMENT_PREFIX
from agent.ruleset.whole import settled
from agent.why.facts import Led
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROOF_PORT

_TRANSLATED: Final = frozenset({Fate.REDIRECT, Fate.DNAT, Fate.TPROXY})
_LOST: Final = frozenset({Fate.DROP, Fate.REJECT})
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""A name that needs no quotes, neither nft's nor a shell's."""
_SAVES: Final = {(Tool.IPTABLES_NFT, "ip"): "iptables-nft", (Tool.IPTABLES_NFT, "ip6"): "ip6tables-nft"} | {
    (Tool.IPTABLES_LEGACY, "ip"): "iptables-legacy",
    (Tool.IPTABLES_LEGACY, "ip6"): "ip6tables-legacy",
}
_SEED: Final = 0x40
"""Far from where addresses are usually given; nothing is sent."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """`options`: those of `headgate rules explain` that ask the same."""

    name: str
    packet: Packet
    options: str
    wanted: int


def led(path: str, pods: tuple[IPAddress, ...]) -> tuple[Led, ...]:
    """In the namespace that the calling thread is in, which is at `path`; `pods`: the pod's own addresses, where they
    are known. One for each direction and family that there is. Raises KernelRefused, OSError."""
    asked = tuple(_connections(pods))

    def ask(ruleset: Ruleset) -> tuple[Led, ...]:
        return tuple(_led(path, one, explain(ruleset, one.packet, KernelSurroundings())) for one in asked)

    return settled(ask)


# ── What is asked ──────────────────────────────────────────────────────────────────────────────────────────────────
def _connections(pods: tuple[IPAddress, ...]) -> Iterator[_Asked]:
    """As agent.kernel.dial makes them."""
    inside = look_inside()
    everything = [found.address for found in inside.addresses]
    for version in (4, 6):
        own = next((found for found in inside.addresses if _is_own(found, version, pods)), None)
        interface = None if own is None else inside.interfaces.get(own.interface)
        if own is None or interface is None:
            continue
        other = unused_on_link(own.address, own.prefix_length, everything, _SEED) or NOBODY[version]
        yield _outbound(f"out{version}", other)
        yield _inbound(f"in{version}", own.address, other, interface)


def _is_own(found: InterfaceAddress, version: int, pods: tuple[IPAddress, ...]) -> bool:
    address = found.address
    if address.version != version or address.is_loopback or address.is_link_local or found.tentative:
        return False
    return address in pods if pods else True


def _outbound(name: str, other: IPAddress) -> _Asked:
    packet = Packet(Way.OUTBOUND, TCP, other, PROOF_PORT, sender=Sender(0, 0))
    return _Asked(name, packet, f"--to {_end(other)} --uid 0", OUTBOUND_PORT)


def _inbound(name: str, own: IPAddress, other: IPAddress, interface: str) -> _Asked:
    packet = Packet(Way.INBOUND, TCP, own, PROOF_PORT, source=other, interface=interface)
    options = f"--to {_end(own)} --from {other} --iface {shlex.quote(interface)}"
    return _Asked(name, packet, options, INBOUND_PORT)


def _end(address: IPAddress) -> str:
    return f"[{address}]:{PROOF_PORT}" if address.version == 6 else f"{address}:{PROOF_PORT}"


# ── What becomes of it ─────────────────────────────────────────────────────────────────────────────────────────────
def _led(path: str, asked: _Asked, found: Explanation) -> Led:
    outcome, packet = found.outcome, asked.packet
    way = "a new connection" if packet.way is Way.OUTBOUND else "a new connection from outside"
    told = Led(
        asked.name,
        f"{way} to {packet.destination} port {PROOF_PORT}",
        asked.options,
        asked.wanted,
        outcome.fate.value,
        outcome.port,
    )
    step = _decisive(found)
    if step is None:
        return told
    ours = step.rule is not None and step.rule.comment.startswith(COMMENT_PREFIX)
    return Led(
        told.name,
        told.asked,
        told.options,
        told.wanted,
        told.verdict,
        told.port,
        _in_words(step),
        ours,
        "" if ours else _undo(path, step),
    )


def _decisive(found: Explanation) -> Step | None:
    """Who translated the connection, or lost it; of one that passed as it was, who kept it from our rules."""
    fate = found.outcome.fate
    decided = [(step, base) for step, base in _based(found) if step.result is Result.DECIDED]
    if fate in _LOST:
        return decided[-1][0] if decided else None
    by_rules = [(step, base) for step, base in decided if step.rule is not None]
    if fate in _TRANSLATED:
        return next((step for step, _ in reversed(by_rules) if step.rule is not None and _translates(step.rule)), None)
    kept = (step for step, base in by_rules if base is not None and base.kind is ChainType.NAT)
    return next((step for step in kept if _is_headgates(step.table)), None)


def _based(found: Explanation) -> Iterator[tuple[Step, Base | None]]:
    """Each rule met, with what its base chain is: chains that are jumped to follow theirs."""
    base: Base | None = None
    for step in found.path:
        if isinstance(step, Step):
            base = step.table.chains[step.chain].base or base
            yield step, base


def _translates(rule: Rule) -> bool:
    return any(isinstance(statement, Nat | Tproxy) for statement in rule.statements)


def _is_headgates(table: Table) -> bool:
    """Where our capturing rules are, whatever somebody put beside them."""
    rules: Iterable[Rule] = (rule for chain in table.chains.values() if chain.base for rule in chain.rules)
    return any(rule.comment.startswith(COMMENT_PREFIX) for rule in rules)


def _in_words(step: Step) -> str:
    where = f"chain {step.chain}, {step.table.tool.value} table {step.table.family} {step.table.name}"
    if step.rule is None:
        return f"the policy of {where}"
    return f"rule {step.rule.place} of {where} ({in_words(step.rule)})"


def _undo(path: str, step: Step) -> str:
    """The command that takes the rule away; "" where a name would need quotes, and of policies."""
    rule, table = step.rule, step.table
    if rule is None or not (_PLAIN.fullmatch(table.name) and _PLAIN.fullmatch(step.chain)):
        return ""
    enter = f"nsenter --net={shlex.quote(path)}"
    tool = _SAVES.get((table.tool, table.family))
    if tool is not None:
        return f"{enter} {tool} -t {table.name} -D {step.chain} {rule.place}"
    if not rule.handle:
        return ""
    return f"{enter} nft delete rule {table.family} {table.name} {step.chain} handle {rule.handle}"
