"""Namespaces of pods that come and go beside a lab's own: a veth pair to the node's bridge, and addresses of a wider
network than a lab has, so that none is given again within minutes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.lab import namespaces, topology
from agent.lab.errors import LabError
from agent.lab.namespaces import Netns
from agent.lab.node import Lab

_NETWORK4: Final = IPv4Address("10.80.0.0")
_NETWORK6: Final = IPv6Address("fd80::")
_PREFIX4: Final = 16
_PREFIX6: Final = 64
_FIRST: Final = 16
"""The node's is below."""
MOST: Final = (1 << (32 - _PREFIX4)) - _FIRST - 1


GATEWAYS: Final = (_NETWORK4 + 1, _NETWORK6 + 1)
"""The node's."""
Address = IPv4Address | IPv6Address


def address4(number: int) -> IPv4Address:
    return _NETWORK4 + _FIRST + number % MOST


def address6(number: int) -> IPv6Address:
    return _NETWORK6 + _FIRST + number % MOST


def widen(lab: Lab) -> None:
    """Once a lab: the node's own addresses in that network."""
    _ip(lab.node, f"addr add {_NETWORK4 + 1}/{_PREFIX4} dev {topology.BRIDGE}",
        f"addr add {_NETWORK6 + 1}/{_PREFIX6} dev {topology.BRIDGE} nodad")  # fmt: skip


def plug(lab: Lab, number: int) -> Netns:
    """A pod's namespace, connected as a CNI plugin leaves it. With the lab it is removed. Raises LabError."""
    netns = namespaces.create(f"{lab.paths.prefix}c{number}")
    _ip(lab.node, f"link add cv{number} type veth peer name eth0 netns {netns.name}",
        f"link set cv{number} master {topology.BRIDGE} up")  # fmt: skip
    _ip(netns, "link set lo up", "link set eth0 up", f"addr add {address4(number)}/{_PREFIX4} dev eth0",
        f"addr add {address6(number)}/{_PREFIX6} dev eth0 nodad", f"route add default via {_NETWORK4 + 1}",
        f"route add ::/0 via {_NETWORK6 + 1}")  # fmt: skip
    return netns


def introduce(node: Netns, gateways: Sequence[Address], pods: Iterable[tuple[Netns, Sequence[Address]]]) -> None:
    """Node and pods keep each other's link addresses. The kernel forgets a neighbour within a minute while a machine's
    namespaces have more than net.ipv4.neigh.default.gc_thresh1 of them, 128; a node for many pods is given more. Each
    proof would else begin with a question to all ports of the bridge, whose answering (0.85 % of a core with 250) the
    kernel charges to who asks."""
    bridge = _link_address(node, topology.BRIDGE)
    known = []
    for netns, addresses in pods:
        theirs = _link_address(netns, "eth0")
        known += [
            f"neigh replace {address} lladdr {theirs} dev {topology.BRIDGE} nud permanent" for address in addresses
        ]
        _ip(netns, *(f"neigh replace {address} lladdr {bridge} dev eth0 nud permanent" for address in gateways))
    _ip(node, *known)


def _link_address(netns: Netns, device: str) -> str:
    return str(json.loads(netns.run(["ip", "-j", "link", "show", device]).stdout)[0]["address"])


def unplug(netns: Netns) -> None:
    """Its name goes; the namespace and its veth follow when nobody holds them."""
    namespaces.delete(netns)


@contextmanager
def plugged(lab: Lab, number: int) -> Iterator[Netns]:
    netns = plug(lab, number)
    try:
        yield netns
    finally:
        unplug(netns)


def _ip(netns: Netns, *lines: str) -> None:
    done = netns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n", check=False)
    if done.returncode:
        raise LabError(f"ip -batch in {netns.name}: {done.stderr.strip()}")
