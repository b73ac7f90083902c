"""TCP connections as addresses and ports, and which of them lie outside the mesh."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from agent.pods import IPAddress
from proxy.api.constants import MARK_MASK, PROXY_MARK


class OnUnsteered(Enum):
    """What becomes of connections that are found outside the mesh."""

    REPORT = "report"  # they live on, are counted and told
    RESET = "reset"  # they are ended, so that they come back through the mesh


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """One TCP connection as its local socket sees it; v4-mapped addresses already plain v4.

    `mark` is the socket's own (SO_MARK), None when the kernel did not tell; `uid` is its owner's. Neither is a part of
    the identity of a connection: compare `key`.
    """

    local: IPAddress
    local_port: int
    remote: IPAddress
    remote_port: int
    mark: int | None = None
    uid: int | None = None

    @property
    def key(self) -> "FlowKey":
        return (self.local, self.local_port, self.remote, self.remote_port)


FlowKey = tuple[IPAddress, int, IPAddress, int]


OtherEnds = Mapping[FlowKey, FlowKey]
"""Of a translated connection: what the socket at its other end is, if that is here. Both ends are keys."""

_UNTRANSLATED: Final[OtherEnds] = MappingProxyType({})


def outside_the_mesh(
    flows: Iterable[FlowTuple], steered_ports: frozenset[int], other_ends: OtherEnds = _UNTRANSLATED
) -> frozenset[FlowKey]:
    """The connections that were not led through the proxy, out of all that the namespace holds.

    Left out are: the proxy's own sockets (its mark, its ports); connections whose both ends are here, as the sockets or
    conntrack (`other_ends`) tell, which covers the application's end of a transparent upstream (loopback never needs
    the set); and the application's end of a steered outbound connection, whose address and port appear as the peer of
    a socket on a port of the proxy: as a rule, for conntrack shows the proxy another port when an ended connection
    from the same one to elsewhere is remembered still (B38), and then only `other_ends` knows.
    """
    known = tuple(flows)
    keys = {flow.key for flow in known}
    steered_clients = {(flow.remote, flow.remote_port) for flow in known if flow.local_port in steered_ports}
    return frozenset(
        flow.key
        for flow in known
        if flow.local_port not in steered_ports
        and not _is_proxys(flow)
        and (flow.remote, flow.remote_port, flow.local, flow.local_port) not in keys
        and other_ends.get(flow.key) not in keys
        and (flow.local, flow.local_port) not in steered_clients
    )


def opened_meanwhile(
    before: frozenset[FlowKey],
    after: Iterable[FlowTuple],
    again: Iterable[FlowTuple],
    steered_ports: frozenset[int],
    other_ends: OtherEnds = _UNTRANSLATED,
) -> frozenset[FlowKey]:
    """Connections that opened between the first reading and the transaction, and so were not captured.

    `after` and `again` are two readings in succession, both begun after the transaction. A reading is no snapshot:
    `after` may show the application's end of a connection captured a moment ago and not yet the proxy's. By the time
    `again` begins, the proxy's end exists; so what both readings call unsteered is unsteered. `other_ends` is read
    last, for the same reason.
    """
    first = outside_the_mesh(after, steered_ports, other_ends) - before
    if not first:
        return first
    return first & outside_the_mesh(again, steered_ports, other_ends)


def steerable(flow: FlowKey) -> bool:
    """Whether the rules would lead such a connection to the proxy: never one of loopback or of link-local IPv6
    addresses, so that one of these, opened at whatever time, has not slipped past anything."""
    local, _, remote, _ = flow
    return not (
        local.is_loopback
        or remote.is_loopback
        or (local.version == 6 and (local.is_link_local or remote.is_link_local))
    )


def _is_proxys(flow: FlowTuple) -> bool:
    return flow.mark is not None and flow.mark & MARK_MASK == PROXY_MARK
