"""A pod's listening sockets, made inside its network namespace and kept by the supervisor across workers."""

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROXY_MARK
from proxy.datapath.netns import Entry, netns_cookie
from proxy.errors import CannotServe, printable
from proxy.model.direction import Direction
from proxy.workerlink import ListenerKind

BACKLOG: Final = 4096
"""The kernel's own ceiling (net.core.somaxconn, 4096 since Linux 5.4). At 128 the 130th connection hangs while a worker
is being replaced."""

PORTS: Final = ((Direction.OUTBOUND, OUTBOUND_PORT), (Direction.INBOUND, INBOUND_PORT))
ORDER: Final = {
    ListenerKind(direction, family): 10 * i + family for i, (direction, _) in enumerate(PORTS) for family in (4, 6)
}
"""In which order a pod's listeners are told to others."""

_IPV6_TRANSPARENT: Final = 75
"""include/uapi/linux/in6.h; Python names only the IPv4 one."""

_TCP_LISTEN: Final = "0A"
"""State column of /proc/net/tcp (include/net/tcp_states.h)."""


class PortTaken(Exception):
    """Something listens on a port of ours already. `inodes` are the sockets of the namespace that hold it."""

    def __init__(self, port: int, family: int, inodes: frozenset[int]) -> None:
        super().__init__(port, family, inodes)
        self.port = port
        self.family = family
        self.inodes = inodes


@dataclass(frozen=True, slots=True)
class PodListeners:
    """All listeners of a pod, in the order of `kinds`; `close` closes every one."""

    kinds: tuple[ListenerKind, ...]
    sockets: tuple[socket.socket, ...]
    netns_cookie: int

    def close(self) -> None:
        for listener in self.sockets:
            listener.close()


Inherited = Mapping[ListenerKind, socket.socket]
"""Listeners of a pod that another proxy opened."""
_NONE: Final[Inherited] = MappingProxyType({})


def open_listeners(
    entry: Entry,
    netns_fd: int,
    inherited: Inherited = _NONE,
    *,
    name_takers: bool = True,
    marks: bool = True,
) -> PodListeners:
    """Bind and listen on both ports, IPv4 and (where the kernel has it) IPv6; all or nothing.

    Those that are `inherited` are taken over as they are: all end up in the result, or are closed. REDIRECT leads to
    the loopback address in OUTPUT and to the interface's own in PREROUTING, hence the wildcard. Synchronous, some
    100 µs. Raises PortTaken, or CannotServe. Who has taken a port is told with `name_takers`: the connections of the
    whole machine are gone through for it. With `marks` they carry PROXY_MARK, which needs CAP_NET_ADMIN.
    """
    opened: list[tuple[ListenerKind, socket.socket]] = list(inherited.items())
    try:
        with entry.enter(netns_fd):
            for direction, port in PORTS:
                for family in (4, 6):
                    kind = ListenerKind(direction, family)
                    if kind not in inherited and (listener := _listen(kind, port, name_takers, marks)) is not None:
                        opened.append((kind, listener))
    except PortTaken:
        _close_all(opened)
        raise
    except OSError as error:
        _close_all(opened)
        raise CannotServe(f"listeners cannot be opened in the pod's network namespace: {error}") from error
    opened.sort(key=lambda listener: ORDER[listener[0]])
    cookie = netns_cookie(opened[0][1])
    return PodListeners(tuple(kind for kind, _ in opened), tuple(sock for _, sock in opened), cookie)


def cookie_of(entry: Entry, netns_fd: int) -> int:
    """SO_NETNS_COOKIE of the namespace. Raises OSError when it cannot be entered."""
    with entry.enter(netns_fd), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        return netns_cookie(sock)


def recognise(descriptors: Iterable[int], cookie: int) -> dict[ListenerKind, socket.socket]:
    """Which of a pod's listeners these are, asked of the kernel. Takes the descriptors over.

    All are closed and none returned when one of them is no listener of ours in the namespace with this cookie.
    """
    found: dict[ListenerKind, socket.socket] = {}
    strange = False
    for descriptor in descriptors:
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            strange = True
            continue
        kind = _kind_of(sock, cookie)
        if kind is None or kind in found:
            sock.close()
            strange = True
        else:
            sock.setblocking(False)
            found[kind] = sock
    if strange:
        _close_all(list(found.items()))
        return {}
    return found


def _kind_of(sock: socket.socket, cookie: int) -> ListenerKind | None:
    family = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(sock.family)
    if family is None or sock.type != socket.SOCK_STREAM:
        return None
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or netns_cookie(sock) != cookie:
        return None
    port = sock.getsockname()[1]
    direction = next((direction for direction, ours in PORTS if ours == port), None)
    return None if direction is None else ListenerKind(direction, family)


def _close_all(opened: list[tuple[ListenerKind, socket.socket]]) -> None:
    for _, listener in opened:
        listener.close()


def _listen(kind: ListenerKind, port: int, name_takers: bool, marks: bool) -> socket.socket | None:
    """None when the kernel has no IPv6 at all. A namespace whose IPv6 is only switched off gets its listener: it may be
    switched on later, and the rules cover both families from the start."""
    family = kind.family
    try:
        listener = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        if family == 6 and error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        _prepare(listener, family, marks)
        listener.bind(("0.0.0.0" if family == 4 else "::", port))  # noqa: S104 - see open_listeners
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(port, family, _holders(port) if name_takers else frozenset()) from error
        raise
    except BaseException:
        listener.close()
        raise
    return listener


def _prepare(listener: socket.socket, family: int, marks: bool) -> None:
    """Options that accepted sockets inherit: set here once, they cost nothing a connection."""
    listener.setblocking(False)
    # Connections of a former proxy in TIME_WAIT must not hold the port. Never SO_REUSEPORT: it would hide a listener
    # of the application, and a worker that dies would reset its share of the queue.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if marks:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if family == 6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    with suppress(OSError):
        # Best effort as in ztunnel: REDIRECT works without, only a TPROXY rule of another tool would need it.
        if family == 4:
            listener.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)


def _holders(port: int) -> frozenset[int]:
    """Inodes of the listening sockets on a port in the namespace that the calling thread is in (proc(5))."""
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _TCP_LISTEN and int(columns[1].rsplit(":", 1)[1], 16) == port:
                    found.add(int(columns[9]))
    return frozenset(found)


def name_holders(inodes: frozenset[int]) -> str:
    """`pid 12 (nginx), pid 13 (nginx)` of the processes with one of these sockets open; "" when none can be found.

    Reads /proc/*/fd of every process: tens of milliseconds on a full node, so never on the event loop.
    """
    wanted = {f"socket:[{inode}]" for inode in inodes}
    holders = []
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            if any(_link_of(descriptor) in wanted for descriptor in (process / "fd").iterdir()):
                holders.append(f"pid {process.name} ({printable((process / 'comm').read_text().strip(), 40)})")
    return ", ".join(holders[:4])


def _link_of(descriptor: Path) -> str:
    with suppress(OSError):
        return str(descriptor.readlink())
    return ""


def port_taken_message(taken: PortTaken, holders: str) -> str:
    """The nack's text: what, where, who, and the remedy."""
    who = holders or "a socket whose process cannot be seen from here"
    return (
        f"port {taken.port}/tcp{taken.family} is already taken in the pod by {who}: headgate needs it to listen on; "
        f"move that application to another port, or leave the pod out with the label headgate.io/mesh=disabled"
    )
