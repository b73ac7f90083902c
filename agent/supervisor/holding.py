"""Which backends hold rules of ours in the namespace that the calling thread is in, and for whom."""

import socket
from collections.abc import Iterable
from typing import Final

from agent.kernel import backends, nft
from agent.kernel.backends import Backend
from agent.kernel.iptables_tools import legacy_used
from agent.plan import IPFamily
from agent.plan.modes import are_a_sidecars
from agent.plan.render.nft import ANCHOR_TABLE, TABLE

TABLES: Final = frozenset({TABLE, ANCHOR_TABLE})
_IPTABLES: Final = frozenset({"raw", "mangle", "nat", "filter"})
"""What iptables-nft calls its tables, of families ip and ip6."""


def others() -> frozenset[Backend]:
    """Which other backends than nftables. Most pods have no table of iptables at all, which is asked first, in half the
    time."""
    used = nft.tables(socket.AF_UNSPEC) & _IPTABLES or any(map(legacy_used, IPFamily))
    return backends.held() - {Backend.NFTABLES} if used else frozenset()


def sidecars() -> bool:
    """Somebody's `headgate init` put rules here: nothing of them, nor of their return path, is an agent's to remove."""
    return for_a_sidecar(_holding())


def for_a_sidecar(holding: Iterable[Backend]) -> bool:
    """`headgate init` put them there."""
    return any(_for_a_sidecar(backend) for backend in holding)


def for_the_node() -> bool:
    """A node's agent put rules here, with whatever backend. Quick where there is none at all."""
    holding = _holding()
    return bool(holding) and not for_a_sidecar(holding)


def _holding() -> frozenset[Backend]:
    return others() | ({Backend.NFTABLES} if nft.tables() & TABLES else frozenset())


def _for_a_sidecar(backend: Backend) -> bool:
    if backend is not Backend.NFTABLES:
        return are_a_sidecars(counter.rule_id for counter in backends.counters(backend))
    # 250 pods are asked when an agent begins: the smaller table tells, unless somebody took it away.
    table = ANCHOR_TABLE if ANCHOR_TABLE in nft.tables() else TABLE
    return are_a_sidecars(counter.rule_id for counter in nft.list_counters(table))
