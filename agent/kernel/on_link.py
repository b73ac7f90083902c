"""An address to dial that is nobody's, out of the addresses that an interface has. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface

IPAddress = IPv4Address | IPv6Address

_SMALLEST: dict[int, int] = {4: 30, 6: 126}
"""The longest prefix that leaves an address free besides the pod's and the gateway's."""


def unused_on_link(address: IPAddress, prefix_length: int, own: Iterable[IPAddress], seed: int) -> IPAddress | None:
    """An address in `address`'s own subnet that is none of `own`; None when the subnet has no room.

    On-link, because without a default route any other destination fails before the OUTPUT hook (ENETUNREACH). Drawn by
    `seed` from the whole subnet, so that a neighbour is hit rarely, and another one the next time: if the rules are in
    place nothing leaves the namespace anyway.
    """
    if prefix_length > _SMALLEST[address.version]:
        return None
    network: IPv4Network | IPv6Network = ip_interface(f"{address}/{prefix_length}").network
    taken = set(own)
    usable = network.num_addresses - 2  # neither the network's own (subnet-router anycast, RFC 4291 2.6.1) nor the last
    for step in range(len(taken) + 1):
        candidate = network[1 + (seed + step) % usable]
        if candidate not in taken:
            return candidate
    return None
