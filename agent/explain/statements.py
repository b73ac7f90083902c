"""What a rule is made of, whichever tool wrote it: expressions that read the packet, statements that test or act. Pure.

Values are integers (addresses, ports, marks, ids, protocols, bits), but names of interfaces, which are text. All of it
was read from a kernel that a pod can write to: nothing is well formed but by these types, nothing printable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

Value = int | str


class Field(Enum):
    """What can be read of a packet; the values are nft's words (nft(8), PAYLOAD and META EXPRESSIONS).

    A packet may have no such field: `IP_SOURCE` of an IPv6 packet, `UID` of one without a socket. nft's rule then does
    not match, whatever its operator is; `Match.if_absent` is for the tools that think otherwise.
    """

    NFPROTO = "meta nfproto"  # 2 IPv4, 10 IPv6 (linux/netfilter.h)
    L4PROTO = "meta l4proto"
    IIFNAME = "meta iifname"
    OIFNAME = "meta oifname"
    IIFTYPE = "meta iiftype"
    OIFTYPE = "meta oiftype"
    MARK = "meta mark"
    UID = "meta skuid"
    GID = "meta skgid"
    PKTTYPE = "meta pkttype"
    LENGTH = "meta length"
    CGROUP = "meta cgroup"
    IP_SOURCE = "ip saddr"
    IP_DESTINATION = "ip daddr"
    IP_PROTOCOL = "ip protocol"
    IP_TTL = "ip ttl"
    IP_DSCP = "ip dscp"
    IP_FRAG_OFF = "ip frag-off"
    IP6_SOURCE = "ip6 saddr"
    IP6_DESTINATION = "ip6 daddr"
    IP6_NEXTHDR = "ip6 nexthdr"
    IP6_HOPLIMIT = "ip6 hoplimit"
    TCP_SPORT = "tcp sport"
    TCP_DPORT = "tcp dport"
    TCP_FLAGS = "tcp flags"
    UDP_SPORT = "udp sport"
    UDP_DPORT = "udp dport"
    SCTP_SPORT = "sctp sport"
    SCTP_DPORT = "sctp dport"
    TH_SPORT = "th sport"  # of any protocol that has ports
    TH_DPORT = "th dport"
    ICMP_TYPE = "icmp type"
    ICMP_CODE = "icmp code"
    ICMP6_TYPE = "icmpv6 type"
    ICMP6_CODE = "icmpv6 code"
    CT_STATE = "ct state"  # bits: invalid 1, established 2, related 4, new 8, untracked 64 (nf_conntrack_common.h)
    CT_STATUS = "ct status"  # bits: IPS_*; snat 16, dnat 32
    CT_MARK = "ct mark"
    CT_DIRECTION = "ct direction"  # 0 original, 1 reply
    CT_ZONE = "ct zone"
    CT_L3PROTO = "ct l3proto"
    CT_PROTOCOL = "ct protocol"
    CT_ORIGINAL_IP_SOURCE = "ct original ip saddr"
    CT_ORIGINAL_IP_DESTINATION = "ct original ip daddr"
    CT_ORIGINAL_IP6_SOURCE = "ct original ip6 saddr"
    CT_ORIGINAL_IP6_DESTINATION = "ct original ip6 daddr"
    CT_ORIGINAL_SPORT = "ct original proto-src"
    CT_ORIGINAL_DPORT = "ct original proto-dst"
    SOCKET_TRANSPARENT = "socket transparent"
    SOCKET_MARK = "socket mark"
    SOCKET_WILDCARD = "socket wildcard"
    SOURCE_TYPE = "fib saddr type"  # RTN_* of linux/rtnetlink.h; local 2, broadcast 3, multicast 5
    DESTINATION_TYPE = "fib daddr type"
    SOURCE_TYPE_IIF = "fib saddr . iif type"  # as seen from the interface it arrived on
    DESTINATION_TYPE_IIF = "fib daddr . iif type"
    SOURCE_FIB_OIF = "fib saddr . iif oif"  # 0: no route back there
    SOURCE_FIB_OIF_MARK = "fib saddr . mark . iif oif"  # by the packet's mark, too


# ── Expressions ────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Read:
    field: Field


@dataclass(frozen=True, slots=True)
class Constant:
    value: Value


@dataclass(frozen=True, slots=True)
class Bits:
    """(of & mask) ^ xor; `ored` is laid over last."""

    of: "Expression"
    mask: int
    xor: int = 0
    ored: int = 0


@dataclass(frozen=True, slots=True)
class Xored:
    """left ^ right (iptables: CONNMARK --save-mark and --restore-mark with masks)."""

    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Joined:
    """Several in a row (nft: `ip saddr . tcp dport`), compared component by component."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Looked:
    """What a map has for a key; absent when it has nothing."""

    key: "Expression"
    among: "Elements"


@dataclass(frozen=True, slots=True)
class Opaque:
    """What this version cannot read, or what chance and history decide (numgen, jhash with a seed, quota). `text`: as
    its tool says it; `why`: in a person's words, why nobody can tell."""

    text: str
    why: str = "this version does not interpret it"


Expression = Read | Constant | Bits | Xored | Joined | Looked | Opaque


# ── Sets and maps ──────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Span:
    """From `first` to `last`, both in it. Of text: `first` alone; one that ends in `*` stands for all that begin so."""

    first: Value
    last: Value


@dataclass(frozen=True, slots=True)
class Elements:
    """A set, a map or a verdict map; anonymous ones too.

    Keys have one `Span` for each component. `exact`: keys of single values, for a look-up in one step; `spans`: all
    others, in order. What an element leads to: None in a set, an expression in a map, a verdict in a verdict map.
    `name` is empty for an anonymous one. `changing`: packets add elements (dynamic, timeouts): it may differ by now.
    """

    name: str = ""
    exact: Mapping[tuple[Value, ...], "Expression | Verdict | None"] | None = None
    spans: tuple[tuple[tuple[Span, ...], "Expression | Verdict | None"], ...] = ()
    changing: bool = False


class Op(Enum):
    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    ANY_BIT = "any of"  # nft's implicit operator on bit fields (`ct state new,related`, `tcp flags syn`)


# ── Statements that test ───────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Match:
    """Goes on with the rule when it holds. `right`: a set is a test of membership (EQUAL, UNEQUAL).

    `if_absent`: the outcome where the packet has no such field; nft's is False for every operator, xt_owner's is True
    for `! --uid-owner` (net/netfilter/xt_owner.c).
    """

    left: Expression
    op: Op
    right: "Expression | Elements"
    if_absent: bool = False


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Goes on when one of these does (iptables: `-m multiport --ports`); `negated`: when none does."""

    of: tuple[Match, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Perhaps:
    """Goes on or not, and nobody can tell from rule and packet: limit, quota, statistic, recent, an unknown match."""

    what: Opaque


# ── Statements that decide ─────────────────────────────────────────────────────────────────────────────────────────
class Decision(Enum):
    ACCEPT = "accept"  # ends this base chain; those behind it still see the packet
    DROP = "drop"
    CONTINUE = "continue"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    QUEUE = "queue"  # to a program, which decides: unknown


@dataclass(frozen=True, slots=True)
class Verdict:
    decision: Decision
    chain: str = ""


@dataclass(frozen=True, slots=True)
class VerdictMap:
    key: Expression
    among: Elements


@dataclass(frozen=True, slots=True)
class Reject:
    """`kind`: nft's or iptables' word, as `tcp reset`, `icmp-port-unreachable`."""

    kind: str = ""


class NatKind(Enum):
    REDIRECT = "redirect"  # to the local address of the interface it came in by; of what is sent here, to loopback's
    DNAT = "dnat"
    SNAT = "snat"
    MASQUERADE = "masquerade"


@dataclass(frozen=True, slots=True)
class Nat:
    """None: that part stays. Of a range of ports or addresses the first is named, and `ranged` says there are more."""

    kind: NatKind
    address: Expression | None = None
    port: Expression | None = None
    ranged: bool = False


@dataclass(frozen=True, slots=True)
class Tproxy:
    """To a local transparent socket; ends the chain in iptables (`ends`), goes on with the rule in nft."""

    address: Expression | None = None
    port: Expression | None = None
    ends: bool = False


# ── Statements that change something on the way ────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Set:
    """`meta mark set`, `ct mark set`, `ct zone set`, payload mangling. In iptables MARK, CONNMARK, CT."""

    field: Field
    value: Expression


@dataclass(frozen=True, slots=True)
class Notrack:
    """Conntrack is not asked; the state is `untracked` from here on."""


@dataclass(frozen=True, slots=True)
class NoEffect:
    """Counters, logs, quotas that only count, set updates: seen, and of no influence on this packet's way."""

    text: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A statement that this version cannot read and that may decide: both ways are followed."""

    what: Opaque


Test = Match | AnyOf | Perhaps
Statement = (
    Match | AnyOf | Perhaps | Verdict | VerdictMap | Reject | Nat | Tproxy | Set | Notrack | NoEffect | Unread
)  # fmt: skip

ACCEPT: Final = Verdict(Decision.ACCEPT)
DROP: Final = Verdict(Decision.DROP)
