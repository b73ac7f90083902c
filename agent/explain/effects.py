"""What a rule's statements do to the packet: translations, transparent proxies, marks. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.explain.evaluate import Evaluated, candidates, unknown_in
from agent.explain.flow import DNAT, LOOPBACK, PORTED, SNAT, Flow, Known, Tracked, Unknown, address
from agent.explain.statements import (
    AnyOf,
    Elements,
    Expression,
    Field,
    Looked,
    Match,
    Nat,
    NatKind,
    Opaque,
    Perhaps,
    Read,
    Set,
    Statement,
    Test,
    Tproxy,
)
from agent.explain.surroundings import Connection, Ends, NoSocket
from agent.explain.tables import Hook, Rule, Table
from agent.explain.way import Translated, Way, lazily
from agent.pods import IPAddress

Choose = Callable[[int], int]
_LOOPBACK: Final = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
_LOCAL: Final = 2  # linux/rtnetlink.h: RTN_LOCAL
_MOST_CANDIDATES: Final = 32
"""Elements of a map that are each followed; of more the value stays unknown."""


@dataclass(frozen=True, slots=True)
class Told:
    """`what`: in words; empty: the rule ends before. `goes_on`: the packet does. `doubt`: why it is not certain."""

    what: str
    goes_on: bool = True
    doubt: str = ""


# ── Values that a map gives ────────────────────────────────────────────────────────────────────────────────────────
def settled(way: Way, wanted: tuple[Expression | None, ...], choose: Choose) -> tuple[tuple[Evaluated, ...], str]:
    """Values of expressions, and why they are not certain. What a map gives for an unknown key is each of its elements'
    in turn; of several maps of one key (address and port of one element) the same element's."""
    values = tuple(way.evaluation.evaluate(one) if one is not None else None for one in wanted)
    unknown = next((found for value in values if (found := unknown_in(value)) is not None), None)
    maps = [one for one in wanted if type(one) is Looked]
    if unknown is None:
        return values, ""
    if not maps or len({id(one.key) if type(one.key) is Opaque else one.key for one in maps}) > 1:
        return values, unknown.why
    ways = [candidates(one.among) for one in maps]
    count = max(map(len, ways))
    if not 0 < count <= _MOST_CANDIDATES or any(len(those) not in (1, count) for those in ways):
        return values, unknown.why
    at = choose(count)
    led = iter([those[at if len(those) > 1 else 0] for those in ways])
    chosen = [next(led) if type(one) is Looked else one for one in wanted]
    return (
        tuple(way.evaluation.evaluate(one) if one is not None else None for one in chosen),  # type: ignore[arg-type]
        unknown.why,
    )


# ── Translations ───────────────────────────────────────────────────────────────────────────────────────────────────
def translate(way: Way, nat: Nat, choose: Choose) -> Told:
    """Of the destination or the source, as the statement's kind is. (nf_nat_core.c: nf_nat_setup_info)"""
    (to, port), doubt = settled(way, (nat.address, nat.port), choose)
    if (nat.address is not None and to is None) or (nat.port is not None and port is None):
        return Told("")  # its map has nothing for this packet: the rule ends (nft_lookup.c)
    if nat.ranged and not doubt:
        doubt = "it takes one of a range; the first is told"
    new_address, new_port = _one(to), _one(port)
    if nat.kind in (NatKind.SNAT, NatKind.MASQUERADE):
        return _source(way, nat, new_address, new_port, doubt)
    if nat.kind is NatKind.REDIRECT:
        here = redirect_address(way)
        if here is None:
            return Told("redirect, but the interface it came in by has no address: dropped", goes_on=False, doubt=doubt)
        new_address = here
    return _destination(way, nat, new_address, new_port, doubt)


def _one(value: Evaluated) -> Known | None:
    return value[0] if type(value) is tuple else value  # type: ignore[return-value]


def redirect_address(way: Way) -> Known | None:
    """nf_nat_redirect.c; None: the interface has none."""
    flow = way.flow
    if flow.hook is Hook.OUTPUT:
        return int(_LOOPBACK[flow.version])
    found = way.primary_address
    if found is None and isinstance(flow.iif, str) and way.around.addresses(flow.iif) is not None:
        return None
    return int(found) if found is not None else flow.not_told("the address of the interface it came in by")


def _destination(way: Way, nat: Nat, to: Known | None, port: Known | None, doubt: str) -> Told:
    flow = way.flow
    before = flow.destination, flow.destination_port
    if to is not None:
        flow.destination = to
    if port is not None and flow.packet.protocol in PORTED:
        flow.destination_port = port
    flow.read()
    if isinstance(to, Unknown) or isinstance(port, Unknown):
        flow.status = flow.not_told("whether its destination was translated")
        flow.read()
    elif (flow.destination, flow.destination_port) != before:
        flow.mark_status(DNAT)
    shown = None if to is None or isinstance(to, Unknown) else address(to, flow.version)
    known = not isinstance(to, Unknown) and not isinstance(port, Unknown)
    way.translated = Translated(nat.kind, shown, port if isinstance(port, int) else None, known)
    return Told(f"{nat.kind.value} to {_words(flow, to if nat.kind is NatKind.DNAT else None, port)}", doubt=doubt)


def _source(way: Way, nat: Nat, to: Known | None, port: Known | None, doubt: str) -> Told:
    flow = way.flow
    if nat.kind is NatKind.MASQUERADE:
        to = _masqueraded(way)
    before = flow.source, flow.source_port
    if to is not None:
        flow.source = to
    if port is not None and flow.packet.protocol in PORTED:
        flow.source_port = port
    flow.read()
    if isinstance(to, Unknown):
        flow.status = flow.not_told("whether its source was translated")
        flow.read()
    elif (flow.source, flow.source_port) != before:
        flow.mark_status(SNAT)
    way.source = _words(flow, to, port)
    return Told(f"{nat.kind.value}: source becomes {way.source}", doubt=doubt)


def destination_again(way: Way, connection: Connection) -> None:
    """As the connection has it; nothing when that is where the packet goes anyway."""
    flow = way.flow
    there = (int(connection.destination), connection.destination_port)
    if there == (flow.destination, flow.destination_port):
        return
    flow.destination, flow.destination_port = there
    flow.read()
    here = lazily(way.around, way.common.not_told, flow, Field.DESTINATION_TYPE) == _LOCAL
    kind = NatKind.REDIRECT if here and not connection.answers else NatKind.DNAT
    way.translated = Translated(kind, connection.destination, connection.destination_port)
    what = "an answer: led back" if connection.answers else f"its connection was translated ({kind.value})"
    way.tell(f"conntrack: {what} to {_words(flow, flow.destination, flow.destination_port)}")


def source_again(way: Way, connection: Connection) -> None:
    flow = way.flow
    there = (int(connection.source), connection.source_port)
    if there == (flow.source, flow.source_port):
        return
    flow.source, flow.source_port = there
    flow.read()
    way.source = _words(flow, *there)
    way.tell(f"conntrack: its source becomes {way.source}, as its connection has it")


def _masqueraded(way: Way) -> Known:
    """The interface's own address, where it has but one: among several the kernel chooses by the next hop
    (net/ipv4/devinet.c: inet_select_addr; RFC 6724, by scope first), and for lo it takes another interface's."""
    flow = way.flow
    to = address(flow.destination, flow.version) if isinstance(flow.destination, int) else None
    wide = to is not None and not to.is_loopback and not to.is_link_local
    found = way.around.addresses(flow.oif) if wide and isinstance(flow.oif, str) and flow.oif != LOOPBACK else None
    own = [one for one in found or () if one.version == flow.version and (one.version == 4 or not one.is_link_local)]
    return int(own[0]) if len(own) == 1 else flow.not_told("the address that masquerading takes")


def _words(flow: Flow, to: Known | None, port: Known | None) -> str:
    """`10.0.0.9:80`, `:15001`, `[fd00::1]:80`; `?` for what nobody knows."""
    host = ""
    if to is not None:
        host = "?" if isinstance(to, Unknown) else str(address(to, flow.version))
    if port is None:
        return host or "itself"
    number = "?" if isinstance(port, Unknown) else str(port)
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


# ── Transparent proxies ────────────────────────────────────────────────────────────────────────────────────────────
def tproxy(way: Way, statement: Tproxy, choose: Choose) -> Told:
    """nft_tproxy.c, xt_TPROXY.c: the packet gets the socket that listens there, and goes on as it is. Without one that
    is transparent nft's rule ends, and iptables drops (`goes_on` False)."""
    flow = way.flow
    (to, port), doubt = settled(way, (statement.address, statement.port), choose)
    to, port = _one(to), _one(port)
    if to is None:
        # With no address of the interface's own it is the packet's (nf_tproxy_laddr4).
        here = way.primary_address
        to = int(here) if here is not None else flow.destination
    if not port:
        port = flow.destination_port
    where = None if isinstance(to, Unknown) else address(to, flow.version)
    number = port if isinstance(port, int) else None
    words = f"tproxy to {_words(flow, to if statement.address is not None else None, port)}"
    listens = _listens(way, where, number)
    if listens is None:
        doubt = doubt or f"whether a transparent socket listens on port {number} is not known"
        listens = choose(2) == 0
    if not listens:
        return Told(f"{words}: no transparent socket listens there", goes_on=False, doubt=doubt)
    flow.assigned = True
    flow.read()
    way.tproxied = (where if statement.address is not None else None, number)
    return Told(words, doubt=doubt)


def _listens(way: Way, where: IPAddress | None, port: int | None) -> bool | None:
    flow = way.flow
    if where is None or port is None or isinstance(flow.source, Unknown) or isinstance(flow.source_port, Unknown):
        return None
    source = address(flow.source, flow.version)
    own = None if flow.source_port is None else int(flow.source_port)
    found = way.around.socket(Ends(flow.packet.protocol, source, own, where, port))
    if found is None:
        return None
    return not isinstance(found, NoSocket) and found.transparent


# ── Marks and the like ─────────────────────────────────────────────────────────────────────────────────────────────
def change(way: Way, statement: Set, choose: Choose, *, nft: bool) -> str | None:
    """In words; None: there is no such value, the rule ends."""
    (found,), _ = settled(way, (statement.value,), choose)
    value = _one(found)
    if value is None:
        return None
    flow, what = way.flow, statement.field
    shown = "?" if isinstance(value, Unknown) else f"{value:#x}" if isinstance(value, int) else value
    if what is Field.MARK:
        flow.mark = value
        flow.values[what] = value
        flow.values.pop(Field.SOURCE_FIB_OIF_MARK, None)  # asked anew when it is read
        return f"mark becomes {shown}"
    if what is Field.CT_MARK:
        if flow.tracked is not Tracked.ENTRY:
            return "mark of the connection: there is none"
        flow.ct_mark = value
        flow.values[what] = value
        return f"mark of the connection becomes {shown}"
    if what is Field.CT_ZONE:
        return f"zone becomes {shown}" if flow.track_in(value, again=nft) else "zone: it is tracked already"
    return _written(flow, what, value, shown)


def _written(flow: Flow, what: Field, value: Known, shown: str) -> str:
    """Into the packet itself: addresses and ports that no connection knows of."""
    if what in (Field.IP_DESTINATION, Field.IP6_DESTINATION):
        flow.destination = value
    elif what in (Field.IP_SOURCE, Field.IP6_SOURCE):
        flow.source = value
    elif what in _DESTINATION_PORTS:
        flow.destination_port = value
    elif what in _SOURCE_PORTS:
        flow.source_port = value
    else:
        flow.changed[what] = value
    flow.read()
    return f"{what.value} becomes {shown}"


_DESTINATION_PORTS: Final = (Field.TCP_DPORT, Field.UDP_DPORT, Field.SCTP_DPORT, Field.TH_DPORT)
_SOURCE_PORTS: Final = (Field.TCP_SPORT, Field.UDP_SPORT, Field.SCTP_SPORT, Field.TH_SPORT)


# ── Doubts ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def doubt_test(way: Way, table: Table, chain: str, rule: Rule, test: Test) -> None:
    if isinstance(test, Perhaps):
        way.doubt(table, chain, rule, test.what.text, test.what.why)
        return
    matches = test.of if isinstance(test, AnyOf) else (test,)
    asked = [side for match in matches for side in (match.left, match.right) if not isinstance(side, Elements)]
    unknown = [found for side in asked if (found := unknown_in(way.evaluation.evaluate(side))) is not None]
    why = unknown[0].why if unknown else "a rule before it may have added to the set"
    way.doubt(table, chain, rule, text_of(rule, test), why)


def text_of(rule: Rule, statement: Statement) -> str:
    """How the rule's tool says it, as far as that is known; else what it reads."""
    if rule.text:
        return rule.text
    if isinstance(statement, Match) and isinstance(statement.left, Read):
        return statement.left.field.value
    return type(statement).__name__.lower()
