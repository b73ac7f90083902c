"""A packet's messages joined with what is known of rules, interfaces and connections. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from agent.explain.packet import Way
from agent.kernel.conntrack_news import Connection
from agent.kernel.nftrace import POLICY, TraceEvent
from agent.ruleset.inventory import UNKNOWN
from agent.ruleset.nft_objects import family_name
from agent.tracing import headers
from agent.tracing.gathering import Gathered
from agent.tracing.known import Known
from agent.tracing.traced import Kind, TracedPacket, TracedStep

_VERDICTS: Final = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
"""linux/netfilter.h: NF_*; linux/netfilter/nf_tables.h: enum nft_verdicts. A queue's number stands above 16 bits."""
_VERDICT_MASK: Final = 0xFF


def joined(
    packet: Gathered,
    known: Known,
    interfaces: Mapping[int, str],
    connection: Connection | None,
    own_table: str,
    begun_s: float,
) -> TracedPacket:
    """`own_table`: what the trace itself put there is left out. `begun_s`: since the epoch."""
    steps = tuple(_steps(packet, known, interfaces, own_table))
    way = Way.INBOUND if packet.iif else Way.OUTBOUND
    return TracedPacket(packet.number, begun_s, packet.sent, steps, connection, packet.mark, way)


def _steps(packet: Gathered, known: Known, interfaces: Mapping[int, str], own_table: str) -> Iterator[TracedStep]:
    hook = arrives = leaves = ""
    for event in packet.events:
        family = family_name(event.family)
        hook = known.hooks.get((family, event.table, event.chain)) or hook
        if event.network:  # told once for each base chain
            arrives, leaves = _interface(event.iif, interfaces), _interface(event.oif, interfaces)
        if family == "inet" and event.table == own_table:
            continue
        rule = known.rules.get((family, event.table, event.handle)) if event.handle else None
        whose = known.makers.get((family, event.table, event.chain), UNKNOWN) if rule is None else rule.whose
        yield TracedStep(
            _kind(event),
            family,
            event.table,
            event.chain,
            hook,
            whose,
            event.handle,
            rule,
            _verdict(event.verdict),
            event.target,
            event.mark,
            headers.of(event.nfproto, event.network, event.transport) if event.network else None,
            arrives,
            leaves,
        )


def _kind(event: TraceEvent) -> Kind:
    if event.kind == POLICY:
        return Kind.POLICY
    return Kind.RULE if event.handle else Kind.END


def _verdict(code: int) -> str:
    if code >= 0:
        code &= _VERDICT_MASK
    return _VERDICTS.get(code, str(code))


def _interface(index: int, names: Mapping[int, str]) -> str:
    return names.get(index, f"#{index}") if index else ""
