"""The values of a plan: a small closed set of rules, each of which says what it does and why it is there.

A renderer maps each rule to exactly one rule of its backend, in the plan's order, and labels it with `rule_id`: so a
counter, a drift report and a golden file speak of the same thing. Stages follow the packet's way through netfilter
(raw, after conntrack, nat); within one stage and direction the first rule that matches wins.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from agent.plan.ranges import Ranges


class Direction(Enum):
    """Where the packet is met, as seen from the pod."""

    INBOUND = "inbound"  # netfilter prerouting: everything that reaches the namespace, also over lo
    OUTBOUND = "outbound"  # netfilter output: everything that a local socket sends


class IPFamily(Enum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class Protocol(Enum):
    TCP = "tcp"
    UDP = "udp"


class Stage(Enum):
    """Which decision an exemption takes a packet out of, in the order in which a packet meets them."""

    TRACK = "track"  # in which conntrack zone it is tracked
    MARK = "mark"  # which marks it gets
    FORGOTTEN = "forgotten"  # TCP unknown to conntrack
    CAPTURE = "capture"  # the first packet of a connection
    DATAGRAM = "datagram"  # UDP that may be refused


class Side(Enum):
    SOURCE = "source"
    DESTINATION = "destination"


# ── What a packet may be matched by ────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class OverLoopback:
    """Arrives on, or is routed to, the interface lo: both ends are in this namespace."""


@dataclass(frozen=True, slots=True)
class Marked:
    """The packet's mark, under the mask: the proxy sets it on each of its sockets."""

    mark: int
    mask: int


@dataclass(frozen=True, slots=True)
class ToMarkedSocket:
    """Addressed to a socket of this namespace that carries the mark: an arriving packet has no mark of its own."""

    mark: int
    mask: int


@dataclass(frozen=True, slots=True)
class Opening:
    """A TCP segment that opens a connection (SYN alone) and that conntrack takes for one."""


@dataclass(frozen=True, slots=True)
class InNetworks:
    """In one of these networks, all of one family."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    side: Side


@dataclass(frozen=True, slots=True)
class AtPorts:
    """The port on that side is one of these, of one of these protocols."""

    ports: Ranges
    side: Side
    protocols: frozenset[Protocol] = frozenset({Protocol.TCP})


class Owner(Enum):
    USER = "user"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class OwnedBy:
    """Sent by a socket whose user (or group) id is one of these; never true of what arrives (xt_owner, nft skuid)."""

    owner: Owner
    ids: Ranges


@dataclass(frozen=True, slots=True)
class NotOwnedBy:
    """Sent by a socket, and its user (or group) id is none of these."""

    owner: Owner
    ids: Ranges


@dataclass(frozen=True, slots=True)
class OnInterfaces:
    """Arrives on, or leaves through, one of these interfaces; a name that ends in `+` stands for all that begin so."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OfFamily:
    family: IPFamily


@dataclass(frozen=True, slots=True)
class OfProtocol:
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of these holds; never nested."""

    matches: "tuple[Match, ...]"


Match = (
    OverLoopback
    | Marked
    | ToMarkedSocket
    | Opening
    | InNetworks
    | AtPorts
    | OwnedBy
    | NotOwnedBy
    | OnInterfaces
    | OfFamily
    | OfProtocol
    | AllOf
)


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class SplitZone:
    """What matches is tracked in a conntrack zone of its own, in the original direction only."""

    rule_id: str
    meaning: str
    direction: Direction
    match: Match
    zone: int


@dataclass(frozen=True, slots=True)
class KeepMark:
    """The connection of a marked packet that is sent over lo gets `connection_mark`; bits outside the mask stay.

    As it is sent, not as it arrives: conntrack confirms the connection in between, and an answer that another CPU sends
    in that moment would find it known, yet without the mark that leads it back, and leave in clear.
    """

    rule_id: str
    meaning: str
    direction: Direction
    marked: Marked
    connection_mark: int


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """An outbound packet of a connection with `connection_mark` gets that mark and is routed anew, unless `unless`."""

    rule_id: str
    meaning: str
    direction: Direction
    connection_mark: int
    unless: Marked


@dataclass(frozen=True, slots=True)
class Inspect:
    """Leads to another stage what is to be judged there; everything else has passed that stage.

    TCP: new or invalid to conntrack (`invalid_only`: invalid alone), to the stage FORGOTTEN. UDP: new to conntrack, to
    the stage DATAGRAM.
    """

    rule_id: str
    meaning: str
    direction: Direction
    invalid_only: bool = False
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True, slots=True)
class Exempt:
    """What matches is left alone by this stage."""

    rule_id: str
    meaning: str
    direction: Direction
    stage: Stage
    match: Match


@dataclass(frozen=True, slots=True)
class PassGrandfathered:
    """Passes the stage FORGOTTEN: addresses and ports are in the set of connections older than the rules."""

    rule_id: str
    meaning: str
    direction: Direction
    family: IPFamily


@dataclass(frozen=True, slots=True)
class DropForgotten:
    """What the stage FORGOTTEN has not let pass is dropped; with a match, only what matches."""

    rule_id: str
    meaning: str
    direction: Direction
    match: Match | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """What matches in the stage DATAGRAM is answered with ICMP port unreachable (RFC 792, RFC 4443 3.1)."""

    rule_id: str
    meaning: str
    direction: Direction
    match: Match


@dataclass(frozen=True, slots=True)
class Capture:
    """What matches and opens a connection (TCP: a SYN alone; UDP: any datagram, for only the first of a flow comes by
    a nat chain) is redirected to a local port, and with it the connection."""

    rule_id: str
    meaning: str
    direction: Direction
    port: int
    match: Match | None = None
    protocol: Protocol = Protocol.TCP


Rule = SplitZone | KeepMark | RestoreMark | Inspect | Exempt | PassGrandfathered | DropForgotten | Refuse | Capture


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """`ip rule` + `ip route` that bring the application's answers to a transparent upstream back to the proxy.

    One rule and one route a family: `ip rule add preference P fwmark MARK/MASK lookup TABLE`,
    `ip route add local default dev lo table TABLE`. No family: there is none, and nothing to do.
    """

    mark: int
    mask: int
    table: int
    preference: int
    families: tuple[IPFamily, ...] = (IPFamily.IPV4, IPFamily.IPV6)


@dataclass(frozen=True, slots=True)
class RedirectPlan:
    """Everything that one pod's namespace is to hold. Equal plans compare equal; nothing in it names the pod.

    `anchor` is what living steered connections need, apart from the rest: it is installed first and removed last, so
    that changing, losing or draining `rules` cuts none of them. `rules` inspect and capture. `drain` takes the place
    of `rules` while the pod leaves: it captures nothing. `loopback_addresses` are added to lo, where IPv4 needs none:
    all of 127.0.0.0/8 is there already.
    """

    anchor: tuple[Rule, ...]
    rules: tuple[Rule, ...]
    drain: tuple[Rule, ...]
    return_path: ReturnPath
    loopback_addresses: tuple[IPv6Address, ...] = ()

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        return (*self.anchor, *self.rules)

    def meaning_of(self, rule_id: str) -> str | None:
        return next((rule.meaning for rule in self.all_rules if rule.rule_id == rule_id), None)
