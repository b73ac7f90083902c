"""The packet that is asked about: what a person says of it, and what is not said stays unknown. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.pods import IPAddress

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58
SCTP: Final = 132
"""IANA protocol numbers."""

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
"""TCP flags (RFC 9293, 3.1)."""


class Way(Enum):
    """From where the packet enters the namespace's netfilter."""

    OUTBOUND = "outbound"  # a local socket sends it: output, postrouting; over lo then prerouting and input, too
    INBOUND = "inbound"  # it arrives on an interface: prerouting, then input or forward and postrouting


class ConntrackState(Enum):
    """What conntrack takes the packet for, once it has seen it (conntrack(8), nft(8): ct state)."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


@dataclass(frozen=True, slots=True)
class Sender:
    """The socket that sends an outbound packet. None: not known; the rule that asks is then followed both ways."""

    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, as it enters.

    `source` None: the kernel's choice, which `Surroundings.route` tells. `source_port` None: any port, not known.
    `sender` None: no socket of this namespace sends it, as of all that arrives. `interface`: where an inbound packet
    arrives; None for an outbound one, whose interface the route decides. `mark`: of an outbound one, its socket's
    (SO_MARK); 0 else.
    """

    way: Way
    protocol: int
    destination: IPAddress
    destination_port: int | None = None
    source: IPAddress | None = None
    source_port: int | None = None
    sender: Sender | None = None
    interface: str | None = None
    mark: int = 0
    state: ConntrackState = ConntrackState.NEW
    tcp_flags: int = SYN
    icmp_type: int | None = None
    icmp_code: int | None = None
