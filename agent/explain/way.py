"""One walk of the packet: its flow, what was met so far, and what the surroundings say. Pure."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from agent.explain.choices import Choices, TooLong
from agent.explain.evaluate import Evaluation
from agent.explain.flow import Flow, Known, NotTold, Unknown, address
from agent.explain.outcome import Doubt, Passage, Step
from agent.explain.packet import Packet
from agent.explain.statements import Field, NatKind
from agent.explain.stations import Stations
from agent.explain.surroundings import Asked, Connection, Ends, NoSocket, Route, RouteKind, Socket, Surroundings
from agent.explain.tables import Rule, Table
from agent.pods import IPAddress

LARGEST_STEPS: Final = 200_000
"""Rules met on all ways together: some 0.5 s."""


class Around:
    """The surroundings, each thing asked once in an explanation: all its ways must see the same."""

    __slots__ = ("_addresses", "_connections", "_of", "_routes", "_sockets")

    def __init__(self, of: Surroundings) -> None:
        self._of = of
        self._routes: dict[Asked, Route | None] = {}
        self._sockets: dict[Ends, Socket | NoSocket | None] = {}
        self._connections: dict[tuple[Ends, int], Connection | None] = {}
        self._addresses: dict[str, tuple[IPAddress, ...] | None] = {}

    def route(self, asked: Asked) -> Route | None:
        if asked not in self._routes:
            self._routes[asked] = self._of.route(asked)
        return self._routes[asked]

    def socket(self, ends: Ends) -> Socket | NoSocket | None:
        if ends not in self._sockets:
            self._sockets[ends] = self._of.socket(ends)
        return self._sockets[ends]

    def connection(self, ends: Ends, zone: int) -> Connection | None:
        if (ends, zone) not in self._connections:
            self._connections[ends, zone] = self._of.connection(ends, zone)
        return self._connections[ends, zone]

    def addresses(self, interface: str) -> tuple[IPAddress, ...] | None:
        if interface not in self._addresses:
            self._addresses[interface] = self._of.addresses(interface)
        return self._addresses[interface]

    def primary(self, interface: Known, version: int, *, link_local: bool = False) -> IPAddress | None:
        """What `redirect` writes on packets that came in there; None: none, or not known (`addresses` tells)."""
        found = self.addresses(interface) if isinstance(interface, str) else None
        of_family = [one for one in found or () if one.version == version]
        return next((one for one in of_family if one.is_link_local is link_local or version == 4), None)


@dataclass(frozen=True, slots=True)
class Translated:
    """Of the destination; None: that part stays."""

    kind: NatKind
    address: IPAddress | None
    port: int | None
    known: bool = True


@dataclass(slots=True)
class Common:
    """What all ways of an explanation share."""

    packet: Packet
    stations: Stations
    around: Around
    choices: Choices = field(default_factory=Choices)
    not_told: NotTold = field(default_factory=NotTold)
    evaluation: Evaluation = field(default_factory=Evaluation)
    doubts: dict[tuple[object, ...], Doubt] = field(default_factory=dict)
    steps: int = 0
    left_out: bool = False
    """Something can go in more ways than are followed."""


@dataclass(slots=True)
class Way:
    """`translated`, `source`: what NAT made of it; `tproxied`: where it was led; `onward`: by which interface it is
    routed. `passed`: how many hooks so far, by which two places of a walk differ that are the same rule."""

    common: Common
    flow: Flow
    path: list[Step | Passage] = field(default_factory=list)
    translated: Translated | None = None
    source: str = ""
    tproxied: tuple[IPAddress | None, int | None] | None = None
    onward: Known = ""
    destination_done: bool = False
    source_done: bool = False
    passed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def around(self) -> Around:
        return self.common.around

    @property
    def evaluation(self) -> Evaluation:
        return self.common.evaluation

    def tell(self, what: str) -> None:
        self.path.append(Passage(what))

    def signature(self) -> Hashable:
        return (
            self.passed, self.flow.signature(), self.evaluation.signature(), self.translated, self.source,
            self.tproxied, self.onward, self.destination_done, self.source_done, tuple(self.notes),
        )  # fmt: skip

    def choose(self, count: int, at: Hashable) -> int:
        """Which of several this walk takes."""
        return self.common.choices.choose(count, (at, self.signature()))

    def doubt(self, table: Table, chain: str, rule: Rule | None, text: str, why: str) -> None:
        key = (id(table), chain, rule.place if rule else 0, text)
        self.common.doubts.setdefault(key, Doubt(table, chain, rule, text, why))

    def count(self) -> None:
        self.common.steps += 1
        if self.common.steps > LARGEST_STEPS:
            raise TooLong

    # ── Of the surroundings ────────────────────────────────────────────────────────────────────────────────────────
    def asked(self, *, arrives_on: str | None = None) -> Asked | None:
        """How it would be routed now; None: an address is not known."""
        flow = self.flow
        if isinstance(flow.destination, Unknown):
            return None
        mark = flow.mark if isinstance(flow.mark, int) else 0
        source = None if isinstance(flow.source, Unknown) else address(flow.source, flow.version)
        sender = flow.packet.sender if arrives_on is None else None
        uid = sender.uid if sender is not None else None
        return Asked(address(flow.destination, flow.version), source, mark, arrives_on, uid)

    @property
    def connection(self) -> Connection | None:
        """That it belongs to, as conntrack has it; None: there is none, or not enough of the packet is known."""
        flow = self.flow
        if flow.looked_up is None or not isinstance(flow.zone, int):
            return None
        source, destination, sport, dport = flow.looked_up
        if isinstance(source, Unknown) or isinstance(destination, Unknown):
            return None
        if not isinstance(sport, int) or not isinstance(dport, int):
            return None
        ends = Ends(
            flow.packet.protocol, address(source, flow.version), sport, address(destination, flow.version), dport
        )
        return self.around.connection(ends, flow.zone)

    @property
    def primary_address(self) -> IPAddress | None:
        """Of the interface it came in by."""
        flow = self.flow
        local = isinstance(flow.destination, int) and address(flow.destination, flow.version).is_link_local
        return self.around.primary(flow.iif, flow.version, link_local=local)


def lazily(around: Around, not_told: NotTold, flow: Flow, what: Field) -> Known | None:
    """Of what a rule may ask of routes and sockets; None: there is none."""
    if what in _SOCKET:
        return _of_socket(around, not_told, flow, what)
    value = flow.destination if what in (Field.DESTINATION_TYPE, Field.DESTINATION_TYPE_IIF) else flow.source
    if isinstance(value, Unknown):
        return value
    asked = address(value, flow.version)
    if what is Field.SOURCE_FIB_OIF:
        return _way_back(around, not_told, flow, asked, 0)
    if what is Field.SOURCE_FIB_OIF_MARK:
        return _way_back(around, not_told, flow, asked, flow.mark)
    if what in (Field.SOURCE_TYPE_IIF, Field.DESTINATION_TYPE_IIF):
        return _type_on(around, not_told, flow, asked)
    return _type_of(around, not_told, asked)


_SOCKET: Final = (Field.SOCKET_TRANSPARENT, Field.SOCKET_MARK, Field.SOCKET_WILDCARD)
_UNICAST, _LOCAL, _BROADCAST, _MULTICAST = 1, 2, 3, 5
_LOCAL_TABLE: Final = 255


def _of_socket(around: Around, not_told: NotTold, flow: Flow, what: Field) -> Known | None:
    if flow.own or flow.assigned:
        if what is Field.SOCKET_MARK and flow.own:
            return flow.packet.mark
        return not_told("what the packet's socket is like")
    source, destination = flow.source, flow.destination
    if isinstance(source, Unknown) or isinstance(destination, Unknown):
        return not_told("who has a socket there")
    port, own = flow.destination_port, flow.source_port
    if isinstance(port, Unknown) or isinstance(own, Unknown):
        return not_told("who has a socket there")
    ends = Ends(
        flow.packet.protocol,
        address(source, flow.version),
        own if own is None else int(own),
        address(destination, flow.version),
        port if port is None else int(port),
    )
    found = around.socket(ends)
    if found is None:
        return not_told("who has a socket there")
    if isinstance(found, NoSocket):
        return None
    return {
        Field.SOCKET_TRANSPARENT: int(found.transparent),
        Field.SOCKET_MARK: found.mark,
        Field.SOCKET_WILDCARD: int(found.wildcard),
    }[what]


def _type_of(around: Around, not_told: NotTold, asked: IPAddress) -> Known:
    """RTN_*, of the local table alone (fib_frontend.c: inet_dev_addr_type)."""
    if asked.is_multicast:
        return _MULTICAST
    if asked.is_loopback:
        return _LOCAL
    found = around.route(Asked(asked))
    if found is None:
        return not_told(f"whether {asked} is an address of this host")
    if found.kind is RouteKind.LOCAL and found.table == _LOCAL_TABLE:
        return _LOCAL
    if found.kind is RouteKind.BROADCAST:
        return _BROADCAST
    if found.kind is RouteKind.NONE and asked.version == 6:  # nft_fib_ipv6.c tells which kind of refusal it is
        return not_told(f"of which kind the missing route to {asked} is")
    return _UNICAST


def _type_on(around: Around, not_told: NotTold, flow: Flow, asked: IPAddress) -> Known:
    """As seen from one interface: another's address is no local one there."""
    found = _type_of(around, not_told, asked)
    if found != _LOCAL:
        return found
    here = around.addresses(flow.iif) if isinstance(flow.iif, str) else None
    if here is None:
        return not_told(f"whether {asked} is an address of that interface")
    return _LOCAL if asked in here or (asked.is_loopback and flow.iif == "lo") else _UNICAST


def _way_back(around: Around, not_told: NotTold, flow: Flow, source: IPAddress, mark: Known) -> Known:
    """1: a route back leads to where it came from; 0: none does. What came over lo is not asked, unless tproxy gave it
    a socket (nft_fib.h: nft_fib_can_skip)."""
    if flow.iif == "lo" and not flow.assigned:
        return 1
    found = around.route(Asked(source, mark=mark)) if isinstance(mark, int) else None
    if found is None or isinstance(flow.iif, Unknown):
        return not_told(f"the route back to {source}")
    return int(found.kind is RouteKind.UNICAST and found.interface == flow.iif)
