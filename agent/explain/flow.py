"""The packet on its way: what rules read of it, and what they have changed. Pure.

`Flow.values` is what a rule reads, and nothing else: a field that is not in it is absent, one whose value is an
`Unknown` is there and nobody knows it. It is made anew at each hook, and where something changed.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.explain.packet import ICMP, ICMP6, SCTP, TCP, UDP, ConntrackState, Packet, Sender, Way
from agent.explain.statements import Field, Value
from agent.explain.tables import Hook
from agent.pods import IPAddress

_UDPLITE, _DCCP = 136, 33
PORTED: Final = frozenset({TCP, UDP, SCTP, _UDPLITE, _DCCP})
LOOPBACK: Final = "lo"
_ARPHRD_LOOPBACK: Final = 772  # linux/if_arp.h
_STATES: Final = {
    ConntrackState.INVALID: 1,
    ConntrackState.ESTABLISHED: 2,
    ConntrackState.RELATED: 4,
    ConntrackState.NEW: 8,
    ConntrackState.UNTRACKED: 64,
}
_INVALID, _UNTRACKED = 1, 64
CONFIRMED, SNAT, DNAT, SNAT_DONE, DNAT_DONE = 8, 16, 32, 128, 256
"""Bits of `ct status` (linux/netfilter/nf_conntrack_common.h: IPS_*)."""


@dataclass(eq=False, slots=True)
class Unknown:
    """A value that is there, and that nobody told. Itself is its identity: what was read from one is one unknown."""

    why: str


Known = Value | Unknown


class Tracked(Enum):
    """What the packet carries of conntrack (skb->_nfct)."""

    NOT_YET = "not yet"
    ZONE = "a zone to be looked up in"
    ENTRY = "a connection"
    NEVER = "not tracked"


class NotTold:
    """What a packet leaves open; one Unknown each, so that a question asked twice has one answer."""

    def __init__(self) -> None:
        self._made: dict[str, Unknown] = {}

    def __call__(self, what: str) -> Unknown:
        if what not in self._made:
            self._made[what] = Unknown(f"{what} is not known")
        return self._made[what]


@dataclass(slots=True)
class Flow:
    """`lazily`: what is asked of the surroundings only when a rule reads it."""

    packet: Packet
    not_told: NotTold
    lazily: Callable[["Flow", Field], Known | None]
    version: int
    source: Known
    destination: Known
    source_port: Known | None
    destination_port: Known | None
    mark: Known
    hook: Hook = Hook.OUTPUT
    iif: Known = ""
    oif: Known = ""
    own: bool = False  # it still has the socket that sent it
    assigned: bool = False  # it has the socket that gets it already (tproxy)
    tracked: Tracked = Tracked.NOT_YET
    state: Known = _INVALID
    ct_mark: Known = 0
    zone: Known = 0
    status: Known = 0
    original: tuple[Known, Known, Known | None, Known | None] | None = None
    looked_up: tuple[Known, Known, Known | None, Known | None] | None = None  # as conntrack saw it
    changed: dict[Field, Known] = field(default_factory=dict)
    values: dict[Field, Known] = field(default_factory=dict)
    by_iptables: bool = False

    # ── Where it is ────────────────────────────────────────────────────────────────────────────────────────────────
    def enter(self, hook: Hook, iif: Known, oif: Known) -> None:
        """Values of the hook. A name of no interface is empty, not absent (nft_meta.c: nft_meta_store_ifname)."""
        self.hook, self.iif, self.oif = hook, iif, oif
        self.read()

    def read_by(self, *, iptables: bool) -> None:
        """Whose rules read it now: the two differ in what they make of a packet that has a zone and no connection."""
        if self.by_iptables is not iptables:
            self.by_iptables = iptables
            if self.tracked is Tracked.ZONE:
                self.read()

    def read(self) -> None:
        """Everything anew, but what a rule has written over."""
        values: dict[Field, Known] = {
            Field.NFPROTO: 2 if self.version == 4 else 10,
            Field.L4PROTO: self.packet.protocol,
            Field.IIFNAME: self.iif,
            Field.OIFNAME: self.oif,
            Field.MARK: self.mark,
            Field.PKTTYPE: self.not_told("whether it was sent to this host alone"),
            Field.LENGTH: self.not_told("the packet's length"),
            Field.CGROUP: self.not_told("the sender's cgroup"),
        }
        # What nft calls the input's type is that of the device that the packet is at: when it leaves, the output's.
        at = self.oif if self.hook is Hook.POSTROUTING else self.iif
        for name, kind in ((at, Field.IIFTYPE), (self.oif, Field.OIFTYPE)):
            if name:
                values[kind] = _ARPHRD_LOOPBACK if name == LOOPBACK else self.not_told("the interface's type")
        self._network(values)
        self._transport(values)
        self._owner(values)
        self._connection(values)
        values.update(self.changed)
        self.values = values

    def get(self, what: Field) -> Known | None:
        """None: the packet has no such field."""
        found = self.values.get(what)
        if found is None and what in _LAZY:
            found = self.lazily(self, what)
            if found is not None:
                self.values[what] = found
        return found

    # ── What a rule reads ──────────────────────────────────────────────────────────────────────────────────────────
    def _network(self, values: dict[Field, Known]) -> None:
        not_told = self.not_told
        if self.version == 4:
            values[Field.IP_SOURCE] = self.source
            values[Field.IP_DESTINATION] = self.destination
            values[Field.IP_PROTOCOL] = self.packet.protocol
            values[Field.IP_TTL] = not_told("its time to live")
            values[Field.IP_DSCP] = not_told("its DSCP")
            values[Field.IP_FRAG_OFF] = not_told("whether it may be fragmented")
        else:
            values[Field.IP6_SOURCE] = self.source
            values[Field.IP6_DESTINATION] = self.destination
            values[Field.IP6_NEXTHDR] = self.packet.protocol
            values[Field.IP6_HOPLIMIT] = not_told("its hop limit")

    def _transport(self, values: dict[Field, Known]) -> None:
        protocol = self.packet.protocol
        if protocol in PORTED:
            sport = self.source_port if self.source_port is not None else self.not_told("its source port")
            dport = self.destination_port
            if dport is None:
                dport = self.not_told("its destination port")
            values[Field.TH_SPORT], values[Field.TH_DPORT] = sport, dport
            if protocol in _PORTS:
                of_source, of_destination = _PORTS[protocol]
                values[of_source], values[of_destination] = sport, dport
            if protocol == TCP:
                values[Field.TCP_FLAGS] = self.packet.tcp_flags
            return
        # Whatever stands there in another header is compared with the port (nft_payload.c knows no ports).
        values[Field.TH_SPORT] = values[Field.TH_DPORT] = self.not_told("what stands where others have ports")
        if protocol in _ICMP:
            kind, code = _ICMP[protocol]
            told = self.packet.icmp_type, self.packet.icmp_code
            values[kind] = told[0] if told[0] is not None else self.not_told("its ICMP type")
            values[code] = told[1] if told[1] is not None else self.not_told("its ICMP code")

    def _owner(self, values: dict[Field, Known]) -> None:
        """Of who sent it, as long as it is with the sender; and of who receives it, where that is decided already."""
        if self.own:
            sender = self.packet.sender or Sender()
            values[Field.UID] = sender.uid if sender.uid is not None else self.not_told("the sender's user")
            values[Field.GID] = sender.gid if sender.gid is not None else self.not_told("the sender's group")
        elif self.assigned or (self.hook is Hook.INPUT and self.packet.state is ConntrackState.ESTABLISHED):
            # The receiving socket of an established connection is looked up early (tcp_input: tcp_v4_early_demux).
            values[Field.UID] = self.not_told("the receiver's user")
            values[Field.GID] = self.not_told("the receiver's group")

    def _connection(self, values: dict[Field, Known]) -> None:
        values[Field.CT_STATE] = self.state
        if self.tracked is Tracked.ZONE:  # a template: new, and of no connection (nft_ct.c: nft_ct_get_eval)
            values[Field.CT_STATE] = _STATES[ConntrackState.NEW]
            if self.by_iptables:  # which takes it for a connection, of zeros (xt_conntrack.c, xt_connmark.c)
                values.update(_TEMPLATE)
        if self.tracked is not Tracked.ENTRY or self.original is None:
            return
        values[Field.CT_MARK] = self.ct_mark
        values[Field.CT_ZONE] = self.zone
        values[Field.CT_STATUS] = self.status
        new = self.packet.state is ConntrackState.NEW
        values[Field.CT_DIRECTION] = 0 if new else self.not_told("the connection's direction")
        values[Field.CT_L3PROTO] = 2 if self.version == 4 else 10
        values[Field.CT_PROTOCOL] = self.packet.protocol
        source, destination, sport, dport = self.original
        if self.version == 4:
            values[Field.CT_ORIGINAL_IP_SOURCE], values[Field.CT_ORIGINAL_IP_DESTINATION] = source, destination
        else:
            values[Field.CT_ORIGINAL_IP6_SOURCE], values[Field.CT_ORIGINAL_IP6_DESTINATION] = source, destination
        values[Field.CT_ORIGINAL_SPORT] = sport if sport is not None else self.not_told("its source port")
        values[Field.CT_ORIGINAL_DPORT] = dport if dport is not None else self.not_told("its destination port")

    # ── What changes ───────────────────────────────────────────────────────────────────────────────────────────────
    def track(self) -> bool:
        """Conntrack's look at it (nf_conntrack_core.c: nf_conntrack_in); False when it has been seen before."""
        if self.tracked in (Tracked.ENTRY, Tracked.NEVER):
            return False
        said = self.packet.state
        self.state = _STATES[said]
        if said in (ConntrackState.INVALID, ConntrackState.UNTRACKED):
            self.tracked = Tracked.NEVER if said is ConntrackState.UNTRACKED else Tracked.NOT_YET
            self.read()
            return True
        self.tracked = Tracked.ENTRY
        self.looked_up = (self.source, self.destination, self.source_port, self.destination_port)
        if said is ConntrackState.NEW:
            self.ct_mark, self.status = 0, 0
            self.original = self.looked_up
        else:
            first = self.not_told("the connection's first packet")
            self.ct_mark, self.status = self.not_told("the connection's mark"), self.not_told("the connection's status")
            self.original = (first, first, first, first)
        self.read()
        return True

    def untrack(self) -> bool:
        """False: conntrack has seen it, or will in a zone (nft_ct.c: nft_notrack_eval; xt_CT.c)."""
        if self.tracked is not Tracked.NOT_YET:
            return False
        self.tracked, self.state = Tracked.NEVER, _UNTRACKED
        self.read()
        return True

    def track_in(self, zone: Known, *, again: bool) -> bool:
        """`again`: also when it was not to be tracked at all, as nft's `ct zone set` has it and xt_CT has not. False:
        conntrack has seen it already."""
        if self.tracked is not Tracked.NOT_YET and not (again and self.tracked is Tracked.NEVER):
            return False
        self.tracked, self.zone = Tracked.ZONE, zone
        self.read()
        return True

    def mark_status(self, bits: int) -> None:
        if isinstance(self.status, int) and self.tracked is Tracked.ENTRY:
            self.status |= bits
            self.values[Field.CT_STATUS] = self.status

    def signature(self) -> Hashable:
        """Two flows of equal signature have the same ahead of them."""
        return (
            self.source, self.destination, self.source_port, self.destination_port, self.mark, self.hook, self.iif,
            self.oif, self.own, self.assigned, self.tracked, self.state, self.ct_mark, self.zone, self.status,
            tuple(self.changed.items()),
        )  # fmt: skip


def address(value: Value, version: int) -> IPAddress:
    return IPv4Address(int(value)) if version == 4 else IPv6Address(int(value))


def flow_of(packet: Packet, not_told: NotTold, lazily: Callable[[Flow, Field], Known | None]) -> Flow:
    """As it enters."""
    return Flow(
        packet,
        not_told,
        lazily,
        packet.destination.version,
        int(packet.source) if packet.source is not None else not_told("its source address"),
        int(packet.destination),
        packet.source_port,
        packet.destination_port,
        packet.mark,
        own=packet.way is Way.OUTBOUND and packet.sender is not None,
    )


_PORTS: Final = {
    TCP: (Field.TCP_SPORT, Field.TCP_DPORT),
    UDP: (Field.UDP_SPORT, Field.UDP_DPORT),
    SCTP: (Field.SCTP_SPORT, Field.SCTP_DPORT),
}
_ICMP: Final = {ICMP: (Field.ICMP_TYPE, Field.ICMP_CODE), ICMP6: (Field.ICMP6_TYPE, Field.ICMP6_CODE)}
_LAZY: Final = frozenset(
    {
        Field.SOCKET_TRANSPARENT,
        Field.SOCKET_MARK,
        Field.SOCKET_WILDCARD,
        Field.SOURCE_TYPE,
        Field.DESTINATION_TYPE,
        Field.SOURCE_TYPE_IIF,
        Field.DESTINATION_TYPE_IIF,
        Field.SOURCE_FIB_OIF,
        Field.SOURCE_FIB_OIF_MARK,
    }
)
_TEMPLATE: Final = {
    Field.CT_MARK: 0,
    Field.CT_STATUS: 0x808,  # IPS_TEMPLATE, IPS_CONFIRMED
    Field.CT_DIRECTION: 0,
    Field.CT_L3PROTO: 0,
    Field.CT_PROTOCOL: 0,
    Field.CT_ORIGINAL_IP_SOURCE: 0,
    Field.CT_ORIGINAL_IP_DESTINATION: 0,
    Field.CT_ORIGINAL_IP6_SOURCE: 0,
    Field.CT_ORIGINAL_IP6_DESTINATION: 0,
    Field.CT_ORIGINAL_SPORT: 0,
    Field.CT_ORIGINAL_DPORT: 0,
}
