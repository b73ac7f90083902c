"""A namespace's rules as the interpreter walks them: tables of chains of rules, and where they hang. Pure.

Tables are mappings that may read a chain only when it is asked for: of 5,000 rules a packet meets a few hundred.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from agent.explain.statements import Elements, Statement


class Tool(Enum):
    """Who lists the table in full, and takes it away; the values are those of agent.kernel.backends.Backend."""

    NFT = "nft"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


class Hook(Enum):
    """Where the kernel asks (linux/netfilter.h: NF_INET_*; linux/netfilter_netdev.h)."""

    INGRESS = "ingress"
    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"
    EGRESS = "egress"


class ChainType(Enum):
    FILTER = "filter"
    NAT = "nat"  # asked once a connection, at the priority of the kernel's own NAT hooks (nf_nat_core.c)
    ROUTE = "route"  # output only: the route is looked up again when mark or addresses changed


@dataclass(frozen=True, slots=True)
class Base:
    """What makes a chain a base chain. `devices`: of ingress and egress. `policy`: ACCEPT or DROP, as `drop`."""

    kind: ChainType
    hook: Hook
    priority: int
    drops: bool = False
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """`place`: the rule's number in its chain, from 1. `handle`: nft's, 0 when its tool has none. `text`: as its tool
    writes it without counter and comment; empty where that is still to be asked for. `comment`: what the rule says of
    itself, without our claim that it is true."""

    place: int
    statements: tuple[Statement, ...]
    text: str = ""
    comment: str = ""
    handle: int = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """`handle`: nft's; of two chains in one table the higher was made later. `rules` may be read when asked for."""

    name: str
    rules: Sequence[Rule]
    base: Base | None = None
    handle: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """`family`: ip, ip6, inet, netdev, bridge, arp. `dormant`: its chains hang nowhere (nft: flags dormant)."""

    tool: Tool
    family: str
    name: str
    chains: Mapping[str, Chain]
    sets: Mapping[str, Elements]
    handle: int = 0
    dormant: bool = False


@dataclass(frozen=True, slots=True)
class Ruleset:
    """`unread`: what could not be read and why: then there may be more than is told."""

    tables: tuple[Table, ...] = ()
    unread: tuple[str, ...] = ()
