"""Connections as a matrix wants them made, and what shows where they went. In the calling thread's namespace.

What shows it, in the order in which it is believed: a listener of ours on the proxy's port accepted the connection and
SO_ORIGINAL_DST names where it was going; conntrack's entry of the flow says what it was translated to. The owner of a
socket is who its thread acted as when the socket was made (xt_owner.c and nft_meta.c read the file's credentials), so
setfsuid(2) on the one thread is enough, and no child process is needed.
"""

import ctypes
import errno
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.kernel import conntrack
from agent.plan.rules import Protocol
from agent.pods import IPAddress
from agent.verify.matrix import Cell, Sender
from agent.verify.outcome import Seen, Untold
from proxy.api import stream
from proxy.api.constants import PROOF_PORT, PROXY_ZONE

WAIT_S: Final = 0.35
"""A connection that is led to a listener here is there within its own system call, one from outside some softirqs
later: 0.1 to 8 ms on two busy cores. What is lost waits so long, twice, and an address 1.2 s: two seconds in all."""
_LOOK_S: Final = 0.005
_AT_ONCE: Final = 64
"""As many as wait (the backlog of `open`): somebody who calls without end shall not keep us."""

_SO_MARK: Final = 36  # asm-generic/socket.h
_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number
_RESET: Final = struct.pack("@ii", 1, 0)  # struct linger: closing sends a reset and leaves nothing waiting
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_WILDCARDS: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 (what is redirected arrives at loopback or at any address)
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_REFUSED_HERE: Final = frozenset({errno.EPERM, errno.EACCES})
"""What a sender is told of a packet that a rule of its own OUTPUT drops (net/netfilter/core.c: nf_hook_slow)."""
_libc: Final = ctypes.CDLL(None, use_errno=True)
_NOBODY: Final = 0xFFFFFFFF  # -1: setfsuid(2) and setfsgid(2) change nothing and tell who it is now


class NotPermitted(Exception):
    """What the process may not do. The message names the capability."""


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """The calling thread makes files, and sockets, as this user and group. Raises NotPermitted."""
    own_uid, own_gid = _libc.setfsuid(_NOBODY), _libc.setfsgid(_NOBODY)
    try:
        _libc.setfsgid(gid)  # before the user: nobody but root may change it
        _libc.setfsuid(uid)
        if ctypes.c_uint(_libc.setfsgid(_NOBODY)).value != gid:
            raise NotPermitted(f"cannot act as group {gid}: needs CAP_SETGID")
        if ctypes.c_uint(_libc.setfsuid(_NOBODY)).value != uid:
            raise NotPermitted(f"cannot act as user {uid}: needs CAP_SETUID")
        yield
    finally:
        _libc.setfsuid(own_uid)
        _libc.setfsgid(own_gid)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What arrived at a listener of ours. `original`: address and port it was sent to, None when nobody remembers."""

    at: tuple[IPAddress, int]
    original: tuple[IPAddress, int] | None


class Listeners:
    """Ours, on the proxy's ports as far as these are free, and one as an application of each family."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._connections: list[socket.socket] = []
        self.ports: set[tuple[int, int, Protocol]] = set()
        """IP version, port, protocol."""
        self.accepted: dict[tuple[Protocol, tuple[IPAddress, int]], Accepted] = {}
        """By protocol and who opened it."""

    def open(self, version: int, port: int, protocol: Protocol = Protocol.TCP) -> int:
        """The port; 0: somebody else has it. Raises OSError for every other reason."""
        kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
        sock = socket.socket(_FAMILIES[version], kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if protocol is Protocol.TCP:  # over connections of the last one that wait for their end
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((_WILDCARDS[version], port))
            if protocol is Protocol.TCP:
                sock.listen(64)
        except OSError as error:
            sock.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return 0
            raise
        self._sockets.append(sock)
        port = sock.getsockname()[1]
        self.ports.add((version, port, protocol))
        return port

    def look(self, wait_s: float) -> None:
        """Takes in what has arrived, or arrives first within the time."""
        ready, _, _ = select.select(self._sockets, (), (), wait_s)
        for sock in ready:
            for _ in range(_AT_ONCE):
                try:
                    self._take(sock)
                except OSError:  # nothing more, or nothing more can be had
                    break

    def _take(self, sock: socket.socket) -> None:
        if sock.type == socket.SOCK_DGRAM:
            _, sender = sock.recvfrom(512)
            self.accepted[Protocol.UDP, _end(sender)] = Accepted(
                (ip_address(_WILDCARDS[4]), sock.getsockname()[1]), None
            )
            return
        connection, opener = sock.accept()
        self._connections.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.accepted[Protocol.TCP, _end(opener)] = Accepted(_end(connection.getsockname()), _original(connection))

    def forget(self) -> None:
        """What was accepted. After the openers have closed: of a connection that its acceptor resets, conntrack lends
        the translation to the next one with the same addresses and ports for ten seconds, whosever that is."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self.accepted.clear()

    def close(self) -> None:
        self.forget()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()


def _end(name: tuple[str, int] | tuple[str, int, int, int]) -> tuple[IPAddress, int]:
    return ip_address(name[0].partition("%")[0]), name[1]


def _original(connection: socket.socket) -> tuple[IPAddress, int] | None:
    level, size = (socket.SOL_IP, 16) if connection.family == socket.AF_INET else (socket.IPPROTO_IPV6, 28)
    try:
        raw = connection.getsockopt(level, _SO_ORIGINAL_DST, size)
    except OSError:
        return None
    address = raw[4:8] if connection.family == socket.AF_INET else raw[8:24]
    return ip_address(address), int.from_bytes(raw[2:4], "big")


@dataclass(slots=True)
class Flight:
    """A connection under way. `refused`: errno of the call that opened it, or of what came of it. `entry`: what
    conntrack said right after that call: an entry whose only answer is a reset is forgotten at once
    (nf_conntrack_proto_tcp.c)."""

    cell: Cell
    socket: socket.socket
    source: tuple[IPAddress, int]
    refused: int = 0
    entry: conntrack.Entry | None = None


def launch(cell: Cell, make: Callable[[Callable[[], Flight]], Flight]) -> Flight | Untold:
    """Opens it, as its sender would. `make` calls in the namespace that it starts from."""
    try:
        return make(lambda: _launch(cell))
    except NotPermitted as error:
        return Untold(str(error))
    except OSError as error:
        return Untold(f"{os.strerror(error.errno or errno.EIO)}: {cell.source} cannot be sent from")


def _launch(cell: Cell) -> Flight:
    tcp = cell.protocol is Protocol.TCP
    kind = (socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    family = _FAMILIES[cell.destination.version]
    if cell.sender is Sender.OUTSIDE:
        sock = socket.socket(family, kind)
    else:
        with acting_as(cell.uid, cell.gid):
            sock = socket.socket(family, kind)
    try:
        if cell.mark:
            _mark(sock, cell.mark)
        if tcp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.bind((str(cell.source), 0))
        refused = sock.connect_ex((str(cell.destination), cell.port))
        if not tcp and refused == 0:
            refused = _send(sock)
        return Flight(cell, sock, _end(sock.getsockname()), 0 if refused == errno.EINPROGRESS else refused)
    except BaseException:
        sock.close()
        raise


def _send(sock: socket.socket) -> int:
    try:
        # A query for the root's name servers (RFC 1035 4.1), should somebody answer: id 0, one question.
        sock.send(bytes.fromhex("00000100000100000000000000 0002 0001"))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _mark(sock: socket.socket, mark: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
    except PermissionError:
        raise NotPermitted("cannot mark a socket as the proxy's: needs CAP_NET_ADMIN or CAP_NET_RAW") from None


# ── What became of them ────────────────────────────────────────────────────────────────────────────────────────────
class Watcher:
    """Looks until each flight has told where it went, or the time is over."""

    def __init__(self, listeners: Listeners, wait_s: float = WAIT_S) -> None:
        self._listeners = listeners
        self._wait_s = wait_s
        self._readable = _conntrack_is_readable()
        self._tracked: set[int] = set()
        """IP versions that conntrack looks at: where no rule needs it, it is in no hook and knows nothing."""

    def note(self, flight: Flight) -> None:
        """Right after it was launched."""
        flight.entry = self._entry(flight)
        if flight.entry is not None:
            self._tracked.add(flight.cell.destination.version)

    def watch(self, flights: list[Flight]) -> dict[Cell, Seen | Untold]:
        deadline = time.monotonic() + self._wait_s
        seen: dict[Cell, Seen | Untold] = {}
        waiting = list(flights)
        while waiting:
            left_s = deadline - time.monotonic()
            self._listeners.look(max(0.0, min(left_s, _LOOK_S)))
            for flight in waiting:
                told = self._told(flight) or (self._at_last(flight) if left_s <= 0 else None)
                if told is not None:
                    seen[flight.cell] = told
            waiting = [flight for flight in waiting if flight.cell not in seen]
        return seen

    def _told(self, flight: Flight) -> Seen | Untold | None:
        """None: nothing yet."""
        accepted = self._listeners.accepted.get((flight.cell.protocol, flight.source))
        if accepted is not None:
            return _by_listener(flight.cell, accepted)
        if flight.refused in _NO_WAY:
            return Untold(f"{os.strerror(flight.refused)}: there is no way to {flight.cell.destination}")
        if flight.refused in _REFUSED_HERE:
            return Seen(lost=f"a rule of this namespace dropped it ({os.strerror(flight.refused)})")
        entry = flight.entry or self._entry(flight)
        if entry is None:
            return None
        port = entry.steered_to
        if port is not None and (flight.cell.destination.version, port, flight.cell.protocol) in self._listeners.ports:
            return None  # it will be accepted, and then tells more
        return Seen(port, "conntrack")

    def _at_last(self, flight: Flight) -> Seen | Untold:
        """The time is over."""
        entry = flight.entry or self._entry(flight)
        if entry is not None:
            return Seen(entry.steered_to, "conntrack")
        refused = flight.refused or flight.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if refused == errno.ECONNREFUSED and flight.cell.expected.captured is None and not self._listens(flight.cell):
            return Untold(f"refused: by {flight.cell.destination}, or by a port that it was led to")
        if refused == errno.ECONNREFUSED:
            return Seen(lost="refused: a rule rejected it, or led it to a port on which nobody listens")
        if flight.cell.destination.version in self._tracked:
            return Seen(lost="conntrack knows no such connection: a rule dropped it, or keeps it from being tracked")
        return self._without_conntrack(flight)

    def _listens(self, cell: Cell) -> bool:
        """Whether a listener of ours is where it was going."""
        own = cell.sender is Sender.OUTSIDE or cell.destination == cell.source
        return own and (cell.destination.version, cell.port, cell.protocol) in self._listeners.ports

    def _without_conntrack(self, flight: Flight) -> Seen | Untold:
        cell = flight.cell
        wanted = cell.expected.captured
        if wanted is None or (cell.destination.version, wanted, cell.protocol) in self._listeners.ports:
            return Seen(None, "no listener of the proxy's ports got it")
        if cell.port == PROOF_PORT and _proved(flight.socket):
            return Seen(wanted, "our own proxy said so")
        why = "is not in use here" if self._readable else "cannot be read: needs CAP_NET_ADMIN"
        return Untold(f"somebody holds port {wanted}, and conntrack {why}")

    def _entry(self, flight: Flight) -> conntrack.Entry | None:
        if not self._readable:
            return None
        cell = flight.cell
        original = conntrack.Tuple(*flight.source, cell.destination, cell.port)
        protocol = socket.IPPROTO_TCP if cell.protocol is Protocol.TCP else socket.IPPROTO_UDP
        zones = (PROXY_ZONE, 0) if cell.sender is Sender.PROXY else (0,)
        found = (conntrack.find(original, zone=zone, protocol=protocol) for zone in zones)
        return next((entry for entry in found if entry is not None), None)


def _by_listener(cell: Cell, accepted: Accepted) -> Seen:
    target = (cell.destination, cell.port)
    address, port = accepted.at
    if cell.protocol is Protocol.UDP:
        return Seen(None if port == cell.port else port, f"a listener on {port} got it")
    if accepted.at == target:
        return Seen(None, "accepted there")
    if accepted.original != target:
        there = "nothing" if accepted.original is None else f"{accepted.original[0]} port {accepted.original[1]}"
        return Seen(lost=f"accepted on port {port}, and SO_ORIGINAL_DST says {there}")
    return Seen(port, f"accepted at {address}, SO_ORIGINAL_DST is right")


def _proved(sock: socket.socket) -> bool:
    """Whether who accepted it is a proxy of ours: it answers so for whatever is led to it on the way to this port."""
    try:
        sock.settimeout(WAIT_S)
        sock.sendall(stream.encode_proof_request(secrets.token_hex(stream.NONCE_DIGITS // 2)))
        return sock.recv(len(stream.PROOF_ANSWER)) == stream.PROOF_ANSWER
    except OSError:
        return False


def _conntrack_is_readable() -> bool:
    nobody = ip_address("192.0.2.1")
    try:
        conntrack.find(conntrack.Tuple(nobody, 1, nobody, 1))
    except OSError:
        return False
    return True
