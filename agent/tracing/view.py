"""A traced packet as people and programs read it. Pure; everything is made printable here or by the table's writer."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from agent.explain.tables import Hook
from agent.kernel.conntrack_news import Connection, Direction
from agent.printable import printable
from agent.ruleset.inventory import HEADGATE
from agent.tracing.headers import Headers, end, protocol_name
from agent.tracing.known import KnownRule
from agent.tracing.traced import Kind, Loss, Trace, TracedPacket, TracedStep

HEAD: Final = ("HOOK", "TABLE", "CHAIN", "WHOSE", "RESULT", "RULE")
_TEXT: Final = 400
_NOT_KNOWN: Final = "(not known: it was not there when the rules were read)"
_HOOKS: Final = {hook.value for hook in Hook}


# ── For people ─────────────────────────────────────────────────────────────────────────────────────────────────────
def heading(packet: TracedPacket) -> str:
    first = next(iter(packet.steps), None)
    way = ""
    if first is not None:
        way = f", in by {printable(first.arrives)}" if first.arrives else f", out by {printable(first.leaves)}"
    mark = f", mark {packet.mark:#x}" if packet.mark else ""
    return f"packet {packet.number}  {_clock(packet.seen_at_s)}  {packet.sent.kind}  {_ends(packet.sent)}{way}{mark}"


def rows(packet: TracedPacket) -> list[tuple[str, ...]]:
    """Rules that matched, and policies; what a chain's end says is left out. A row of its own where the packet's
    addresses are others than before."""
    found: list[tuple[str, ...]] = []
    at, arrives, mark = packet.sent, "", packet.mark
    for step in packet.steps:
        if step.headers is not None:
            if step.headers.ends != at.ends or (step.arrives and arrives != step.arrives and found):
                found.append(("", "", "", "", "", f"-- now {_ends(step.headers)}{_by(step)}"))
            at, arrives = step.headers, step.arrives or arrives
        if step.kind is not Kind.END or step.mark != mark:
            found.append(_row(step, mark))
        mark = step.mark
    return found


def _by(step: TracedStep) -> str:
    if step.arrives:
        return f", in by {step.arrives}"
    return f", out by {step.leaves}" if step.leaves else ""


def _row(step: TracedStep, mark: int) -> tuple[str, ...]:
    return (
        _hook(step.hook),
        f"{step.family} {step.table}",
        step.chain,
        "ours" if step.whose == HEADGATE else step.whose,
        result(step, mark),
        printable(_said(step), _TEXT),
    )


def _hook(hook: str) -> str:
    """`nat output, priority -100` as `output -100`."""
    words = hook.replace(",", "").split()
    return f"{words[1]} {words[-1]}" if len(words) == 4 and words[1] in _HOOKS else hook


def result(step: TracedStep, mark_before: int) -> str:
    """`jump to ISTIO_OUTPUT`, `accept`, `goes on, mark 0x539`."""
    words = {"continue": "goes on", "jump": f"jump to {step.target}", "goto": f"goto {step.target}"}
    said = words.get(step.verdict, step.verdict)
    if step.kind is Kind.POLICY:
        said = f"policy {said}"
    return said if step.mark == mark_before else f"{said}, mark {step.mark:#x}"


def _said(step: TracedStep) -> str:
    if step.kind is not Kind.RULE:
        return "(end of the chain)"
    rule = step.rule
    if rule is None:
        return f"handle {step.handle} {_NOT_KNOWN}"
    meaning = f"  # {rule.rule_id}: {rule.meaning or 'a rule of another version'}" if rule.rule_id else ""
    comment = f"  # {rule.comment}" if rule.comment and not rule.rule_id else ""
    changed = " (changed while it was traced)" if rule.changed else ""
    return f"{rule.place}{changed}: {rule.text}{meaning}{comment}"


def outcome(packet: TracedPacket) -> str:
    """One line: what conntrack keeps of it, and where its way ended."""
    dropped = packet.dropped
    if dropped is not None:
        by = f"rule {dropped.rule.place}" if dropped.rule is not None else dropped.kind.value
        if dropped.kind is Kind.RULE and dropped.rule is None:
            by = f"rule with handle {dropped.handle}"
        return printable(f"dropped by {by} of {dropped.family} {dropped.table}, chain {dropped.chain}", _TEXT)
    if packet.connection is not None:
        return _translation(packet.connection, packet.sent)
    if packet.last.ends != packet.sent.ends:
        return f"led on as {_ends(packet.last)}"
    return "not dropped by nftables; conntrack told of no new connection"


def _translation(connection: Connection, sent: Headers) -> str:
    original, reply = connection.original, connection.reply
    if _seen(sent) == reply:
        return f"an answer of the connection {_direction(original)}"
    parts = []
    if (reply.source, reply.source_port) != (original.destination, original.destination_port):
        parts.append(f"destination becomes {end(reply.source, reply.source_port)}")
    if (reply.destination, reply.destination_port) != (original.source, original.source_port):
        parts.append(f"source becomes {end(reply.destination, reply.destination_port)}")
    zone = f" (zone {connection.zone})" if connection.zone else ""
    return f"connection {_direction(original)}{zone}: {', '.join(parts) or 'not translated'}"


def _seen(headers: Headers) -> Direction:
    return Direction(*headers.ends)


def _direction(way: Direction) -> str:
    return f"{end(way.source, way.source_port)} -> {end(way.destination, way.destination_port)}"


def _ends(headers: Headers) -> str:
    return _direction(_seen(headers))


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S.%fZ")


def told_loss(loss: Loss) -> Iterator[str]:
    """In words; nothing when nothing was lost."""
    if loss.packets or loss.messages:
        yield (
            f"lost: {loss.packets} of {loss.begun} packets were not seen at all, {loss.messages} messages of the "
            "kernel found no room: narrow the filter, or give a smaller --limit"
        )
    if loss.over_limit:
        yield f"not traced: {loss.over_limit} more packets were meant, beyond --limit a second"
    if loss.connections:
        yield f"lost: {loss.connections} new connections were not heard of"


# ── For programs ───────────────────────────────────────────────────────────────────────────────────────────────────
def as_json(trace: Trace) -> dict[str, Any]:
    """Keys are stable."""
    loss = trace.loss
    return {
        "packets": [_packet(packet) for packet in trace.packets],
        "loss": {
            "packets": loss.packets,
            "of": loss.begun,
            "messages": loss.messages,
            "over_limit": loss.over_limit,
            "connections": loss.connections,
        },
        "notes": [printable(note, 1000) for note in trace.notes],
    }


def _packet(packet: TracedPacket) -> dict[str, Any]:
    mark, steps = packet.mark, []
    for step in packet.steps:
        steps.append(_step(step, mark))
        mark = step.mark
    return {
        "number": packet.number,
        "seen_at": datetime.fromtimestamp(packet.seen_at_s, UTC).isoformat(timespec="microseconds"),
        **_headers(packet.sent),
        "mark": packet.mark,
        "direction": packet.way.value,
        "steps": steps,
        "connection": None if packet.connection is None else _connection(packet.connection),
        "dropped": packet.dropped is not None,
        "outcome": outcome(packet),
    }


def _step(step: TracedStep, mark: int) -> dict[str, Any]:
    rule = step.rule
    return {
        "hook": step.hook,
        "family": step.family,
        "table": printable(step.table),
        "chain": printable(step.chain),
        "whose": step.whose,
        "kind": step.kind.value,
        "handle": step.handle or None,
        "rule": None if rule is None else _rule(rule),
        "verdict": step.verdict,
        "target": printable(step.target) or None,
        "result": printable(result(step, mark)),
        "mark": step.mark,
        "arrives": printable(step.arrives) or None,
        "leaves": printable(step.leaves) or None,
        "at": None if step.headers is None else _headers(step.headers),
    }


def _rule(rule: KnownRule) -> dict[str, Any]:
    return {
        "tool": rule.tool,
        "whose": rule.whose,
        "place": rule.place,
        "rule": printable(rule.text, _TEXT),
        "comment": printable(rule.comment),
        "id": None if rule.rule_id is None else printable(rule.rule_id),
        "meaning": rule.meaning,
        "changed": rule.changed,
    }


def _headers(headers: Headers) -> dict[str, Any]:
    return {
        "protocol": protocol_name(headers.protocol),
        "kind": headers.kind,
        "source": str(headers.source),
        "source_port": headers.source_port,
        "destination": str(headers.destination),
        "destination_port": headers.destination_port,
    }


def _connection(connection: Connection) -> dict[str, Any]:
    return {
        **{
            name: {
                "source": str(way.source),
                "source_port": way.source_port,
                "destination": str(way.destination),
                "destination_port": way.destination_port,
            }
            for name, way in (("original", connection.original), ("reply", connection.reply))
        },
        "zone": connection.zone,
        "destination_translated": connection.destination_translated,
        "source_translated": connection.source_translated,
    }
