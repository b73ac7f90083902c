"""Takes what is ours out of the network namespace that the calling thread is in."""

from ipaddress import IPv6Address
from typing import Final

from agent.kernel import conntrack, iproute, iptables, nft
from agent.kernel.iptables_tools import Variant
from agent.kernel.netns_lock import locked
from agent.plan import PlanSettings
from agent.ruleset.clean import Removal
from agent.ruleset.inventory import Tool

_VARIANTS: Final = {Tool.IPTABLES_NFT: Variant.NFT, Tool.IPTABLES_LEGACY: Variant.LEGACY}


def remove(removal: Removal) -> None:
    """Rules first, then what served them. Raises KernelRefused or OSError: what is left then is found by the next
    inventory; nothing of anybody else is touched."""
    for tool in removal.iptables:
        iptables.remove(_VARIANTS[tool])
    with locked():
        if removal.nft_tables:
            # Adding first makes the deletion succeed also when somebody was quicker.
            nft.apply(
                "".join(
                    f"add table {family} {name}\ndelete table {family} {name}\n" for family, name in removal.nft_tables
                )
            )
        if removal.return_path:
            iproute.remove_return_path(PlanSettings().return_path)
        iproute.remove_loopback_addresses(tuple(IPv6Address(address) for address in removal.loopback_addresses))


def count_steered() -> int:
    """Living connections that go on through the rules' translation, and end with it; 0 where nobody may know."""
    try:
        return conntrack.count_steered()
    except OSError:
        return 0
