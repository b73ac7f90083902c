"""Routing decisions of the kernel, asked for one packet at a time (rtnetlink(7): RTM_GETROUTE), in the namespace that
the calling thread is in. Numbers are of linux/rtnetlink.h.
"""

import errno
import socket
import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from agent.explain.surroundings import Asked, Route, RouteKind
from agent.kernel.netlink import Message, Netlink, attribute, attributes

_RTM_GETROUTE: Final = 26
_RTM_F_LOOKUP_TABLE: Final = 0x1000
_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_PREFSRC, _RTA_TABLE, _RTA_MARK, _RTA_UID = 1, 2, 3, 4, 7, 15, 16, 25
_RTMSG: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_U32: Final = struct.Struct("=I")

_LOCAL, _MAIN = 255, 254  # RT_TABLE_*
_KINDS: Final = {
    1: RouteKind.UNICAST,
    2: RouteKind.LOCAL,
    3: RouteKind.BROADCAST,
    4: RouteKind.LOCAL,  # anycast, of IPv6: delivered here
    5: RouteKind.MULTICAST,
}
"""RTN_*"""
_REFUSED: Final = frozenset({errno.EXDEV, errno.EINVAL})
"""Of what arrives: rp_filter, a martian (net/ipv4/fib_frontend.c: __fib_validate_source; route.c: martian_source)."""
_ABOUT_THE_PACKET: Final = _REFUSED | {
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EADDRNOTAVAIL, errno.ENODEV,
}  # fmt: skip
"""No route, or one that refuses: unreachable, prohibit, blackhole (net/ipv4/fib_semantics.c: fib_props)."""


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Of the namespace, as they are now."""

    numbers: dict[str, int]

    @property
    def names(self) -> dict[int, str]:
        return {number: name for name, number in self.numbers.items()}


def interfaces() -> Interfaces:
    """Raises OSError."""
    return Interfaces({name: number for number, name in socket.if_nameindex()})


def decide(netlink: Netlink, asked: Asked, known: Interfaces) -> Route | None:
    """As the kernel routes such a packet now; None: the interface that it is to arrive on is not there.

    A packet that is sent from an address that is nobody's here (a transparent socket's) is asked about without its
    source: rtnetlink asks as a plain socket does, which may not (net/ipv4/route.c: ip_route_output_key_hash_rcu).
    Raises OSError when it refuses for another reason than the packet's.
    """
    if asked.arrives_on is not None and asked.arrives_on not in known.numbers:
        return None
    found = _asked(netlink, asked, known)
    if asked.arrives_on is not None:
        return found if isinstance(found, Route) else Route(RouteKind.REFUSED if found in _REFUSED else RouteKind.NONE)
    if isinstance(found, Route) and asked.source is None and found.source is not None:
        # A socket that has no address yet is given the one that the route says, and then is routed by it: a local route
        # to somebody else's address says that address (include/net/route.h: ip_route_connect).
        again = _asked(netlink, replace(asked, source=found.source), known)
        found = replace(again, source=found.source) if isinstance(again, Route) else again
    elif isinstance(found, int) and asked.source is not None and not _is_own(netlink, asked, known):
        found = _asked(netlink, replace(asked, source=None), known)
    return found if isinstance(found, Route) else Route(RouteKind.NONE)


def _is_own(netlink: Netlink, asked: Asked, known: Interfaces) -> bool:
    assert asked.source is not None
    found = _asked(netlink, Asked(asked.source), known)
    return isinstance(found, Route) and found.kind is RouteKind.LOCAL


def _asked(netlink: Netlink, asked: Asked, known: Interfaces) -> Route | int:
    """The errno of a refusal that is about the packet."""
    try:
        return _route(netlink.ask(_message(asked, known)), known)
    except OSError as error:
        if error.errno in _ABOUT_THE_PACKET:
            return error.errno or 0
        raise


def _message(asked: Asked, known: Interfaces) -> Message:
    bits, source = asked.destination.max_prefixlen, asked.source
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    body = _RTMSG.pack(family, bits, bits if source is not None else 0, 0, 0, 0, 0, 0, _RTM_F_LOOKUP_TABLE)
    body += attribute(_RTA_DST, asked.destination.packed)
    if source is not None:
        body += attribute(_RTA_SRC, source.packed)
    if asked.arrives_on is not None:
        body += attribute(_RTA_IIF, _U32.pack(known.numbers[asked.arrives_on]))
    if asked.mark:
        body += attribute(_RTA_MARK, _U32.pack(asked.mark))
    if asked.uid is not None:
        body += attribute(_RTA_UID, _U32.pack(asked.uid))
    return Message(_RTM_GETROUTE, 0, body)


def _route(data: bytes, known: Interfaces) -> Route:
    table, kind = data[4], data[7]
    found = attributes(data[_RTMSG.size :])
    if _RTA_TABLE in found:
        (table,) = _U32.unpack(found[_RTA_TABLE])
    found_kind = _KINDS.get(kind, RouteKind.NONE)
    if table == _MAIN and found_kind in (RouteKind.LOCAL, RouteKind.BROADCAST):
        # The two are one, and called main, until there is a rule more (net/ipv4/fib_trie.c: fib_trie_unmerge).
        table = _LOCAL
    number = _U32.unpack(found[_RTA_OIF])[0] if _RTA_OIF in found else 0
    source = ip_address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None
    return Route(found_kind, known.names.get(number, ""), source, table)
