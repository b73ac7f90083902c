"""The values of a plan: a small closed set of rules, each of which says what it does and why it is there.

A renderer maps each rule to exactly one rule of its backend, in the plan's order, and labels it with `rule_id`: so a
counter, a drift report and a golden file speak of the same thing. Stages follow the packet's way through netfilter
(raw, after conntrack, nat); within one stage and direction the first rule that matches wins.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network


class Direction(Enum):
    """Where the packet is met, as seen from the pod."""

    INBOUND = "inbound"  # netfilter prerouting: everything that reaches the namespace, also over lo
    OUTBOUND = "outbound"  # netfilter output: everything that a local socket sends


class IPFamily(Enum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class Stage(Enum):
    """Which decision an exemption takes a packet out of."""

    FORGOTTEN = "forgotten"  # TCP unknown to conntrack
    CAPTURE = "capture"  # the first packet of a connection


class Side(Enum):
    SOURCE = "source"
    DESTINATION = "destination"


# ── What a packet may be matched by ────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class OverLoopback:
    """Arrives on, or is routed to, the interface lo: both ends are in this namespace."""


@dataclass(frozen=True, slots=True)
class InNetwork:
    network: IPv4Network | IPv6Network
    side: Side


@dataclass(frozen=True, slots=True)
class ToPort:
    """TCP destination port."""

    port: int


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


Match = OverLoopback | InNetwork | ToPort | Marked | ToMarkedSocket | Opening


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class SplitZone:
    """Packets with the mark are tracked in a conntrack zone of their own, in the original direction only."""

    rule_id: str
    meaning: str
    direction: Direction
    marked: Marked
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
    """TCP that is new or invalid to conntrack goes through the stage FORGOTTEN; everything else has passed it."""

    rule_id: str
    meaning: str
    direction: Direction


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
    """What the stage FORGOTTEN has not let pass is dropped; with `sent_from`, only what a marked socket sends.

    `sent_from` is (mark, source ports): the proxy's own ends of steered connections.
    """

    rule_id: str
    meaning: str
    direction: Direction
    sent_from: tuple[Marked, tuple[int, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Capture:
    """The first packet (SYN) of a TCP connection, and with it the connection, is redirected to a local port."""

    rule_id: str
    meaning: str
    direction: Direction
    port: int


Rule = SplitZone | KeepMark | RestoreMark | Inspect | Exempt | PassGrandfathered | DropForgotten | Capture


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """`ip rule` + `ip route` that bring the application's answers to a transparent upstream back to the proxy.

    One rule and one route a family: `ip rule add preference P fwmark MARK/MASK lookup TABLE`,
    `ip route add local default dev lo table TABLE`.
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
    of `rules` while the pod leaves: it captures nothing.
    """

    anchor: tuple[Rule, ...]
    rules: tuple[Rule, ...]
    drain: tuple[Rule, ...]
    return_path: ReturnPath

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        return (*self.anchor, *self.rules)

    def meaning_of(self, rule_id: str) -> str | None:
        return next((rule.meaning for rule in self.all_rules if rule.rule_id == rule_id), None)
