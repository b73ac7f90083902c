"""The agent's side of fds.sock: keeps each pod's listening sockets while the proxy is replaced or has died.

What survives the proxy's death is the listener with its queue and the SYNs on their way; clients wait instead of being
refused. Not for ever: without a proxy for `park_timeout_s` everything is closed, and clients are refused at once.

An istio-cni has no such socket and a ztunnel never connects to it: neither side needs it to work.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.handoff import boxes
from agent.handoff.listening import Listening, listen, peer_is_trusted
from agent.printable import printable
from proxy.api import fd_box, stream, zds
from proxy.api.stream import BoxFound, Deposit, NoBox, Refused, Stored, StoreHello, StoreMessage, Take

_log: Final = logging.getLogger("headgate.fds")

MAX_BOXES: Final = 1024
"""Four times the pods that a node is planned for (250): a proxy in a loop must not eat the agent's descriptors."""
_PER_PACKET: Final = 4
"""Descriptors received at once: one belongs there, more are seen and closed rather than cut off."""


@dataclass(frozen=True, slots=True)
class _Kept:
    netns_cookie: int
    box: socket.socket


class _Peer:
    """One proxy on fds.sock. `greeted`: it has said hello; `serves`: and is not ending."""

    __slots__ = ("greeted", "serves", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.greeted = False
        self.serves = False


class FdStore:
    """Serves fds.sock on the running event loop.

    `knows` tells of a uid whether such a pod is to be served; `on_parked` hears whose listeners were closed because no
    proxy came. Both are called on the event loop and must not block.
    """

    def __init__(
        self, park_timeout_s: float, knows: Callable[[str], bool], on_parked: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._park_timeout_s = park_timeout_s
        self._knows = knows
        self._on_parked = on_parked
        self._cookies: dict[str, int] = {}
        self._listening: Listening | None = None
        self._peers: set[_Peer] = set()
        self._kept: dict[str, _Kept] = {}
        self._parking: asyncio.TimerHandle | None = None

    @property
    def uids(self) -> frozenset[str]:
        """The pods whose listeners are kept."""
        return frozenset(self._kept)

    def start(self, path: str | Path) -> None:
        """Listens at `path`. Raises SocketTaken when another agent does, OSError when the directory cannot be used."""
        self._listening = listen(Path(path), socket.SOCK_SEQPACKET)
        asyncio.get_running_loop().add_reader(self._listening.socket.fileno(), self._accept)

    def expect(self, uid: str, netns_cookie: int) -> None:
        """The agent has been in the pod's namespace and knows its cookie: listeners of another one are not kept."""
        self._cookies[uid] = netns_cookie
        kept = self._kept.get(uid)
        if kept is not None and kept.netns_cookie != netns_cookie:
            self._discard(uid)

    def drop(self, uid: str) -> None:
        """The pod is gone or leaves the mesh: nothing of its namespace is held any more, by whoever holds its box.
        Unknown ones are no error."""
        self._cookies.pop(uid, None)
        self._discard(uid)

    def _discard(self, uid: str) -> None:
        kept = self._kept.pop(uid, None)
        if kept is not None:
            fd_box.empty(kept.box)
            kept.box.close()

    def close(self) -> None:
        """Stops listening and sends every proxy away. The boxes are not emptied: a proxy that lives has them too, and
        the next agent gets them from it."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        asyncio.get_running_loop().remove_reader(listening.socket.fileno())
        listening.close()
        for peer in tuple(self._peers):
            self._send_away(peer, "the agent stops")
        if self._parking is not None:
            self._parking.cancel()
            self._parking = None
        for kept in self._kept.values():
            kept.box.close()
        self._kept.clear()

    # ── Proxies come and go ────────────────────────────────────────────────────────────────────────────────────────
    def _accept(self) -> None:
        assert self._listening is not None
        try:
            sock, _ = self._listening.socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("cannot accept a proxy on fds.sock: %s; raise the limit of open files", error.strerror)
            self._pause()
            return
        if not peer_is_trusted(sock):
            _log.warning("a process of another user connected to fds.sock; sent away")
            sock.close()
            return
        sock.setblocking(False)
        peer = _Peer(sock)
        self._peers.add(peer)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable, peer)

    def _pause(self) -> None:
        """An exhausted descriptor table would make accepting a busy loop."""
        assert self._listening is not None
        loop, listener = asyncio.get_running_loop(), self._listening.socket
        loop.remove_reader(listener.fileno())
        loop.call_later(
            zds.REQUEST_TIMEOUT_S,
            lambda: listener.fileno() >= 0 and loop.add_reader(listener.fileno(), self._accept),
        )

    def _send_away(self, peer: _Peer, reason: str) -> None:
        if peer not in self._peers:
            return
        self._peers.discard(peer)
        asyncio.get_running_loop().remove_reader(peer.socket.fileno())
        peer.socket.close()
        _log.info("proxy disconnected from fds.sock: %s", printable(reason))
        self._set_timer()

    def _set_timer(self) -> None:
        """The time-out runs while something is kept and nobody serves."""
        waits = bool(self._kept) and not any(peer.serves for peer in self._peers) and self._listening is not None
        if waits and self._parking is None:
            self._parking = asyncio.get_running_loop().call_later(self._park_timeout_s, self._park)
        elif not waits and self._parking is not None:
            self._parking.cancel()
            self._parking = None

    def _park(self) -> None:
        self._parking = None
        uids = tuple(self._kept)
        for uid in uids:
            self._discard(uid)
        if uids:
            _log.warning(
                "no proxy for %g s: the listeners of %d pods are closed, new connections of and to them are refused; "
                "start the proxy",
                self._park_timeout_s,
                len(uids),
            )
            self._on_parked(uids)

    # ── What they say ──────────────────────────────────────────────────────────────────────────────────────────────
    def _readable(self, peer: _Peer) -> None:
        try:
            packet = zds.receive(peer.socket, stream.MAX_STORE_PACKET_BYTES, _PER_PACKET)
            if not packet.data:
                packet.close()
                self._send_away(peer, "it closed the connection")
                return
            self._hear(peer, packet)
        except BlockingIOError:
            return
        except (OSError, zds.ProtocolError, stream.InvalidMessage) as error:
            self._send_away(peer, str(error))

    def _hear(self, peer: _Peer, packet: zds.Packet) -> None:
        box: socket.socket | None = None
        try:
            message = stream.decode_store(packet.data)
            if len(packet.descriptors) != isinstance(message, Deposit):
                raise stream.InvalidMessage(f"{type(message).__name__} with {len(packet.descriptors)} descriptors")
            if not peer.greeted and not isinstance(message, StoreHello):
                raise stream.InvalidMessage("the first message is no hello")
        except stream.InvalidMessage:
            packet.close()
            raise
        match message:
            case StoreHello(serves):
                peer.greeted, peer.serves = True, serves
                self._set_timer()
                self._answer(peer, StoreHello())
            case Deposit():
                self._answer(peer, self._store(peer, message, packet))
                self._set_timer()
            case Take(uid):
                answer, box = self._lend(uid)
                self._answer(peer, answer, box)
            case _:
                raise stream.InvalidMessage(f"{type(message).__name__} is the agent's to say")

    def _store(self, peer: _Peer, deposit: Deposit, packet: zds.Packet) -> StoreMessage:
        kept = self._kept.get(deposit.uid)
        if kept is not None and kept.netns_cookie == deposit.netns_cookie and not peer.serves:
            # Of one that is ending: what its successor has deposited may be more complete.
            packet.close()
            return Stored()
        reason = self._objection(deposit)
        if reason:
            packet.close()
            return self._refuse(deposit, reason)
        try:
            box = socket.socket(fileno=packet.descriptors[0])
        except OSError as error:
            packet.close()
            return self._refuse(deposit, f"its box is no socket: {error.strerror}")
        try:
            boxes.check(box, deposit.uid, deposit.netns_cookie)
        except boxes.NotABox as error:
            box.close()
            return self._refuse(deposit, f"its box is not what it must be: {error}")
        self._replace(deposit.uid, _Kept(deposit.netns_cookie, box))
        return Stored()

    def _objection(self, deposit: Deposit) -> str:
        if not self._knows(deposit.uid):
            return "no such pod is known"
        if self._cookies.get(deposit.uid, deposit.netns_cookie) != deposit.netns_cookie:
            return "the pod has another network namespace by now"
        if len(self._kept) >= MAX_BOXES and deposit.uid not in self._kept:
            return f"{MAX_BOXES} pods' listeners are kept already"
        return ""

    def _refuse(self, deposit: Deposit, reason: str) -> Refused:
        _log.warning("listeners of pod %s are not kept: %s", printable(deposit.uid), printable(reason))
        return Refused(printable(reason))

    def _replace(self, uid: str, kept: _Kept) -> None:
        former = self._kept.get(uid)
        if former is not None and boxes.same(former.box, kept.box):
            former.box.close()
            self._kept[uid] = kept
            return
        self._discard(uid)
        self._kept[uid] = kept

    def _lend(self, uid: str) -> tuple[StoreMessage, socket.socket | None]:
        kept = self._kept.get(uid)
        if kept is None:
            return NoBox(), None
        try:
            boxes.check(kept.box, uid, kept.netns_cookie)
        except boxes.NotABox:
            # A proxy has emptied it: the pod was gone for that one.
            self._discard(uid)
            return NoBox(), None
        return BoxFound(uid, kept.netns_cookie), kept.box

    def _answer(self, peer: _Peer, message: StoreMessage, box: socket.socket | None = None) -> None:
        try:
            zds.send(peer.socket, stream.encode_store(message), () if box is None else (box.fileno(),))
        except BlockingIOError:
            self._send_away(peer, "it does not read its socket")
