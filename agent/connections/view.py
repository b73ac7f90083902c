"""Connections as rows and as JSON-ready values. Pure. Every name that somebody else chose is made printable here."""

from typing import Any, Final

from agent.connections.values import LISTENERS, WORDS, Connection, End, Place, Reason
from agent.pods import IPAddress
from agent.printable import printable

HEAD: Final = ("PROTO", "WAY", "FROM", "TO", "VIA", "PATH", "SERVICE", "AGE", "PROCESS", "REASON")
WIDE_HEAD: Final = (*HEAD[:7], "ROUTE", "UPSTREAM", "STATE", *HEAD[7:])
_NAME: Final = 100


def row(one: Connection, *, wide: bool) -> tuple[str, ...]:
    cells = (
        one.protocol,
        one.way.value,
        _end(one.source),
        _end(one.destination),
        "-" if one.listener is None else _listener(one.listener),
        one.path.value,
        printable(one.service, _NAME) or "-",
    )
    more = (printable(one.route, _NAME) or "-", _upstream(one), one.state) if wide else ()
    return (*cells, *more, _age(one), _processes(one), reason(one))


def reason(one: Connection) -> str:
    if one.reason is None:
        return printable(one.why, 400)
    words = WORDS[one.reason]
    if one.reason is Reason.EXCLUDED and one.why:
        return printable(f"{words} {one.why}", 400)
    return printable(f"{words} ({one.why})" if one.why else words, 400)


def as_json(one: Connection) -> dict[str, Any]:
    return {
        "protocol": one.protocol,
        "direction": one.way.value,
        "source": _end_json(one.source),
        "destination": _end_json(one.destination),
        "listener": None if one.listener is None else {"port": one.listener, "name": LISTENERS.get(one.listener, "")},
        "path": one.path.value,
        "steered": one.steered,
        "reason": None if one.reason is None else one.reason.value,
        "reason_text": reason(one),
        "service": printable(one.service, _NAME),
        "route": printable(one.route, _NAME),
        "workload": printable(one.workload, _NAME * 2),
        "upstream_from": _place_json(one.upstream_from),
        "upstream": _place_json(one.upstream),
        "state": one.state,
        "age_s": one.age_s,
        "age_at_least_s": one.at_least_s if one.age_s is None else None,
        "worker": one.worker,
    }


def _end_json(end: End) -> dict[str, Any]:
    process = end.process
    return {
        "address": str(end.address),
        "port": end.port,
        "pid": None if process is None else process.pid,
        "command": None if process is None else printable(process.command, _NAME),
        "uid": end.uid,
    }


def _place_json(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else {"address": str(place[0]), "port": place[1]}


def _end(end: End) -> str:
    return _place(end.address, end.port)


def _place(address: IPAddress, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _listener(port: int) -> str:
    name = LISTENERS.get(port)
    return f":{port}" if name is None else f":{port} {name}"


def _upstream(one: Connection) -> str:
    return "-" if one.upstream is None else _place(*one.upstream)


def _processes(one: Connection) -> str:
    """Of the ends that are here: who opened it first."""
    held = [end.process for end in (one.source, one.destination) if end.process is not None]
    return " > ".join(f"{printable(process.command, _NAME)}/{process.pid}" for process in held) or "-"


def _age(one: Connection) -> str:
    if one.age_s is not None:
        return duration(one.age_s)
    return "-" if one.at_least_s is None else f">{duration(one.at_least_s)}"


def duration(seconds: float) -> str:
    """As kubectl prints ages: the two largest units."""
    whole = int(seconds)
    for size, unit, smaller, its in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= 2 * size or (size > 60 and whole >= size):
            rest = whole % size // smaller
            return f"{whole // size}{unit}{rest}{its}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"
