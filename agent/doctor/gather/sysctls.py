"""Interfaces, their addresses and their switches below /proc/sys/net, of the namespace that the calling thread is in.

/proc/sys/net is the reading thread's own namespace's (net/sysctl_net.c), whichever mount it is read through.
"""

import os
import socket
from pathlib import Path
from typing import Final

from agent.doctor.facts import Interface
from agent.kernel.iproute import read_interface_addresses
from agent.pods import IPAddress

_IPV4: Final = "/proc/sys/net/ipv4/conf"
_IPV6: Final = "/proc/sys/net/ipv6/conf"
_NOT_INTERFACES: Final = frozenset({"all", "default"})
_INTERFACES_AT_MOST: Final = 64
"""A node's own namespace has one a pod, alike; a pod has a few."""


def interfaces() -> tuple[Interface, ...]:
    """Raises OSError when neither can be read."""
    addresses: dict[str, list[IPAddress]] = {}
    names: dict[int, str] = {}
    for found in read_interface_addresses():
        name = names.get(found.interface) or names.setdefault(found.interface, _name(found.interface))
        addresses.setdefault(name, []).append(found.address)
    listed = [path.name for path in Path(_IPV4).iterdir() if path.name not in _NOT_INTERFACES]
    # Those with addresses first: packets of pods come in by the others, and these are many and alike.
    listed.sort(key=lambda name: (name not in addresses, name))
    every = _number(f"{_IPV4}/all/rp_filter"), _number(f"{_IPV4}/all/src_valid_mark")
    return tuple(_interface(name, every, addresses.get(name, [])) for name in listed[:_INTERFACES_AT_MOST])


def _interface(name: str, every: tuple[int, int], addresses: list[IPAddress]) -> Interface:
    base = f"{_IPV4}/{name}"
    return Interface(
        name,
        max(every[0], _number(f"{base}/rp_filter")),
        bool(max(every[1], _number(f"{base}/src_valid_mark"))),
        _ipv6(name),
        tuple(addresses),
    )


def _ipv6(name: str) -> bool | None:
    try:
        return _read(f"{_IPV6}/{name}/disable_ipv6") == 0
    except FileNotFoundError:
        return None


def _number(path: str) -> int:
    """0 of an interface that went meanwhile."""
    try:
        return _read(path)
    except FileNotFoundError:
        return 0


def _read(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"if{index}"
