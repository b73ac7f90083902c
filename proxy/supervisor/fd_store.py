"""The proxy's side of fds.sock: deposits each pod's listeners with the agent, and gets those of a former proxy back.

The agent may be another one (istio-cni has no such socket), away, or stopped: then pods are served without, and nothing
waits for it longer than ANSWER_S.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.api import fd_box, stream, zds
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT
from proxy.api.stream import BoxedListener, BoxFound, BoxFrame, Deposit, Refused, StoreHello, StoreMessage, Take
from proxy.errors import printable
from proxy.model.direction import Direction
from proxy.supervisor.listeners import PodListeners

_log = logging.getLogger(__name__)

ANSWER_S: Final = 1.0
"""The agent answers between two turns of its loop. Less than the 5 s that it waits for a pod's acknowledgement
(zds.REQUEST_TIMEOUT_S), so that a stopped store does not make a pod fail."""
LOOK_EVERY_S: Final = 0.5
"""How long an agent that was restarted is without the listeners at worst: below the 2 s that a successor asks for them.
One system call each."""
OFFER_AGAIN_S: Final = 5.0
"""A refused deposit is offered again, as the agent announces a refused pod again: it may not have known the pod yet."""

UNANSWERED: Final = 32
"""Deposits on their way at once: a quarter of what a Unix socket takes in unread (212,992 bytes, some 1,700 each)."""

_PORTS: Final = {Direction.OUTBOUND: OUTBOUND_PORT, Direction.INBOUND: INBOUND_PORT}


Answer = tuple[StoreMessage, Sequence[int]]
"""With its descriptors, the receiver's."""


class _NoStore(Exception):
    """No agent answers on fds.sock; the text says why."""


@dataclass(slots=True)
class _Deposited:
    """A pod whose listeners the agent is to keep. `offered`: they are on their way, or there; `stored`: it said so."""

    listeners: PodListeners
    box: socket.socket | None
    offered: bool = False
    stored: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    """Sent, and not answered yet. `settle` is told the answer at once, before anything else is read."""

    answer: asyncio.Future[Answer]
    asked_s: float
    settle: Callable[[StoreMessage], None] | None = None


class FdStore:
    """What the agent keeps for us. `on_connected` is called when an agent was reached (again)."""

    def __init__(self, path: Path, on_connected: Callable[[], None]) -> None:
        self._path = path
        self._on_connected = on_connected
        self._socket: socket.socket | None = None
        self._turn = asyncio.Lock()
        self._asked: deque[_Question] = deque()
        self._pods: dict[str, _Deposited] = {}
        self._serves = True
        self._said = ""

    @property
    def connected(self) -> bool:
        """An agent was there when last looked at."""
        return self._socket is not None

    @property
    def stored(self) -> int:
        """Pods whose listeners outlive this proxy."""
        return sum(pod.stored for pod in self._pods.values())

    async def run(self) -> None:
        """Keeps the connection, and every pod's deposit behind it, until cancelled."""
        loop = asyncio.get_running_loop()
        offered_s = 0.0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._notice_end()
            if self._asked and loop.time() - self._asked[0].asked_s > ANSWER_S:
                self._fail(f"no answer within {ANSWER_S:g} s")
            again = loop.time() - offered_s >= OFFER_AGAIN_S
            if self._socket is None or again:
                offered_s = loop.time()
                with suppress(_NoStore):
                    async with self._turn:
                        await self._connect()
                        await self._deposit_owed()

    # ── A pod's listeners ──────────────────────────────────────────────────────────────────────────────────────────
    async def take(self, uid: str) -> socket.socket | None:
        """The box that the agent keeps for a pod, now the caller's; None when it has none or does not answer."""
        try:
            async with self._turn:
                await self._connect()
                question = self._send(Take(uid))
            answer, descriptors = await self._answered(question)
        except _NoStore:
            return None
        if not descriptors:
            return None
        box = socket.socket(fileno=descriptors[0])
        zds.close_all(descriptors[1:])
        if not isinstance(answer, BoxFound) or answer.uid != uid:
            box.close()
            return None
        box.setblocking(False)
        return box

    async def keep(self, uid: str, listeners: PodListeners, box: socket.socket | None = None) -> None:
        """From now on the agent is to have these listeners; `box` is the one that holds exactly them, if it came from
        there. Returns when they are on their way, which our death does not undo: what a Unix socket has taken in is
        read after its sender's end. Where the agent cannot be reached they go as soon as it can."""
        self.abandon(uid)
        pod = self._pods[uid] = _Deposited(listeners, box, offered=box is not None, stored=box is not None)
        if box is None:
            with suppress(_NoStore):
                async with self._turn:
                    await self._connect()
                    if not pod.offered and self._pods.get(uid) is pod:
                        await self._deposit(uid, pod)

    def release(self, uid: str) -> None:
        """The pod is gone: whatever the agent keeps of it is closed, even if the agent is stopped."""
        pod = self._pods.pop(uid, None)
        if pod is not None and pod.box is not None:
            fd_box.empty(pod.box)
            pod.box.close()

    def abandon(self, uid: str) -> None:
        """No longer served by us; what the agent keeps stays for another proxy."""
        pod = self._pods.pop(uid, None)
        if pod is not None and pod.box is not None:
            pod.box.close()

    def leave(self) -> None:
        """Another proxy takes over, or none for a while: the agent counts this one no more. What it keeps stays, and an
        agent that is restarted until our end gets it from us: nobody else may have it."""
        self._serves = False
        self._hang_up()

    def close(self) -> None:
        self._hang_up()
        for uid in tuple(self._pods):
            self.abandon(uid)

    # ── The connection ─────────────────────────────────────────────────────────────────────────────────────────────
    async def _connect(self) -> None:
        """Raises _NoStore. What an agent that has just come does not have yet is deposited before anything is asked."""
        self._notice_end()
        if self._socket is not None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            sock.connect(str(self._path))
        except OSError as error:
            sock.close()
            raise _NoStore(error.strerror or str(error)) from error
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._readable)
        await self._answered(self._send(StoreHello(self._serves)))
        _log.info("connected to the agent's store of listeners on %s", self._path)
        self._said = ""
        self._on_connected()
        await self._deposit_owed()

    async def _deposit_owed(self) -> None:
        for uid, pod in list(self._pods.items()):
            if not pod.offered and self._pods.get(uid) is pod:
                await self._deposit(uid, pod)

    async def _deposit(self, uid: str, pod: _Deposited) -> None:
        """Raises _NoStore. The answer is waited for only where too many are outstanding."""
        if pod.box is not None and _is_empty(pod.box):
            pod.box.close()
            pod.box = None
        if pod.box is None and not self._serves:
            return  # emptied, and our own copies are closed: there is nothing to keep
        if pod.box is None:
            try:
                pod.box = _box_of(uid, pod.listeners)
            except OSError as error:
                self._say(f"pod {printable(uid)}: its listeners cannot be put in a message: {error.strerror}; run the "
                          "proxy as root, or raise its limit of open files")  # fmt: skip
                return

        def settle(answer: StoreMessage) -> None:
            pod.offered = pod.stored = not isinstance(answer, Refused)
            if isinstance(answer, Refused):
                self._say(f"the agent does not keep the listeners of pod {printable(uid)}: {printable(answer.reason)}")

        self._send(Deposit(uid, pod.listeners.netns_cookie), pod.box, settle)
        pod.offered = True
        if len(self._asked) > UNANSWERED:
            await self._answered(self._asked[0])

    # ── Questions and answers ──────────────────────────────────────────────────────────────────────────────────────
    def _send(
        self,
        message: StoreMessage,
        box: socket.socket | None = None,
        settle: Callable[[StoreMessage], None] | None = None,
    ) -> _Question:
        """Answers come in the order of the questions. Raises _NoStore."""
        if self._socket is None:
            raise _NoStore("not connected")
        try:
            zds.send(self._socket, stream.encode_store(message), () if box is None else (box.fileno(),))
        except OSError as error:
            raise self._fail(error.strerror or str(error)) from error
        loop = asyncio.get_running_loop()
        question = _Question(loop.create_future(), loop.time(), settle)
        self._asked.append(question)
        return question

    async def _answered(self, question: _Question) -> Answer:
        """Raises _NoStore; then the connection is closed, since a late answer would be taken for another's."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.shield(question.answer)
        except TimeoutError:
            raise self._fail(f"no answer within {ANSWER_S:g} s") from None
        except asyncio.CancelledError:
            if not question.answer.cancel() and question.answer.exception() is None:
                zds.close_all(question.answer.result()[1])
            raise

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            packet = zds.receive(self._socket, stream.MAX_STORE_PACKET_BYTES)
        except BlockingIOError:
            return
        except (OSError, zds.ProtocolError) as error:
            self._fail(str(error))
            return
        if not packet.data:
            packet.close()
            self._hang_up(_NoStore("the agent closed the connection"))
            return
        try:
            if not self._asked:
                raise stream.InvalidMessage("an answer that nobody asked for")
            message = stream.decode_store(packet.data)
        except stream.InvalidMessage as error:
            packet.close()
            self._fail(str(error))
            return
        self._settle(self._asked.popleft(), message, packet)

    def _settle(self, question: _Question, message: StoreMessage, packet: zds.Packet) -> None:
        descriptors = packet.descriptors
        if question.settle is not None:
            question.settle(message)
        if question.settle is not None or question.answer.done():  # a deposit's, or nobody's any more
            packet.close()
            descriptors = ()
        if not question.answer.done():
            question.answer.set_result((message, descriptors))

    def _fail(self, reason: str) -> _NoStore:
        """The connection is of no use any more; said, and told to all who wait."""
        gone = _NoStore(printable(reason))
        self._say(f"the agent's store of listeners on {self._path}: {gone}")
        self._hang_up(gone)
        return gone

    def _notice_end(self) -> None:
        """An agent that has ended since the loop's last turn. What waits to be read before the end is read first."""
        if self._socket is None:
            return
        with suppress(BlockingIOError):
            with suppress(ConnectionResetError):
                if self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return
            self._hang_up()

    def _hang_up(self, why: _NoStore | None = None) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for pod in self._pods.values():
            pod.offered = pod.stored = False
        asked, self._asked = self._asked, deque()
        for question in asked:
            if not question.answer.done():
                question.answer.set_exception(why or _NoStore("the connection was closed"))
                question.answer.exception()  # read once: of a deposit nobody waits for it

    def _say(self, problem: str) -> None:
        """Once, not once an attempt."""
        if problem != self._said:
            _log.warning("%s", problem)
            self._said = problem


def _box_of(uid: str, listeners: PodListeners) -> socket.socket:
    boxed = tuple(BoxedListener(_PORTS[kind.direction], kind.family) for kind in listeners.kinds)
    frame = BoxFrame(uid, listeners.netns_cookie, boxed)
    return fd_box.make_box(frame, [listener.fileno() for listener in listeners.sockets])


def _is_empty(box: socket.socket) -> bool:
    try:
        return not box.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True
