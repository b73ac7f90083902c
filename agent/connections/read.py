"""What a namespace itself tells of its connections. Blocking; called on a thread that is inside it."""

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from agent.connections.reasons import Known, Reasons, waits
from agent.connections.values import Connection, Reason
from agent.explain.interpret import explain
from agent.explain.tables import Ruleset
from agent.kernel import flow_table, nft, socket_table
from agent.kernel.flow_table import Flow
from agent.kernel.iproute import read_interface_addresses
from agent.kernel.refused import KernelRefused
from agent.kernel.socket_table import HeldSocket
from agent.kernel.surroundings import KernelSurroundings
from agent.plan import FlowKey
from agent.plan.render.nft import REPLANNED, SLIPPED, set_names
from agent.pods import IPAddress
from agent.ruleset import whole

T = TypeVar("T")

JUDGING_S: Final = 2.0
"""For asking the rules of one namespace, each time that they are read: who waits for the answer is a person."""
_REMEMBERED: Final = {SLIPPED: Reason.DRIFT, REPLANNED: Reason.RULES_CHANGED}


@dataclass(frozen=True, slots=True)
class Reading:
    """`remembered`: what the sets of `inet headgate` say of connections outside the mesh, by socket. `interfaces`: by
    address. `netns_cookie` None: the kernel is older than Linux 5.14. `problems`: what could not be read, and why."""

    tcp: tuple[HeldSocket, ...]
    udp: tuple[HeldSocket, ...]
    flows: tuple[Flow, ...]
    remembered: dict[FlowKey, Reason]
    interfaces: dict[IPAddress, str]
    netns_cookie: int | None
    problems: tuple[str, ...] = ()


def reading() -> Reading:
    """Raises OSError when not even the sockets can be read."""
    problems: list[str] = []
    tcp, udp = socket_table.tcp_sockets(), socket_table.udp_sockets()
    no_flows: tuple[Flow, ...] = ()
    flows = _tried("conntrack", flow_table.flows, no_flows, problems)
    remembered = _tried("the sets of inet headgate", _remembered, dict[FlowKey, Reason](), problems)
    interfaces = _tried("addresses", _interfaces, dict[IPAddress, str](), problems)
    return Reading(tcp, udp, flows, remembered, interfaces, _cookie(), tuple(problems))


def without_ended(former: Reading) -> Reading:
    """As it was, less what has ended since. Raises OSError."""
    living = {(held.local, held.local_port, held.remote, held.remote_port) for held in socket_table.tcp_sockets()}
    left = (held for held in former.tcp if (held.local, held.local_port, held.remote, held.remote_port) in living)
    return replace(former, tcp=tuple(left))


def explained(connections: list[Connection], former: Reading) -> tuple[list[Connection], tuple[str, ...]]:
    """Those that go direct with their reasons; and what hindered finding them. The rules are read only if they are
    asked."""
    known = Known(former.remembered, former.interfaces)
    waiting = [one for one in connections if waits(one)]
    if not waiting:
        return connections, ()
    others = [one for one in connections if not waits(one)]
    problems: list[str] = []

    def with_rules(ruleset: Ruleset) -> list[Connection]:
        surroundings = KernelSurroundings()
        until_s = time.monotonic() + JUDGING_S
        reasons = Reasons(
            known, lambda packet: explain(ruleset, packet, surroundings), lambda: time.monotonic() < until_s
        )
        told = [reasons.explained(one) for one in waiting]
        problems[:] = [f"rules: {unread}" for unread in ruleset.unread]
        if reasons.unjudged:
            problems.append(f"{reasons.unjudged} connections have no reason: too many to ask the rules about")
        return told

    try:
        told = whole.settled(with_rules)
    except (OSError, KernelRefused) as error:
        problems[:] = [_refusal("the rules", error)]
        reasons = Reasons(known, None)
        told = [reasons.explained(one) for one in waiting]
    return [*others, *told], tuple(problems)


def _remembered() -> dict[FlowKey, Reason]:
    found: dict[FlowKey, Reason] = {}
    for name in set_names():
        for flow, comment in (nft.connections(name) or {}).items():
            found[flow] = _REMEMBERED.get(comment, Reason.GRANDFATHERED)
    return found


def _interfaces() -> dict[IPAddress, str]:
    names: dict[IPAddress, str] = {}
    for found in read_interface_addresses():
        try:
            names[found.address] = socket.if_indextoname(found.interface)
        except OSError:  # it went meanwhile
            continue
    return names


def _cookie() -> int | None:
    try:
        return socket_table.netns_cookie()
    except OSError:
        return None


def _tried(what: str, read: Callable[[], T], nothing: T, problems: list[str]) -> T:
    try:
        return read()
    except (OSError, KernelRefused) as error:
        problems.append(_refusal(what, error))
        return nothing


def _refusal(what: str, error: Exception) -> str:
    needs = isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES)
    return f"{what} could not be read: {error}{'; needs CAP_NET_ADMIN in the namespace' if needs else ''}"
