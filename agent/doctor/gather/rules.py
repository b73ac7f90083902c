"""The rules of the namespace that the calling thread is in, no dearer than they must be.

Of 250 pods most hold ours alone. The names of tables tell that in 0.1 ms; each rule of ours as a message takes 4 ms,
and everybody's in full (agent.ruleset.read) a process a tool.
"""

from dataclasses import replace
from typing import Final

from agent.doctor.facts import Rules
from agent.doctor.gather.alike import Alike
from agent.kernel import iptables_tools
from agent.kernel.netlink import Netlink, attributes
from agent.kernel.nft_messages import GETTABLE, NETLINK_NETFILTER, dump
from agent.plan import IPFamily
from agent.plan.render.nft import ANCHOR_TABLE, TABLE
from agent.ruleset import routing
from agent.ruleset.inventory import Inventory, Tool
from agent.ruleset.whose import makers

_NFPROTO_INET: Final = 1  # linux/netfilter.h
_TABLE_NAME: Final = 1  # linux/netfilter/nf_tables.h: NFTA_TABLE_NAME
_OURS: Final = frozenset({(_NFPROTO_INET, TABLE.encode()), (_NFPROTO_INET, ANCHOR_TABLE.encode())})


def rules(alike: Alike) -> Rules:
    """`alike`: what other namespaces of this look hold. Raises OSError or KernelRefused."""
    tables = _tables()
    legacy = any(iptables_tools.legacy_used(family) for family in IPFamily)
    if not legacy and tables <= _OURS:
        return Rules((), Inventory((), routing.read(frozenset())), ours=bool(tables))
    found = alike.inventory()
    found = replace(found, routing=routing.read(makers(found.tables)))
    counts = dict.fromkeys(Tool, 0)
    for table in found.tables:
        counts[table.tool] += sum(1 for _ in table.rules)
    counted = tuple((tool, number) for tool, number in counts.items() if number)
    return Rules(counted, found, ours=bool(found.ours))


def _tables() -> frozenset[tuple[int, bytes]]:
    """Family and name of each of nftables'; iptables-nft's are among them."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        found = [(family, attributes(data)) for family, data in dump(netlink, GETTABLE)]
    return frozenset((family, parts.get(_TABLE_NAME, b"").rstrip(b"\0")) for family, parts in found)
