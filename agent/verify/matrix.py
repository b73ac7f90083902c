"""Which connections a plan calls for, and what each must show. Pure.

Two families, three senders (the application, the proxy, somebody outside) and everything that the steering names:
loopback, the pod's own address, an address elsewhere, the listeners' ports, what is excluded. One connection a kind is
enough to find a rule that is missing, out of place or changed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product
from typing import Final

from agent.plan import IPFamily, PlanSettings, RedirectPlan
from agent.plan.ranges import Ranges
from agent.plan.rules import Direction, Protocol
from agent.plan.steering import Network, Steering
from agent.pods import IPAddress
from agent.verify.expected import Expected, FirstPacket, expected
from proxy.api.constants import PASSTHROUGH4, PASSTHROUGH6, PROOF_PORT

ELSEWHERE: Final[dict[IPFamily, IPAddress]] = {
    IPFamily.IPV4: IPv4Address("192.0.2.2"),
    IPFamily.IPV6: IPv6Address("2001:db8::2"),
}
"""Documentation addresses (RFC 5737, RFC 3849), as linkerd's validator dials: nobody answers there."""
_LOOPBACK: Final[dict[IPFamily, IPAddress]] = {
    IPFamily.IPV4: IPv4Address("127.0.0.1"),
    IPFamily.IPV6: IPv6Address("::1"),
}
_PASSTHROUGH: Final[dict[IPFamily, IPAddress]] = {
    IPFamily.IPV4: ip_address(PASSTHROUGH4),
    IPFamily.IPV6: ip_address(PASSTHROUGH6),
}
VISITOR_INTERFACE: Final = "hg-verify"
_MOST: Final = 3
"""Of each kind of exclusion so many are tried: a set is one rule, and its members differ in nothing else."""
_UIDS: Final = (65534, 1000, 1001, 2000, 33)
_PORTS: Final = (PROOF_PORT, 80, 443, 8080, 9)
_DNS: Final = 53


class Sender(Enum):
    APPLICATION = "application"
    PROXY = "proxy"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Identity:
    uid: int
    gid: int
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """What one family of a namespace has. `elsewhere`: addresses that nobody is known to have, in order of preference;
    `interface`: through which they are reached; `application_port`: where this process listens as an application."""

    family: IPFamily
    own: IPAddress
    elsewhere: tuple[IPAddress, ...]
    interface: str
    application_port: int
    visitor: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One connection, or over UDP one datagram. The source port is the kernel's choice."""

    name: str
    family: IPFamily
    sender: Sender
    protocol: Protocol
    destination: IPAddress
    port: int
    uid: int
    gid: int
    mark: int
    expected: Expected
    source: IPAddress

    @property
    def dialled(self) -> str:
        place = f"[{self.destination}]" if self.destination.version == 6 else str(self.destination)
        return f"{place}:{self.port}{'/udp' if self.protocol is Protocol.UDP else ''}"

    @property
    def title(self) -> str:
        return f"{self.sender.value} to {self.name} ({self.family.value})"


def application(wanted: Steering, settings: PlanSettings, own: Identity) -> Identity:
    """Somebody whom no rule of the plan names; who is asking, if he is such a one."""
    owners = settings.owners
    uids = wanted.exclude_uids | (owners.uids if owners else Ranges())
    for ports in wanted.exclude_owner_ports:
        uids = uids | ports.uids
    gids = wanted.exclude_gids | (owners.gids if owners else Ranges())
    included = wanted.include_gids
    uid = _first_outside(uids, (own.uid, *_UIDS))
    gid = included.spans[0][0] if included else _first_outside(gids, (own.gid, *_UIDS))
    return Identity(uid, gid)


def proxy(settings: PlanSettings, application: Identity) -> Identity:
    owners = settings.owners
    if owners is None:
        return replace(application, mark=settings.proxy_mark)
    if owners.uids:
        return replace(application, uid=owners.uids.spans[0][0])
    return replace(application, gid=owners.gids.spans[0][0])


def others_of_proxy(settings: PlanSettings, application: Identity) -> dict[str, Identity]:
    """By how it is called: who is the proxy, too. Istio's rules fail the second user (reference/redirection.md A3)."""
    owners = settings.owners
    if owners is None:
        return {}
    users = owners.uids.spans[1:_MOST]
    groups = owners.gids.spans[0 if owners.uids else 1 :][:_MOST]
    found = {f"as user {first}": replace(application, uid=first) for first, _ in users}
    return found | {f"as group {first}": replace(application, gid=first) for first, _ in groups}


def _first_outside(ids: Ranges, preferred: Iterable[int]) -> int:
    # Ranges of everything leave nobody: then whoever comes is named by a rule, which the plan's answer takes in.
    return next((number for number in (*preferred, *range(3000, 60000, 1000)) if number not in ids), 65534)


def cells(
    plan: RedirectPlan, wanted: Steering, settings: PlanSettings, place: Place, own: Identity
) -> tuple[Cell, ...]:
    """In the order in which they are shown. The same connection twice is one."""
    made = _Cells(plan, wanted, settings, place, application(wanted, settings, own))
    unique: dict[object, Cell] = {}
    for cell in (*made.sent(), *made.excluded(), *made.queries(), *made.arriving()):
        unique.setdefault(replace(cell, name=""), cell)
    return tuple(unique.values())


class _Cells:
    def __init__(
        self, plan: RedirectPlan, wanted: Steering, settings: PlanSettings, place: Place, app: Identity
    ) -> None:
        self._plan = plan
        self._wanted = wanted
        self._settings = settings
        self._place = place
        self._app = app
        self._proxy = proxy(settings, app)
        self._away, self._port = self._target()

    def sent(self) -> Iterator[Cell]:
        place, s = self._place, self._settings
        for sender in (Sender.APPLICATION, Sender.PROXY):
            yield self._out("elsewhere", sender, self._away, self._port)
            yield self._out("own address", sender, place.own, place.application_port)
            yield self._out("loopback", sender, _LOOPBACK[place.family], place.application_port)
        for how, who in others_of_proxy(s, self._app).items():
            for name, address, port in (
                ("elsewhere", self._away, self._port),
                ("own address", place.own, place.application_port),
            ):
                yield self._out(f"{name}, {how}", Sender.PROXY, address, port, uid=who.uid, gid=who.gid)
        for name, port in (("outbound", s.outbound_port), ("inbound", s.inbound_port), ("tunnel", s.tunnel_port)):
            yield self._out(f"the {name} listener", Sender.APPLICATION, place.own, port)
        if self._plan.loopback_addresses:
            source = _PASSTHROUGH[place.family]
            yield self._out("the application", Sender.PROXY, place.own, place.application_port, source=source)

    def excluded(self) -> Iterator[Cell]:
        """What goes direct because somebody wished so; and what is not included."""
        w, app = self._wanted, self._app
        for first, _ in w.exclude_outbound_ports.spans[:_MOST]:
            yield self._out("an excluded port", Sender.APPLICATION, self._away, first)
        for network in self._of_family(w.exclude_outbound_networks):
            yield self._out("an excluded network", Sender.APPLICATION, _host(network), self._port)
        for first, _ in w.exclude_uids.spans[:_MOST]:
            yield self._out("elsewhere, as an excluded user", Sender.APPLICATION, self._away, self._port, uid=first)
        for first, _ in w.exclude_gids.spans[:_MOST]:
            yield self._out("elsewhere, as an excluded group", Sender.APPLICATION, self._away, self._port, gid=first)
        if w.include_gids is not None:
            outside = _first_outside(w.include_gids, (app.gid, *_UIDS))
            name = "elsewhere, as a group not included"
            yield self._out(name, Sender.APPLICATION, self._away, self._port, gid=outside)
        for ports in w.exclude_owner_ports[:_MOST]:
            uid, port = ports.uids.spans[0][0], ports.ports.spans[0][0]
            if Protocol.TCP in ports.protocols:
                yield self._out("a port excluded for a user", Sender.APPLICATION, self._away, port, uid=uid)
        if w.include_outbound is not None:
            for address, port in product(self._place.elsewhere, _PORTS):
                cell = self._out("what is not included", Sender.APPLICATION, address, port)
                if cell.expected.captured is None:
                    yield cell
                    break

    def queries(self) -> Iterator[Cell]:
        dns = self._wanted.dns
        if dns is None:
            return
        servers = dns.servers or (self._away,)
        for server in [server for server in servers if server.version == self._away.version][:_MOST]:
            for protocol in (Protocol.UDP, Protocol.TCP) if dns.tcp else (Protocol.UDP,):
                for sender in (Sender.APPLICATION, Sender.PROXY):
                    yield self._out("a DNS server", sender, server, _DNS, protocol=protocol)

    def arriving(self) -> Iterator[Cell]:
        w, s, own = self._wanted, self._settings, self._place.own
        included = w.include_inbound_ports
        port = PROOF_PORT
        if included:
            port = next((first for first, _ in included.spans if first not in w.exclude_inbound_ports), port)
        yield self._in("the application", own, port)
        if included is not None and PROOF_PORT not in included:
            yield self._in("a port not included", own, PROOF_PORT)
        for first, _ in w.exclude_inbound_ports.spans[:_MOST]:
            yield self._in("an excluded port", own, first)
        yield self._in("the tunnel listener", own, s.tunnel_port)

    # ── One cell ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _out(
        self,
        name: str,
        sender: Sender,
        destination: IPAddress,
        port: int,
        *,
        source: IPAddress | None = None,
        protocol: Protocol = Protocol.TCP,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Cell:
        who = self._proxy if sender is Sender.PROXY else self._app
        uid, gid = who.uid if uid is None else uid, who.gid if gid is None else gid
        own = destination == self._place.own or destination.is_loopback
        interface = "lo" if own else self._place.interface
        sent_from = source or (destination if own else self._place.own)
        first = FirstPacket(
            Direction.OUTBOUND, protocol, sent_from, 0, destination, port, interface, uid, gid, who.mark
        )
        answer = expected(self._plan, first)
        return Cell(
            name, self._place.family, sender, protocol, destination, port, uid, gid, who.mark, answer, sent_from
        )

    def _in(self, name: str, destination: IPAddress, port: int) -> Cell:
        source = self._place.visitor or ELSEWHERE[self._place.family]
        first = FirstPacket(Direction.INBOUND, Protocol.TCP, source, 0, destination, port, VISITOR_INTERFACE)
        answer = expected(self._plan, first)
        return Cell(name, self._place.family, Sender.OUTSIDE, Protocol.TCP, destination, port, 0, 0, 0, answer, source)

    def _target(self) -> tuple[IPAddress, int]:
        """Somewhere that the application is led away from, if there is such a place."""
        included = self._wanted.include_outbound
        addresses, ports = list(self._place.elsewhere), list(_PORTS)
        if included is not None:
            addresses = [*addresses, *(_host(network) for network in self._of_family(included.networks))]
            ports = [*(first for first, _ in included.ports.spans), *ports]
        for address, port in product(addresses, ports):
            first = FirstPacket(
                Direction.OUTBOUND,
                Protocol.TCP,
                self._place.own,
                0,
                address,
                port,
                self._place.interface,
                self._app.uid,
                self._app.gid,
            )
            if expected(self._plan, first).captured is not None:
                return address, port
        return addresses[0], ports[0]

    def _of_family(self, networks: Iterable[Network]) -> list[Network]:
        version = 4 if self._place.family is IPFamily.IPV4 else 6
        return [network for network in networks if network.version == version][:_MOST]


def _host(network: Network) -> IPAddress:
    """The last address that may be a host's: rarely somebody's."""
    if network.num_addresses <= 2:
        return network[0]
    return network[-2]
