"""A look of one's own into a pod's network namespace: what is there, without a word of the agent's. Blocking; changes
nothing."""

import errno
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

from agent.kernel import conntrack, iproute, sock_diag
from agent.kernel.netns import NetnsRefused, host_netns_id, open_netns
from agent.kernel.node_proc import node_proc
from agent.kernel.refused import KernelRefused
from agent.kernel.scratch import inside
from agent.kernel.sock_diag import Listener
from agent.kernel.socket_owners import owner_of
from agent.plan import PlanSettings
from agent.pods import IPAddress
from agent.ruleset.conflicts import conflicts
from agent.ruleset.inventory import Inventory
from agent.ruleset.read import inventory
from agent.why.facts import Loopback, Netns, NoNetns, Ours, PortHeld, Table, Unknown, Unopened
from agent.why.led import led
from proxy.api.constants import PROXY_PORTS

T = TypeVar("T")

_IPV6_OFF: Final = tuple(Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") for name in ("all", "lo"))
_HOME: Final = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
_CAPTURES: Final = ("out-capture", "in-capture")
"""How the ids of the rules begin that lead to the proxy (agent.plan.rules)."""
_WHOLE_FAMILY: Final = 2  # a rule and a route of the return path
_FULL_BUT: Final = 1000
"""Entries end all the time: a table that lacks a thousandth of its limit was full a moment ago, or will be."""
_NEEDS: Final = "CAP_NET_ADMIN is needed there"


def look(path: str, own_addresses: Iterable[IPAddress] = ()) -> Netns | NoNetns:
    """At the namespace behind `path`. `own_addresses`: the pod's, where they are known. Never raises for what is there
    or not there."""
    try:
        with open_netns(path, allow_own=True) as netns:
            own = netns.id == host_netns_id()
            return inside(netns.fd, _seen, path, str(netns.id), own, tuple(own_addresses))
    except FileNotFoundError:
        return NoNetns(Unopened.MISSING, path)
    except NetnsRefused as error:
        return NoNetns(Unopened.NO_NETNS, path, error.reason)
    except OSError as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        kind = Unopened.DENIED if denied else Unopened.NO_NETNS
        return NoNetns(kind, path, error.strerror or str(error))


def _seen(path: str, identity: str, own: bool, pods: tuple[IPAddress, ...]) -> Netns:
    settings = PlanSettings()
    addresses = iproute.read_addresses()
    held = _known(inventory)
    return Netns(
        path,
        identity,
        own,
        tuple(dict.fromkeys(addresses)),
        _loopback(addresses),
        tuple(_held(listener, settings) for listener in _listeners()),
        held if isinstance(held, Unknown) else _known(lambda: _ours(held, settings)),
        _known(_table),
        () if isinstance(held, Unknown) else conflicts(held),
        _known(lambda: led(path, pods)),
    )


def _known(read: Callable[[], T]) -> T | Unknown:
    try:
        return read()
    except PermissionError as error:
        return Unknown(f"{error.strerror or error}; {_NEEDS}")
    except (KernelRefused, OSError) as error:
        return Unknown(str(error))


def _loopback(addresses: tuple[IPAddress, ...]) -> Loopback:
    has = {version: home in addresses for version, home in _HOME.items()}
    return Loopback(iproute.loopback_is_up(), has[4], has[6], any(map(_is_on, _IPV6_OFF)))


def _is_on(switch: Path) -> bool:
    """/proc/sys/net shows the reading thread's namespace (proc_sysctl.c: net_ctl_header_lookup)."""
    try:
        return switch.read_text().strip() != "0"
    except FileNotFoundError:  # a kernel without IPv6
        return True


def _listeners() -> list[Listener]:
    return sorted(
        (listener for listener in sock_diag.listeners() if listener.port in PROXY_PORTS),
        key=lambda listener: (listener.port, str(listener.address)),
    )


def _held(listener: Listener, settings: PlanSettings) -> PortHeld:
    if listener.mark is None:
        return PortHeld(listener.port, None)
    if listener.mark & settings.mark_mask == settings.proxy_mark:
        return PortHeld(listener.port, marked=True)
    owner = owner_of(listener, node_proc())
    return PortHeld(listener.port, False, owner.pid if owner else 0, owner.command if owner else "")


def _ours(held: Inventory, settings: PlanSettings) -> Ours:
    path = settings.return_path
    missing = iproute.missing_return_path(path)
    backends = tuple(dict.fromkeys(table.tool.value for table in held.ours))
    steers = all(any(rule.startswith(name) for rule in held.rule_ids) for name in _CAPTURES)
    gone = len(missing) in (_WHOLE_FAMILY, _WHOLE_FAMILY * len(path.families))
    words = tuple(f"the {part.value} of the way back is gone ({family.value})" for part, family in missing)
    return Ours(backends, steers, words, nothing=not backends and gone)


def _table() -> Table:
    found = conntrack.table()
    return Table(found.entries, found.limit, 0 < found.limit <= found.entries + found.limit // _FULL_BUT)
